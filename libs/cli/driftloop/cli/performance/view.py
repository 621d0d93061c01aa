"""Windows of a pipeline as people read them: a picture, a table, a few lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from driftloop.cli.options import plain_table
from driftloop.contracts.base import Event
from driftloop.contracts.estimates import (
    EstimatorScore,
    LabelsAwaited,
    MetricEstimate,
    PerformanceEstimated,
    PerformanceSettled,
    SettledMetric,
)
from rich.console import Group, RenderableType
from rich.text import Text

WIDTH = 30
"""Characters of a window's line in the picture."""
MARKS = {"ok": "green", "degrading": "bold red", "cannot_tell": "yellow"}
MAX_SLICES = 5


@dataclass(frozen=True)
class Seen:
    """One window: what was thought of it, and what came of it."""

    number: int
    estimated: PerformanceEstimated | None
    settled: PerformanceSettled | None

    @property
    def estimate(self) -> MetricEstimate | None:
        if self.estimated is None or not self.estimated.estimates:
            return None
        return self.estimated.estimates[0]

    @property
    def measured(self) -> SettledMetric | None:
        return self.settled.metrics[0] if self.settled else None


@dataclass(frozen=True)
class Performance:
    """A pipeline's newest windows, oldest first."""

    pipeline: str
    windows: Sequence[Seen]

    @property
    def newest(self) -> PerformanceEstimated | None:
        told = [one.estimated for one in self.windows if one.estimated]
        return told[-1] if told else None

    @property
    def last_settled(self) -> PerformanceSettled | None:
        told = [one.settled for one in self.windows if one.settled]
        return told[-1] if told else None

    def as_json(self) -> dict[str, Any]:
        newest, last = self.newest, self.last_settled
        return {
            "pipeline": self.pipeline,
            "verdict": newest.verdict if newest else None,
            "reason": newest.reason if newest else None,
            "labels": newest.labels.model_dump(mode="json") if newest else None,
            "score": last.score.model_dump(mode="json") if last else None,
            "windows": [
                {
                    "window": one.number,
                    "estimated": _plain(one.estimated),
                    "settled": _plain(one.settled),
                }
                for one in self.windows
            ],
        }


def _plain(event: Event | None) -> dict[str, Any] | None:
    return None if event is None else event.model_dump(mode="json")


def performance_of(
    pipeline: str, events: Iterable[Event], newest: int
) -> Performance | None:
    """Return a pipeline's newest windows; None: none has closed."""
    estimated: dict[int, PerformanceEstimated] = {}
    settled: dict[int, PerformanceSettled] = {}
    for event in events:
        if isinstance(event, PerformanceEstimated):
            estimated[event.window] = event
        elif isinstance(event, PerformanceSettled):
            settled[event.window] = event
    numbers = sorted(estimated.keys() | settled.keys())[-newest:]
    if not numbers:
        return None
    seen = [Seen(n, estimated.get(n), settled.get(n)) for n in numbers]
    return Performance(pipeline, seen)


def performance_view(found: Performance) -> RenderableType:
    """Return it for the terminal."""
    parts: list[RenderableType] = [_table(found)]
    newest, last = found.newest, found.last_settled
    if newest is not None:
        words = newest.verdict.replace("_", " ")
        parts.append(
            Text.assemble(
                "\nnow: ", (words, MARKS[newest.verdict]), f"; {newest.reason}"
            )
        )
        parts.append(Text(f"labels: {labels_in_words(newest.labels)}"))
    if last is not None:
        parts.append(Text(f"estimates: {score_in_words(last.score)}"))
        parts += _quality(last)
    return Group(*parts)


def labels_in_words(labels: LabelsAwaited) -> str:
    """Say where labels stand; none is not the same as fine.

    >>> labels_in_words(LabelsAwaited(state="none_yet"))
    'none has landed yet, so nothing is known of the error'
    """
    if labels.state == "none_yet":
        return "none has landed yet, so nothing is known of the error"
    text = "late, longer than usual" if labels.state == "late" else ""
    if labels.awaited_since is None:
        return text or f"all are here, up to {labels.labelled_until:%Y-%m-%d %H:%M}"
    parts = [text or "awaited", f"since {labels.awaited_since:%Y-%m-%d %H:%M}"]
    if labels.usual_days is not None:
        parts.append(f"usually within {labels.usual_days:.3g} days")
    if labels.labelled_ratio is not None:
        parts.append(f"{labels.labelled_ratio * 100:.0f} % of rows get one")
    return ", ".join(parts)


