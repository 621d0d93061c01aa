"""Structured logs and traces; both carry the trace id of the work in hand.

Spans follow the OpenTelemetry messaging conventions (1.44). Without an OTLP
endpoint they go to ``<home>/traces/<service>.jsonl``, one JSON object a span.
"""

import json
import logging
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import structlog
from driftloop.contracts.base import Meta
from driftloop.runtime.settings import Settings
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATOR = TraceContextTextMapPropagator()


class FileSpanExporter(SpanExporter):
    """Appends each span as one JSON line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(span.to_json(indent=None) + "\n" for span in spans)
        with self._lock:
            self._file.write(lines)
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def start_tracing(service: str, settings: Settings) -> TracerProvider:
    """Return a provider that exports to OTLP or to a file."""
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": service, "service.instance.id": settings.replica}
        )
    )
    if settings.traces_url:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )

        exporter = OTLPSpanExporter(endpoint=settings.traces_url)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    else:
        path = settings.home / "traces" / f"{service}.jsonl"
        provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(path)))
    return provider


def _context_of(traceparent: str | None) -> Any:
    return PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {})


def traceparent_of(span: Span) -> str | None:
    """Return a span's W3C ``traceparent``."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent")


def processing_span(
    tracer: Tracer, service: str, meta: Meta
) -> AbstractContextManager[Span]:
    """Span of handling one message; a child of the span that sent it."""
    return tracer.start_as_current_span(
        f"process {meta.topic}",
        context=_context_of(meta.chain.traceparent),
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": meta.topic,
            "messaging.destination.partition.id": str(meta.partition),
            "messaging.kafka.offset": meta.offset,
            "messaging.consumer.group.name": service,
            "messaging.message.id": meta.id,
            "messaging.message.conversation_id": meta.chain.id,
        },
        record_exception=False,  # its text may hold values of the message
        set_status_on_exception=False,
    )


def continuing_traceparent(
    tracer: Tracer, topic: str, origin: Meta, trigger: SpanContext
) -> str | None:
    """Return the trace context for an event that continues another chain.

    A short span in the origin's trace, linked to the span that set it off.
    """
    span = tracer.start_span(
        f"create {topic}",
        context=_context_of(origin.chain.traceparent),
        kind=SpanKind.PRODUCER,
        links=[Link(trigger)] if trigger.is_valid else (),
        attributes={"messaging.message.conversation_id": origin.chain.id},
    )
    result = traceparent_of(span)
    span.end()
    return result


def _add_trace_ids(_: Any, __: str, fields: Any) -> Any:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = trace.format_trace_id(context.trace_id)
        fields["span_id"] = trace.format_span_id(context.span_id)
    return fields


def start_logging(service: str, settings: Settings) -> None:
    """Send structlog's and the standard library's records to stdout, one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_ids,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=json.dumps, default=str)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(
                # Locals would be rows, keys and passwords.
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            )
            if settings.log_format == "json"
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for noisy in ("httpx", "uvicorn", "aiokafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel("WARNING")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def log(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; ``name`` is the module's."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
