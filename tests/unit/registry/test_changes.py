"""A caller's stream of changes: what it is told, and when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from driftloop.contracts.events import TrainingFailed
from driftloop.registry.changes import stream
from driftloop.registry.changes.positions import Positions, as_text, parse_positions
from driftloop.registry.changes.stream import EventStream, Listener, told
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.transport import Message
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.registry import bench
from tests.unit.registry.story import NAME

STORE = FolderStore(Path("unused"))
places = st.dictionaries(
    st.tuples(st.sampled_from(["model-trained", "approval-given"]), st.integers(0, 99)),
    st.integers(1, 2**53),
)


class Reader:
    """Gives messages as the log would; then there are none."""

    def __init__(self, *messages: Message, stopping: threading.Event) -> None:
        self._messages = list(messages)
        self._stopping = stopping

    def next(self) -> Message | None:
        if self._messages:
            return self._messages.pop(0)
        self._stopping.set()
        return None


def message(offset: int, *, body: bytes | None = None) -> Message:
    event: TrainingFailed = bench.failed(f"job-{offset}", bench.trigger("t"), 1)
    record = encode(event, event.meta, STORE)
    value = record.value if body is None else body
    return Message(record.topic, 2, offset, record.key, value, record.headers)


def tell(*messages: Message, begin: Positions | None = None, **wanted: Any) -> str:
    """Return what a caller is sent."""

    async def holds() -> bool:
        return bool(wanted.get("holds", True))

    listener = Listener(
        wanted.get("pipeline"), wanted.get("may_read", lambda _: True), holds
    )
    stopping = threading.Event()
    reader = Reader(*messages, stopping=stopping)

    async def collect() -> str:
        parts = told(reader, begin or {}, listener, STORE, stopping)  # type: ignore[arg-type]  # a fake
        return b"".join([part async for part in parts]).decode()

    return asyncio.run(collect())


@given(places)
def test_positions_there_and_back(positions: Positions) -> None:
    assert parse_positions(as_text(positions)) == positions


@pytest.mark.parametrize("text", ["x", "model-trained/1", "a/b/c", "a/1/2/3", "a/1/2;"])
def test_other_text_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="is no position"):
        parse_positions(text)


def test_each_change_has_the_id_to_go_on_after() -> None:
    """The first block says it as well: who is cut before any event loses none."""
    begin = {("model-trained", 0): 7}
    blocks = tell(message(3), message(4), begin=begin).strip().split("\n\n")
    ids = [line for block in blocks for line in block.split("\n") if "id: " in line]
    assert ids == [
        "id: model-trained/0/7",
        "id: model-trained/0/7,training-failed/2/4",
        "id: model-trained/0/7,training-failed/2/5",
    ]
    assert '"position":"training-failed/2/3"' in blocks[1]
    assert '"text":"out of memory"' in blocks[1]
    assert "data:" not in blocks[0]


def test_what_one_may_not_read_is_not_told() -> None:
    said = tell(message(3), may_read=lambda name: name != NAME)
    assert "data:" not in said
    assert "data:" in tell(message(3))  # negative control


def test_only_the_pipeline_wanted() -> None:
    assert "data:" not in tell(message(3), pipeline="other")
    assert "data:" in tell(message(3), pipeline=NAME)


def test_what_is_no_event_is_passed_over() -> None:
    said = tell(message(3, body=b"{"), message(4))
    assert said.count("data:") == 1
    assert "id: training-failed/2/5" in said


def test_where_rights_cannot_be_told_the_stream_ends_before_the_event() -> None:
    def unknown(_: str) -> bool:
        raise HTTPException(503, "still being read")

    assert "training-failed" not in tell(message(3), may_read=unknown)


def test_a_credential_that_was_taken_back_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0)
    assert "data:" not in tell(message(3), holds=False)
    said = tell(message(3))  # negative control; the sign of life has an id
    assert "data:" in said
    assert ": still here\nid: training-failed/2/4" in said


def test_a_caller_that_takes_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it held is given back, once."""
    monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 0.05)
    closed: list[bool] = []
    sent: list[bytes] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(part: Any) -> None:
        sent.append(part.get("body", b""))
        if len(sent) > 3:
            await anyio.sleep_forever()

    async def answer() -> None:
        response = EventStream(endless(), lambda: closed.append(True))
        with anyio.fail_after(100):
            await response({"type": "http", "method": "GET"}, receive, send)  # type: ignore[arg-type]  # a fake

    asyncio.run(answer())
    assert closed == [True]
    assert len(sent) == 4
