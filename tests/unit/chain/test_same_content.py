"""Doubled, reordered, cut into other messages, killed anywhere: the same dataset."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import RowKind
from driftloop.contracts.pipeline import parse_pipeline
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.kills import Killed
from tests.unit.chain.data import PARTITIONS, DataChain
from tests.unit.support import examples

SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, features: "
    "{temp: {min: 0, max: 1}, sky: {type: category}}}}"
)
COUNT = 10
BAD = 7
"""The row whose temperature is out of range."""
KINDS: tuple[RowKind, ...] = ("observations", "labels")
Row = tuple[RowKind, str, dict[str, Any]]


def row(kind: RowKind, number: int) -> Row:
    """Return what upstream has to say of one id; a source has its own ids."""
    values: dict[str, Any] = {
        "id": f"r{number}",
        "event_time": f"2011-01-01T00:{number:02d}:00Z",
    }
    if kind == "labels":
        values["cnt"] = number * 1.5
    else:
        values |= {"temp": 9.0 if number == BAD else number / COUNT}
        values |= {"sky": ["clear", "mist"][number % 2], "note": f"n{number}"}
    return kind, f"pump{number % 2}", values


ROWS = [row(kind, number) for kind in KINDS for number in range(COUNT)]


@contextmanager
def chain() -> Iterator[DataChain]:
    with tempfile.TemporaryDirectory(prefix="driftloop-chain-") as folder:
        yield DataChain(Path(folder), SPEC)


def content(chain: DataChain) -> dict[str, list[str]]:
    return {kind: chain.content("bikes", kind) for kind in KINDS}


@pytest.fixture(scope="module")
def orderly() -> dict[str, list[str]]:
    """Return the content after one message of each kind and source, and no kill."""
    with chain() as found:
        for kind in KINDS:
            for source in ("pump0", "pump1"):
                rows = [r for k, s, r in ROWS if (k, s) == (kind, source)]
                found.send("bikes", rows, kind, source)
        found.work("ingest")
        found.work("validator")
        counts = found.latest("bikes")
        assert (counts.observation_count, counts.label_count) == (COUNT - 1, COUNT - 1)
        return content(found)


def test_the_content_tells_rows_apart(orderly: dict[str, list[str]]) -> None:
    """Negative control: one other value, and one row less, are another content."""
    assert len(set(orderly["observations"])) == COUNT - 1
    assert len(set(orderly["labels"])) == COUNT
    with chain() as found:
        for kind, source, values in ROWS[:-1]:
            is_it = (kind, values["id"]) == ("observations", "r3")
            other = values | {"note": "?"} if is_it else values
            found.send("bikes", [other], kind, source)
        found.work("ingest")
        found.work("validator")
        strange = content(found)
    assert len(set(strange["observations"]) ^ set(orderly["observations"])) == 2
    assert len(set(strange["labels"]) ^ set(orderly["labels"])) == 1


MESSAGE = st.tuples(st.integers(1, 6), st.integers(0, PARTITIONS - 1))
"""How many rows a message takes, and the partition that it is on."""
RUN = st.tuples(
    st.sampled_from(["ingest", "validator"]),
    st.one_of(st.none(), st.integers(0, 12)),
    st.integers(1, 4),
)
"""A service's run: which, after how many steps it is killed, messages a chunk."""


@settings(
    max_examples=examples(15),
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    order=st.permutations(range(len(ROWS))),
    again=st.lists(st.integers(0, len(ROWS) - 1), max_size=10),
    messages=st.lists(MESSAGE, min_size=1, max_size=8),
    runs=st.lists(RUN, max_size=6),
)
def test_any_mixture_gives_the_same_dataset(
    orderly: dict[str, list[str]],
    order: list[int],
    again: list[int],
    messages: list[tuple[int, int]],
    runs: list[tuple[str, int | None, int]],
) -> None:
    """Also when each service is killed wherever a kill could hurt, and begins anew."""
    with chain() as found:
        todo = [ROWS[at] for at in (*order, *again)]
        for at in range(len(todo)):
            if not todo:
                break
            size, partition = messages[at % len(messages)]
            todo = send_some(found, todo, size, partition)
            if at < len(runs):
                work(found, *runs[at])
        for service in ("ingest", "validator"):
            found.work(service, chunk=3)
        assert content(found) == orderly
        counts = found.latest("bikes")
        assert (counts.observation_count, counts.label_count) == (COUNT - 1, COUNT - 1)
        assert_repeats_are_equal(found)


def send_some(
    chain: DataChain, todo: list[Row], size: int, partition: int
) -> list[Row]:
    """Send the first rows, as far as they share kind and source; return the rest."""
    kind, source, _ = todo[0]
    mine = [at for at, (k, s, _) in enumerate(todo) if (k, s) == (kind, source)]
    chosen = set(mine[:size])
    rows = [todo[at][2] for at in mine[:size]]
    chain.send("bikes", rows, kind, source, partition)
    return [one for at, one in enumerate(todo) if at not in chosen]


def work(chain: DataChain, service: str, kill_after: int | None, chunk: int) -> None:
    chain.fuse.steps_left = kill_after
    try:
        chain.work(service, chunk)
    except Killed:
        pass
    finally:
        chain.fuse.steps_left = None


def assert_repeats_are_equal(chain: DataChain) -> None:
    """Same id, same bytes: whatever was published twice is one fact."""
    seen: dict[bytes, bytes | None] = {}
    for topic in ("batch-ingested", "batch-validated", "dataset-versioned"):
        for partition in range(PARTITIONS):
            for message in chain.broker.log(topic, partition):
                event_id = dict(message.headers)["ce_id"]
                assert seen.setdefault(event_id, message.value) == message.value


STEPS = {
    "ingest": {"before commit", "before publishing", "after publishing",
               "before the offset's commit"},
    "validator": {"before commit", "before publishing", "after publishing",
                  "before the offset's commit", "before the append",
                  "between append and commit"},
}  # fmt: skip


@pytest.mark.parametrize("service", STEPS)
def test_a_kill_at_every_step_changes_nothing(
    orderly: dict[str, list[str]], service: str
) -> None:
    """One kill after the other, each a step later; all the places are met."""
    with chain() as found:
        for kind, source, values in ROWS:
            found.send("bikes", [values], kind, source)
        if service == "validator":
            found.work("ingest", chunk=2)
        for steps in range(30):
            work(found, service, steps, 1)
        found.work("ingest")
        found.work("validator")
        assert content(found) == orderly
        assert set(found.fuse.burnt_at) == STEPS[service]
