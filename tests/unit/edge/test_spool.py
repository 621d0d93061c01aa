"""What waits to be sent home outlives every kill, stays small, and is told once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from driftloop.cli.edge.runner.errors import Refused
from driftloop.cli.edge.runner.figures import Figures
from driftloop.cli.edge.runner.spool import BLOCK_BYTES, OPEN, Spool
from driftloop.cli.edge.runner.unfamiliar import Unfamiliar

MIB = 1024 * 1024
WRITER = """
import sys
from pathlib import Path
from driftloop.cli.edge.runner.figures import Figures
from driftloop.cli.edge.runner.spool import Spool
figures = Figures(sample_rows=3)
spool = Spool(Path(sys.argv[1]), 2**20, figures.lost)
spool.close_open()
number = 0
while True:
    number += 1
    figures.answered(2, 0.001, [], 0)
    figures.keep([(lot, {"id": f"{number}/{lot}"}) for lot, _ in figures.places(2)])
    report, rows = figures.snapshot()
    spool.keep_open(report, rows)
    print(report["report_id"], report["row_count"], flush=True)
    if number % 5 == 0:
        report, rows = figures.close()
        spool.add(report, rows)
"""


def report(number: int, **more: Any) -> dict[str, Any]:
    return {"report_id": f"{number:032x}", "row_count": number, **more}


def nothing_lost(kind: str, count: int) -> None:
    raise AssertionError((kind, count))


def reports_in(folder: Path) -> list[dict[str, Any]]:
    spool = Spool(folder, MIB, nothing_lost)
    spool.close_open()
    waiting = [one for one in spool.waiting() if one.kind == "report"]
    spool.close()
    return [json.loads(one.path.read_bytes()) for one in waiting]


def test_reports_survive_kills(tmp_path: Path) -> None:
    """Killed at eight moments: each report that was on disk is there, whole, once."""
    written: dict[str, int] = {}
    for kill in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line, _ in zip(process.stdout, range(8 + 3 * kill), strict=False):
            name, rows = line.split()
            written[name] = int(rows)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()  # what it wrote before it was killed
        for line in rest.splitlines()[:-1]:
            name, rows = line.split()
            written[name] = int(rows)
        process.wait()
        process.stdout.close()
    found = reports_in(tmp_path)
    rows = {one["report_id"]: one["row_count"] for one in found}
    assert len(rows) == len(found)
    assert {name: rows.get(name, 0) >= count for name, count in written.items()} == (
        dict.fromkeys(written, True)
    )


def test_a_kill_between_the_two_steps_of_closing_leaves_one_report(
    tmp_path: Path,
) -> None:
    """The report is closed, and the open one is still there."""
    spool = Spool(tmp_path, MIB, nothing_lost)
    spool.keep_open(report(1), [{"id": "a"}])
    left = (tmp_path / OPEN).read_bytes()
    spool.add(report(1), [{"id": "a"}])
    (tmp_path / OPEN).write_bytes(left)
    spool.close_open()
    assert [one.kind for one in spool.waiting()] == ["report", "rows"]
    assert not (tmp_path / OPEN).exists()
    spool.close()


def test_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    """Rows first, as they are only wished for; then reports. A file fills a block."""
    lost = Counter[str]()

    def count(kind: str, number: int) -> None:
        lost[kind] += number

    spool = Spool(tmp_path, 8 * BLOCK_BYTES, count)
    for number in range(1, 6):
        spool.add(report(number, words="x" * 300), [{"id": "r", "v": "y" * 300}] * 2)
    assert spool.size_bytes() <= 8 * BLOCK_BYTES
    assert lost == {"row": 2 * 2}  # 5 reports fit, and the rows of 3
    kinds = Counter(one.kind for one in spool.waiting())
    assert kinds == {"report": 5, "rows": 3}
    for number in range(6, 26):
        spool.add(report(number, words="x" * 300), [])
    assert lost["row"] == 5 * 2
    kept = [int(one.report_id, 16) for one in spool.waiting()]
    assert kept == list(range(26 - len(kept), 26))
    assert lost["report"] == 25 - len(kept)
    assert spool.size_bytes() <= 8 * BLOCK_BYTES
    spool.close()


def test_order_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        spool = Spool(tmp_path, MIB, nothing_lost)
        spool.add(report(number), [])
        spool.close()
    assert [one["row_count"] for one in reports_in(tmp_path)] == [3, 1, 2]


def test_a_file_that_was_not_finished_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000001-report-aa.json.part").write_text("{")
    (tmp_path / "notes-of-mine.json").write_text("{}")
    assert reports_in(tmp_path) == []
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_an_open_report_that_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / OPEN).write_text("[")
    assert reports_in(tmp_path) == []


def test_two_runners_have_two_spools(tmp_path: Path) -> None:
    first = Spool(tmp_path, MIB, nothing_lost)
    with pytest.raises(Refused, match="another runner uses the spool"):
        Spool(tmp_path, MIB, nothing_lost)
    first.close()
    Spool(tmp_path, MIB, nothing_lost).close()


# ── figures ─────────────────────────────────────────────────────────────────


def test_figures_add_up_and_begin_anew() -> None:
    figures = Figures()
    assert figures.is_empty
    odd = [Unfamiliar("size", 2, "within 0 to 1")]
    for _ in range(99):
        figures.answered(3, 0.001, odd, 2)
    figures.failed(5, 2.0)
    figures.refused()
    figures.lost("report", 4)
    told, rows = figures.close()
    assert rows == []
    assert told["request_count"] == 101
    assert told["row_count"] == 3 * 99 + 5
    assert told["error_count"] == 5
    assert told["refused_count"] == 1
    assert told["unfamiliar_row_count"] == 2 * 99
    assert told["unfamiliar"] == {"size": 2 * 99}
    assert told["lost_report_count"] == 4
    assert 0.001 <= told["latency_p50_seconds"] <= 0.0011
    assert 0.001 <= told["latency_p99_seconds"] <= 0.0011
    assert figures.is_empty
    again, _ = figures.close()
    assert again["request_count"] == again["lost_report_count"] == 0
    assert again["latency_p50_seconds"] is None
    assert again["report_id"] != told["report_id"]


def test_a_slow_call_in_a_hundred_is_the_99th() -> None:
    figures = Figures()
    for seconds in (*[0.001] * 98, 2.0, 2.0):
        figures.answered(1, seconds, [], 0)
    told, _ = figures.close()
    assert 2.0 <= told["latency_p99_seconds"] <= 2.2


def test_each_row_has_the_same_chance() -> None:
    """Of requests of one row and of many; first and last."""
    kept = Counter[int]()
    for _ in range(400):
        figures = Figures(sample_rows=10)
        number = 0
        for rows in (1, 40, 1, 1, 50, 7):
            drawn = figures.places(rows)
            figures.keep([(lot, {"n": number + at}) for lot, at in drawn])
            number += rows
        _, sample = figures.close()
        assert len(sample) == 10
        kept.update(row["n"] for row in sample)
    # 40 expected of each of 100 rows; 4.5 standard deviations of a share of 10 %
    assert all(13 <= kept[n] <= 67 for n in range(100)), kept


def test_rows_too_large_are_not_kept_and_none_without_a_wish() -> None:
    figures = Figures(sample_rows=2)
    drawn = figures.places(2)
    figures.keep([(drawn[0][0], {"text": "x" * 20_000}), (drawn[1][0], {"n": 1})])
    assert figures.close()[1] == [{"n": 1}]
    assert Figures().places(5) == []
