"""Spans as the trace store has them."""

from __future__ import annotations

import json
from pathlib import Path

from driftloop.local.zipkin import SpanFiles


def test_spans_that_are_added_come_and_half_a_line_waits(tmp_path: Path) -> None:
    span = {
        "name": "process a", "kind": "SpanKind.CONSUMER", "parent_id": None,
        "context": {"trace_id": "0x" + "1" * 32, "span_id": "0x" + "2" * 16},
        "start_time": "2026-01-01T00:00:00.000001Z",
        "end_time": "2026-01-01T00:00:01Z",
        "status": {"status_code": "ERROR", "description": "broken"},
        "attributes": {"messaging.kafka.offset": 7},
        "links": [{"context": {"trace_id": "0x" + "3" * 32, "span_id": "0x4"}}],
        "resource": {"attributes": {"service.name": "monitor"}},
    }  # fmt: skip
    line = json.dumps(span) + "\n"
    folder = tmp_path / "traces"
    folder.mkdir()
    file = folder / "monitor.jsonl"
    file.write_text(line + line[:20])
    files = SpanFiles(tmp_path)
    ((found,),) = files.new()
    assert found == {
        "traceId": "1" * 32,
        "id": "2" * 16,
        "name": "process a",
        "kind": "CONSUMER",
        "timestamp": 1767225600000001,
        "duration": 999_999,
        "localEndpoint": {"serviceName": "monitor"},
        "tags": {
            "messaging.kafka.offset": "7",
            "link.1": "3" * 32 + "/4",
            "error": "broken",
        },
    }
    assert list(files.new()) == []
    with file.open("a") as more:
        more.write(line[20:])
    assert [len(spans) for spans in files.new()] == [1]
