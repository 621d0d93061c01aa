"""How soon drift is found at the same rate of false alarms, beside other detectors.

Two questions. Errors: streams with a known drift, answered by a model that never learns
again; who hears first that it is wrong more often. Inputs: windows of rows in which one
column moves, or two turn against each other, while the error stays. Everybody else is
first set to the wanted rate of false alarms on streams without a drift; our error
detector runs as it is shipped. The tables in ``docs/detection.md`` are written here.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from driftloop.detection import errors
from driftloop.detection.binned import Binned
from driftloop.detection.together import Together
from scipy import stats

from tests.bench import detection_streams as made
from tests.bench.figures import Figure
from tests.bench.throw_away import environment

PART = "detection"
SEEDS = 20
STILL_SEEDS = 2
RATE = 0.05
"""False alarms in 10,000 rows that everybody may raise without a drift."""
PAGE = Path("docs/detection.md")
HERE = Path(__file__).parent
PEER_TIMEOUT_S = 900
PACKAGES = {
    "frouros": ["frouros==0.9.0"],
    "evidently": ["evidently==0.7.23", "pandas<3"],
    "nannyml": ["nannyml==0.13.1", "statsmodels", "pandas<3"],
}
WINDOW_PEERS = {
    "frouros_mmd": "frouros",
    "nannyml_ks": "nannyml",
    "nannyml_reconstruction": "nannyml",
    "evidently": "evidently",
}
RESAMPLED = 2000


@dataclass
class Told:
    """What a detector said.

    Attributes
    ----------
    alarms : of each stream; None: it was not asked about it.
    first : row from which it was asked.
    """

    name: str
    setting: str
    rate: float
    alarms: list[list[int] | None]
    first: int = 0


def run() -> Iterator[Figure]:
    """Measure the part and write the page's tables."""
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as name:
        folder = Path(name)
        places = _installed(folder)
        error_table, figures = _errors(folder, places)
        yield from figures
        input_table, figures = _inputs(folder, places)
        yield from figures
    write_table("errors", error_table)
    write_table("inputs", input_table)


def _installed(folder: Path) -> dict[str, Path]:
    """Return the interpreters of the other projects; what does not install is told."""
    found = {}
    for project, packages in PACKAGES.items():
        try:
            found[project] = environment(folder / "environments" / project, packages)
        except subprocess.CalledProcessError as error:
            print(f"{project} does not install: {error.stderr[-300:]}")  # noqa: T201
    return found


# ── errors ──────────────────────────────────────────────────────────────────


def _errors(folder: Path, places: Mapping[str, Path]) -> tuple[list[str], list[Figure]]:
    still = list(
        made.streams(
            [(n, "still", 100 + s) for n in made.CONCEPTS for s in range(STILL_SEEDS)]
        )
    )
    moving = list(
        made.streams([(n, k, s) for n, k in made.SCENARIOS for s in range(SEEDS)])
    )
    np.savez(
        folder / "streams.npz",
        still=np.array([s.wrong for s in still]),
        moving=np.concatenate([s.wrong for s in moving]),
        cuts=np.cumsum([len(s.wrong) for s in moving])[:-1],
    )
    plan = {
        "rate": RATE,
        "first_start": made.BEFORE_ROWS,
        "last_starts": [s.starts[-1] for s in moving],
    }
    (folder / "plan.json").write_text(json.dumps(plan), "utf-8")
    interpreters = {"river": Path(sys.executable)}
    interpreters |= {n: p for n, p in places.items() if n == "frouros"}
    with ThreadPoolExecutor(made.PROCESSES) as pool:
        waiting = [
            (
                project,
                pool.submit(asked, "detection_peers.py", python, project, folder),
            )
            for project, python in interpreters.items()
        ]
        ours = _ours(still, moving)
        told = [ours]
        for project, answer in waiting:
            for name, said in answer.result().items():
                told.append(
                    Told(
                        f"{project} {name}", said["setting"], said["rate"],
                        said["alarms"], said["from"],
                    )
                )  # fmt: skip
    return _error_table(told, moving), list(_error_figures(told, moving))