def score_in_words(score: EstimatorScore) -> str:
    """Say how good estimates have been.

    >>> score_in_words(EstimatorScore(window_count=0))
    'none has been held against labels yet'
    """
    if score.mean_absolute_error is None or score.level_error is None:
        return "none has been held against labels yet"
    coverage = 0.0 if score.coverage is None else score.coverage
    return (
        f"off by {score.mean_absolute_error:.3g} on average over {score.window_count} "
        f"windows (the last labels alone: {score.level_error:.3g}); the interval held "
        f"in {coverage * 100:.0f} %"
    )


def _quality(last: PerformanceSettled) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if last.calibration is not None:
        said = [f"error {last.calibration.error:.3g}"]
        if last.calibration.brier is not None:
            said.append(f"Brier {last.calibration.brier:.3g}")
        if last.calibration.bias is not None:
            said.append(f"bias {last.calibration.bias:.3g}")
        parts.append(Text(f"calibration: {', '.join(said)}"))
    for gap in last.fairness:
        value = gap.difference if gap.difference is not None else gap.loss_ratio
        known = f"{value:.3g}" if value is not None else gap.detail
        parts.append(Text(f"fairness, {gap.column}: {known}"))
    for one in last.business:
        known = f"{one.value:.4g}" if one.value is not None else one.detail
        parts.append(Text(f"{one.name}: {known}"))
    if last.slices:
        parts.append(_slices(last))
    return parts


def _slices(last: PerformanceSettled) -> RenderableType:
    table = plain_table(f"\nslices of window {last.window}, {last.slice_count} in all")
    for name in ("slice", "rows", "now", "before", "p"):
        table.add_column(name, justify="left" if name == "slice" else "right")
    for part in last.slices[:MAX_SLICES]:
        table.add_row(
            f"{part.column} {part.group}",
            f"{part.row_count:,}",
            f"{part.value:.4g}",
            "" if part.before is None else f"{part.before:.4g}",
            "" if part.p_value is None else f"{part.p_value:.2g}",
        )
    return table


# ── the picture ─────────────────────────────────────────────────────────────


def _table(found: Performance) -> RenderableType:
    metric = next(
        (m.metric for one in found.windows if (m := one.estimate or one.measured)), ""
    )
    ends = [
        end
        for one in found.windows
        for figure in (one.estimate, one.measured)
        if figure is not None
        for end in (figure.low, figure.high)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    table = plain_table(
        f"{found.pipeline}: {metric or 'nothing measured yet'}",
        caption="─ interval of the estimate, o estimate, x measured" if ends else None,
    )
    for name in ("until", "version", "estimate", "measured"):
        table.add_column(name, justify="left" if name == "until" else "right")
    table.add_column(f"{low:.3g} to {high:.3g}" if ends else "", no_wrap=True)
    for one in found.windows:
        event = one.settled or one.estimated
        if event is None:
            continue
        estimate, real = one.estimate, one.measured
        table.add_row(
            f"{event.span.end:%Y-%m-%d %H:%M}",
            f"v{event.version}",
            "" if estimate is None else f"{estimate.value:.4g}",
            "no labels yet" if real is None else f"{real.value:.4g}",
            _line(one, low, high),
        )
    return table


def _line(one: Seen, low: float, high: float) -> Text:
    """Return a window's interval, estimate and measurement on the common scale."""
    cells = [" "] * WIDTH

    def place(value: float) -> int:
        span = high - low
        return round((value - low) / span * (WIDTH - 1)) if span > 0 else 0

    estimate, real = one.estimate, one.measured
    if estimate is not None:
        for at in range(place(estimate.low), place(estimate.high) + 1):
            cells[at] = "─"
        cells[place(estimate.value)] = "o"
    if real is not None:
        cells[place(real.value)] = "x"
    verdict = one.estimated.verdict if one.estimated else "ok"
    return Text("".join(cells), style=MARKS[verdict] if estimate else "dim")
