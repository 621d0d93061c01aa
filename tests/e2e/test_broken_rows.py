"""An upstream that sends one broken row in twenty: nothing is lost, nothing hangs."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer
from driftloop.cli import letters
from driftloop.cli.context import Installation
from driftloop.cli.data import publish_event
from driftloop.cli.demo.run import followed
from driftloop.cli.demo.scenario import Board
from driftloop.contracts import events as e
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.local import stack
from support import plain

SPEC = parse_pipeline(
    """
name: broken-rows
task: regression
owner: ann@example.org
data:
  target: y
  features:
    x: {type: number, min: 0, max: 1}
    colour: {type: category, values: [red, blue]}
"""
)
ROWS = 1000
BROKEN_EVERY = 20
TIMEOUT_S = 180.0

pytestmark = [pytest.mark.timeout(600), pytest.mark.broker]

BREAKS: tuple[tuple[str, str], ...] = (
    # what is done to the row, the field that must be named
    ("wrong type", "x"),
    ("missing column", "colour"),
    ("nan", "x"),
    ("unknown category", "colour"),
    ("broken json", ""),
)


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "event_time": f"2026-01-{1 + number // 50:02d}T{number % 24:02d}:00:00Z",
        "x": (number % 97) / 97,
        "colour": "red" if number % 2 else "blue",
        "y": float(number % 13),
    }


def broken(number: int) -> tuple[bytes, str]:
    """Return a broken row's bytes and how it is broken."""
    kind, _ = BREAKS[number // BROKEN_EVERY % len(BREAKS)]
    good = row(number)
    match kind:
        case "wrong type":
            good["x"] = "warm"
        case "missing column":
            del good["colour"]
        case "nan":
            return json.dumps(good | {"x": float("nan")}).encode(), kind
        case "unknown category":
            good["colour"] = "octarine"
        case _:
            return json.dumps(good).encode()[:-5], kind
    return json.dumps(good).encode(), kind


@dataclass
class Sent:
    installation: Installation
    board: Board
    good: set[str]
    broken: dict[str, str]


@pytest.fixture(scope="module")
def sent(installation: Installation) -> Iterator[Sent]:
    publish_event(
        installation,
        e.PipelineApplied(pipeline=SPEC.name, spec=SPEC, applied_by="ann"),
    )
    board = Board(SPEC.name)
    producer = Producer({"bootstrap.servers": installation.bootstrap})
    good, bad = set(), {}
    for number in range(ROWS):
        if number % BROKEN_EVERY == 7:
            value, bad[f"r{number}"] = broken(number)
        else:
            value = json.dumps(row(number)).encode()
            good.add(f"r{number}")
        producer.produce("observation-arrived", value, SPEC.name)
    assert producer.flush(120) == 0
    with followed(installation, board):
        result = Sent(installation, board, good, bad)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if len(validated(result)) + len(rejected(result)) >= quarantinable(result):
                break
            time.sleep(0.2)
        yield result


def quarantinable(sent: Sent) -> int:
    """Rows that have a row's form: all but those of broken JSON."""
    return ROWS - sum(kind == "broken json" for kind in sent.broken.values())


def validated(sent: Sent) -> list[str]:
    batches = [entry.event.rows for entry in sent.board.of(e.BatchValidated)]
    return [i for batch in batches for i in batch.column("id").to_pylist()]


def rejected(sent: Sent) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sent.board.of(e.BatchRejected):
        rows = entry.event.rows
        ids, reasons = rows.column("id").to_pylist(), rows.column("reason").to_pylist()
        found.update(zip(ids, reasons, strict=True))
    return found


def dead(sent: Sent) -> list[letters.Letter]:
    found = letters.dead_letters(sent.installation, "ingest")
    return [x for x in found if (x.message.key or b"").decode() == SPEC.name]


def test_good_rows_go_on_and_only_they(sent: Sent) -> None:
    assert sorted(validated(sent)) == sorted(sent.good)


def test_each_broken_row_is_kept_with_field_and_reason(sent: Sent) -> None:
    field_of = dict(BREAKS)
    quarantined, letters_found = rejected(sent), dead(sent)
    for row_id, kind in sent.broken.items():
        if row_id in quarantined:
            assert field_of[kind] in quarantined[row_id], (kind, quarantined[row_id])
            continue
        held = [x for x in letters_found if f'"{row_id}"'.encode() in x.message.value]
        assert held, f"{row_id} ({kind}) is nowhere"
        assert held[0].reason
        assert field_of[kind] in held[0].reason
    assert set(quarantined) <= set(sent.broken)


def test_reasons_are_counted_by_check_and_field(sent: Sent) -> None:
    counted: dict[str, int] = {}
    for entry in sent.board.of(e.BatchRejected):
        for reason in entry.event.reasons:
            counted[reason.field] = counted.get(reason.field, 0) + reason.row_count
            assert reason.detail
    assert set(counted) <= {"x", "colour"}
    assert sum(counted.values()) >= len(rejected(sent))


def test_lag_returns_to_zero(sent: Sent) -> None:
    processes = stack.status(sent.installation.home)["processes"]
    for name in ("ingest", "validator", "monitor", "scorer"):
        url = f"http://127.0.0.1:{processes[name]['port']}/readyz"
        deadline = time.monotonic() + TIMEOUT_S
        while plain.get(url).json()["lag"] != 0:
            assert time.monotonic() < deadline, f"{name} has lag"
            time.sleep(0.2)