def asked(script: str, python: Path, name: str, folder: Path) -> Any:
    """Run one of the peers' programs and return what it wrote.

    Raises
    ------
    subprocess.CalledProcessError
        When it fails; its ``stderr`` says why.
    """
    subprocess.run(
        [str(python), str(HERE / script), name, str(folder)],
        check=True, timeout=PEER_TIMEOUT_S, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def _ours(still: Sequence[made.Stream], moving: Sequence[made.Stream]) -> Told:
    false = [len(_changes(s.wrong)) for s in still]
    alarms: list[list[int] | None] = [_changes(s.wrong) for s in moving]
    rate = 10_000 * sum(false) / sum(len(s.wrong) for s in still)
    return Told("driftloop", "as shipped", rate, alarms)


def _changes(wrong: made.Wrong) -> list[int]:
    _, found = errors.observe(errors.Watched(), wrong)
    return [change.at for change in found]


def delays(told: Told, moving: Sequence[made.Stream]) -> list[list[float]]:
    """Return each stream's delays, one a stretch; infinite where it was missed."""
    found = []
    for stream, alarms in zip(moving, told.alarms, strict=True):
        if alarms is None:
            found.append([])
            continue
        found.append(
            [
                min(
                    (a - start + 1.0 for a in alarms if start <= a < end),
                    default=np.inf,
                )
                for start, end in zip(stream.starts, stream.ends, strict=True)
            ]
        )
    return found


def false_rate(told: Told, moving: Sequence[made.Stream]) -> float:
    """Return false alarms in 10,000 rows, before the first drift of fresh streams."""
    rows = count = 0
    for stream, alarms in zip(moving, told.alarms, strict=True):
        if alarms is not None:
            rows += stream.starts[0] - told.first
            count += sum(alarm < stream.starts[0] for alarm in alarms)
    return 10_000 * count / max(rows, 1)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by bootstrap."""
    found = np.asarray(values)
    draw = np.random.default_rng(0)
    means = found[draw.integers(0, len(found), (RESAMPLED, len(found)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@dataclass
class Row:
    """A detector on the streams of one scenario."""

    mean: float
    low: float
    high: float
    median: float
    ratio: float
    missed: int
    count: int

    def text(self, best: float) -> str:
        """Return a cell; bold where the best mean is within its interval."""
        if not self.count:
            return "-"
        if self.missed == self.count:
            return f"all {self.count} missed"
        said = f"{self.mean:,.0f} ({self.low:,.0f}-{self.high:,.0f})"
        if not self.missed and self.low <= best:
            said = f"**{self.mean:,.0f}** ({self.low:,.0f}-{self.high:,.0f})"
        return said + (f", {self.missed} of {self.count} missed" if self.missed else "")


def summed(found: Sequence[float], bounds: Sequence[float]) -> Row:
    """Return the figures of some delays; those that were missed count apart."""
    known = [d for d in found if np.isfinite(d)]
    if not known:
        return Row(np.inf, np.inf, np.inf, np.inf, np.inf, len(found), len(found))
    ratio = float(np.median([d / b for d, b in zip(found, bounds, strict=True)]))
    return Row(
        float(np.mean(known)), *interval(known), float(np.median(known)), ratio,
        len(found) - len(known), len(found),
    )  # fmt: skip


def _rows(told: Told, moving: Sequence[made.Stream]) -> dict[tuple[str, str], Row]:
    grouped: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for stream, found in zip(moving, delays(told, moving), strict=True):
        key = (stream.name, stream.kind)
        both = grouped.setdefault(key, ([], []))
        both[0].extend(found)
        both[1].extend([stream.bound] * len(found))
    return {key: summed(*both) for key, both in grouped.items()}


def _error_table(told: Sequence[Told], moving: Sequence[made.Stream]) -> list[str]:
    rows = [_rows(one, moving) for one in told]
    names = [one.name for one in told]
    lines = [
        "| stream | bound | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for key in rows[0]:
        bounds = [s.bound for s in moving if (s.name, s.kind) == key]
        bound = float(np.median(bounds))
        best = min(
            (r[key].mean for r in rows if r[key].count and not r[key].missed), default=0
        )
        cells = " | ".join(r[key].text(best) for r in rows)
        shown = f"{bound:,.0f}" if np.isfinite(bound) else "-"
        lines.append(f"| {key[0]}, {key[1]} | {shown} | {cells} |")
    ratios = []
    for found in rows:
        sudden = [r.ratio for k, r in found.items() if k[1] == "abrupt" and r.count]
        ratios.append(f"{np.median(sudden):.2f}" if sudden else "-")
    lines += [
        "| **median delay / bound, abrupt** | | " + " | ".join(ratios) + " |",
        "| missed | | " + " | ".join(
            f"{sum(r.missed for r in found.values())} of "
            f"{sum(r.count for r in found.values())}"
            for found in rows
        ) + " |",
        "| false alarms in 10,000 rows, when set | | "
        + " | ".join(f"{one.rate:.3f}" for one in told) + " |",
        "| the same, on these streams before the drift | | "
        + " | ".join(f"{false_rate(one, moving):.3f}" for one in told) + " |",
        "| set to | | " + " | ".join(one.setting for one in told) + " |",
    ]  # fmt: skip
    return lines


def _error_figures(
    told: Sequence[Told], moving: Sequence[made.Stream]
) -> Iterator[Figure]:
    rows = {one.name: _rows(one, moving) for one in told}
    ours = rows["driftloop"]
    for key, row in ours.items():
        others = {
            name: found[key].mean
            for name, found in rows.items()
            if name != "driftloop" and found[key].count and not found[key].missed
        }
        peer = min(others, key=lambda n: others[n], default=None)
        label = f"{key[0]}, {key[1]}: mean delay"
        yield Figure(
            PART, label, "rows", row.mean, peer, others[peer] if peer else None
        )
        if key[1] == "abrupt":
            yield Figure(PART, f"{key[0]}: median delay / bound", "", row.ratio)
    missed = float(sum(row.missed for row in ours.values()))
    yield Figure(PART, "missed drifts", "", missed)
    rate = false_rate(told[0], moving)
    yield Figure(PART, "false alarms in 10,000 rows", "", rate)


# ── inputs ──────────────────────────────────────────────────────────────────

WINDOW_ROWS, HOP_ROWS = 500, 100
STILL_ROWS = 10_000
STILL_STREAMS = 20
LOOKED_ROWS = 2000
"""After the change; later it counts as missed."""
FEW_WINDOWS = 6
"""At either end: peers whose test is scipy's, too, are asked about these alone."""
SAME_TEST = {"evidently": "p-value", "nannyml_ks": "distance"}
SCIPY = "scipy's KS, as in Evidently and NannyML"


def _inputs(folder: Path, places: Mapping[str, Path]) -> tuple[list[str], list[Figure]]:
    reference = made.inputs("still", made.LEARNED_INPUTS, 1)
    still = [
        _windows(made.inputs("still", STILL_ROWS, 1000 + seed), WINDOW_ROWS)
        for seed in range(STILL_STREAMS)
    ]
    moved = [
        _windows(
            np.concatenate(
                [
                    made.inputs("still", WINDOW_ROWS, 2000 + seed),
                    made.inputs(kind, LOOKED_ROWS, 3000 + seed),
                ]
            ),
            WINDOW_ROWS + HOP_ROWS,
        )
        for kind in ("shift", "correlation")
        for seed in range(SEEDS)
    ]
    windows = np.concatenate([*still, *moved])
    np.savez(folder / "windows.npz", reference=reference, windows=windows)
    scores, seconds = _our_scores(reference, windows)
    known, seconds[SCIPY] = _scipy(reference, windows)
    scores[SCIPY] = known["p-value"]
    few = np.r_[:FEW_WINDOWS, -FEW_WINDOWS:0]
    for name, project in WINDOW_PEERS.items():
        if project not in places:
            continue
        is_same_test = name in SAME_TEST
        part = windows[few] if is_same_test else windows
        np.savez(folder / "windows.npz", reference=reference, windows=part)
        try:
            said = asked("detection_window_peers.py", places[project], name, folder)
        except subprocess.CalledProcessError as error:
            print(f"{name} fails: {error.stderr[-400:]}")  # noqa: T201
            continue
        if is_same_test:
            apart = np.abs(known[SAME_TEST[name]][few] - np.array(said["scores"])).max()
            print(f"{name} differs from scipy's by {apart:.2g} at most")  # noqa: T201
            seconds[name] = said["seconds"]
        else:
            scores[name], seconds[name] = np.array(said["scores"]), said["seconds"]
    return _input_table(scores, seconds, len(still[0]))


def _windows(rows: made.Floats, first_end: int) -> made.Floats:
    """Return (n_windows, WINDOW_ROWS, n_columns), one each ``HOP_ROWS`` rows."""
    ends = range(first_end, len(rows) + 1, HOP_ROWS)
    return np.array([rows[end - WINDOW_ROWS : end] for end in ends])


def _our_scores(
    reference: made.Floats, windows: made.Floats
) -> tuple[dict[str, Any], dict[str, float]]:
    names = [f"n{i}" for i in range(reference.shape[1])]
    binned, together = Binned.of(names, reference), Together.of(names, reference)
    found: dict[str, list[float]] = {"KS": [], "MMD": [], "correlation": []}
    spent = dict.fromkeys(found, 0.0)
    for window in windows:
        began = time.process_time()
        columns = binned.compare(binned.counts(window), ("KS",))
        spent["KS"] += time.process_time() - began
        found["KS"].append(min(c.p_value for c in columns) * len(columns))
        began = time.process_time()
        standard = together.standardised(window)
        discrepancy = together.discrepancy(standard)
        spent["MMD"] += time.process_time() - began
        began = time.process_time()
        correlation = together.correlation(standard)
        spent["correlation"] += time.process_time() - began
        assert discrepancy is not None
        assert correlation is not None
        found["MMD"].append(discrepancy.p_value)
        found["correlation"].append(correlation.p_value)
    each = np.array([found[name] for name in found])
    scores: dict[str, Any] = {
        "driftloop, all three": _decades(each.min(axis=0)),
        **{f"driftloop {n}": _decades(np.array(v)) for n, v in found.items()},
    }
    times = {f"driftloop {n}": s / len(windows) for n, s in spent.items()}
    times["driftloop, all three"] = sum(times.values())
    return scores, times


def _decades(p_values: Any) -> Any:
    return -np.log10(np.maximum(p_values, 1e-300))


def _scipy(
    reference: made.Floats, windows: made.Floats
) -> tuple[dict[str, Any], float]:
    began = time.process_time()
    found = [
        [
            stats.ks_2samp(reference[:, at], window[:, at])
            for at in range(reference.shape[1])
        ]
        for window in windows
    ]
    seconds = (time.process_time() - began) / len(windows)
    least = np.array([min(float(test.pvalue) for test in tests) for tests in found])
    most = np.array([max(float(test.statistic) for test in tests) for tests in found])
    return {"p-value": _decades(least), "distance": most}, seconds


def episodes(is_alarm: Any) -> int:
    """Return how many runs of alarms there are."""
    return int((np.diff(is_alarm.astype(int), prepend=0) > 0).sum())


def threshold_for(still: Any, rows: int) -> float:
    """Return the least threshold with no more false alarms than ``RATE``.

    Parameters
    ----------
    still : (n_streams, n_windows) scores without a drift.
    """
    allowed = RATE * rows / 10_000
    values = np.sort(still.ravel())[::-1]
    best = np.nextafter(values[0], np.inf)
    for value in values:
        above = np.nextafter(value, np.inf)
        if sum(episodes(row >= above) for row in still) > allowed:
            break
        best = above
    return float(best)


def _input_table(
    scores: Mapping[str, Any], seconds: Mapping[str, float], looks: int
) -> tuple[list[str], list[Figure]]:
    lines = [
        "| | a column moves by one standard deviation | a correlation goes from 0 to "
        f"{made.CORRELATION} | false alarms in 10,000 rows | CPU ms a window |",
        "|---|---|---|---|---|",
    ]
    found: dict[str, dict[str, Row]] = {}
    rates = {}
    for name, score in scores.items():
        still = np.asarray(score[: STILL_STREAMS * looks]).reshape(STILL_STREAMS, looks)
        rows = STILL_STREAMS * STILL_ROWS
        threshold = threshold_for(still, rows)
        rates[name] = 1e4 * sum(episodes(row >= threshold) for row in still) / rows
        rest = np.asarray(score[STILL_STREAMS * looks :])
        moved = rest.reshape(2, SEEDS, -1) >= threshold
        found[name] = {}
        for kind, alarms in zip(("shift", "correlation"), moved, strict=True):
            found_delays = [
                HOP_ROWS * (int(np.argmax(a)) + 1.0) if a.any() else np.inf
                for a in alarms
            ]
            found[name][kind] = summed(found_delays, [np.inf] * len(found_delays))
    best = {
        kind: min(
            (r[kind].mean for r in found.values() if not r[kind].missed), default=0
        )
        for kind in ("shift", "correlation")
    }
    figures = []
    for name, row in found.items():
        cells = " | ".join(row[kind].text(best[kind]) for kind in best)
        lines.append(
            f"| {name} | {cells} | {rates[name]:.2f} | {1e3 * seconds[name]:.3g} |"
        )
    figures += [
        Figure(PART, f"inputs, {name}: a window", "CPU ms", 1e3 * seconds[name])
        for name in SAME_TEST
        if name in seconds
    ]
    for kind in best:
        mine = found["driftloop, all three"][kind].mean
        figures.append(Figure(PART, f"inputs, {kind}: mean delay", "rows", mine))
    for kind in best:
        count = sum(
            any(
                a >= made.BEFORE_ROWS
                for a in _changes(made.wrong_on_inputs(kind, seed))
            )
            for seed in range(SEEDS)
        )
        label = f"inputs, {kind}: streams called a rise of the error, of {SEEDS}"
        figures.append(Figure(PART, label, "", float(count)))
        lines.append(f"\nOf {SEEDS} streams with this {kind}, our error detector "
                     f"called {count} a rise of the error.")  # fmt: skip
    return lines, figures


# ── page ────────────────────────────────────────────────────────────────────


def write_table(name: str, lines: Sequence[str]) -> None:
    """Replace what the page has between the marks of a table."""
    text = PAGE.read_text("utf-8")
    begin, end = f"<!-- {name}: written by the benchmark -->", f"<!-- end of {name} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    PAGE.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail, "utf-8")
