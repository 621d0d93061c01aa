"""Spans reach a collector by OTLP over HTTP; without one the service works on."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from driftloop.contracts.base import Chain
from driftloop.contracts.events import TrainingSkipped
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import LOOPBACK, free_port
from driftloop.runtime.admin import create_topics
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.component.processes import Log, ServiceProcess, example, with_id
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]


class Collector:
    """Takes what OpenTelemetry's exporters send."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for of in ExportTraceServiceRequest.FromString(body).resource_spans:
                    about = of.resource.attributes
                    names = {a.key: a.value.string_value for a in about}
                    outer.spans += [
                        (names["service.name"], span)
                        for scope in of.scope_spans
                        for span in scope.spans
                    ]
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_port}/v1/traces"

    def of_message(self, message_id: str) -> list[tuple[str, Span]]:
        """Spans about a message, each with its service."""
        return [
            (service, span)
            for service, span in self.spans
            if message_id in {a.value.string_value for a in span.attributes}
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join(30)
    found.server.server_close()


TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Registry:
    """A registry that sends its spans somewhere."""

    def __init__(self, kafka: KafkaNode, home: Path, url: str) -> None:
        create_topics(kafka.bootstrap)
        self.log = Log(kafka.bootstrap, home)
        self.process = ServiceProcess(
            "registry", home, kafka.bootstrap, environment={"DRIFTLOOP_TRACES_URL": url}
        )

    def tell(self) -> str:
        """Publish an event that it handles, in a trace; return the event's id."""
        event = TrainingSkipped.model_validate(example(TrainingSkipped.topic()))
        event = with_id(event, str(uuid.uuid4()))
        meta = replace(event.meta, chain=Chain(event.meta.id, TRACEPARENT))
        self.log.publish(event.with_meta(meta))
        return meta.id

    def handled(self) -> float:
        """How many of such events it has handled."""
        for line in self.process.client.get("/metrics").text.splitlines():
            if line.startswith("driftloop_events_consumed_total") and (
                'topic="training-skipped"' in line
            ):
                return float(line.rpartition(" ")[2])
        return 0.0


def test_spans_of_a_chain_reach_the_collector(
    kafka: KafkaNode, tmp_path: Path, collector: Collector
) -> None:
    registry = Registry(kafka, tmp_path, collector.url)
    with registry.process:
        event_id = registry.tell()
        wait_until(lambda: bool(collector.of_message(event_id)), 60)
        (service, span), *_ = collector.of_message(event_id)
    assert service == "registry"
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert span.kind == Span.SPAN_KIND_CONSUMER
    assert span.name == "process training-skipped"
    assert not (tmp_path / "traces").exists(), "not in files as well"


def test_a_collector_that_is_away_holds_nothing_up(
    kafka: KafkaNode, tmp_path: Path
) -> None:
    nowhere = f"http://{LOOPBACK}:{free_port()}/v1/traces"
    registry = Registry(kafka, tmp_path, nowhere)
    with registry.process:
        before = registry.handled()
        registry.tell()
        wait_until(lambda: registry.handled() > before, 60)
        assert registry.process.is_ready()
        assert registry.process.stop() == 0
