"""Spans by OpenTelemetry's SDK, sent as OTLP over HTTP. Imported only where a collector is configured.

A queue of bounded length and a thread stand between our work and the collector: what it can not take is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from importlib.metadata import version

import structlog
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.util.re import parse_env_headers

from app.config import Settings
from app.spans import Attribute, Kind, OpenSpan, Place

log = structlog.get_logger(__name__)

_SEND_SECONDS = 5.0
_KINDS = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
}

_wanted_trace: ContextVar[int | None] = ContextVar("wanted_trace", default=None)
_wanted_span: ContextVar[int | None] = ContextVar("wanted_span", default=None)


class _Ids(RandomIdGenerator):
    """Random, unless the next span is to have a certain id."""

    def generate_trace_id(self) -> int:
        return _wanted_trace.get() or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return _wanted_span.get() or super().generate_span_id()


class _WarnsOnce(SpanExporter):
    """Says when the collector is lost and when it is back, instead of once per batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._closing and self._failing:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("traces_not_exported")
        elif self._failing and not failing:
            log.info("traces_exported_again")
        self._failing = failing
        return result

    def close_soon(self) -> None:
        """Try no more than once for what is left, and not at all where the collector is known to be away."""
        self._closing = True
        if self._failing:
            self._exporter.shutdown()  # ends the pause before a repeat

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Open:
    """The current span, until its end."""

    def __init__(self, recorded: trace.Span) -> None:
        self._span = recorded
        self._token: Token[context.Context] = context.attach(trace.set_span_in_context(recorded))

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def end(self, error: str | None) -> None:
        context.detach(self._token)
        if error is not None:
            # its message may hold what a user wrote
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class OtlpRecorder:
    def __init__(self, settings: Settings, endpoint: str, service: str) -> None:
        # its loggers repeat every failure; ours says it once
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        headers = settings.otlp_headers
        self._exporter = _WarnsOnce(
            OTLPSpanExporter(
                f"{endpoint}/v1/traces",
                headers=None if headers is None else parse_env_headers(headers.get_secret_value(), liberal=True),
                timeout=_SEND_SECONDS,
            )
        )
        self._provider = TracerProvider(
            # by trace id alone, so that all processes decide alike, and no client decides for us
            sampler=TraceIdRatioBased(settings.trace_ratio),
            resource=Resource.create({"service.name": service, "service.version": version("makeit3d-bff")}),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("makeit3d")

    def begin(
        self, name: str, kind: Kind, place: Place | None, own_id: str | None, attributes: Mapping[str, Attribute]
    ) -> OpenSpan:
        as_trace = _wanted_trace.set(None if place is None else int(place.trace_id, 16))
        as_span = _wanted_span.set(None if own_id is None else int(own_id, 16))
        try:
            above = None if place is None else _above(place)
            return _Open(self._tracer.start_span(name, above, _KINDS[kind], attributes))
        finally:
            _wanted_span.reset(as_span)
            _wanted_trace.reset(as_trace)

    def close(self) -> None:
        self._exporter.close_soon()
        self._provider.shutdown()


def _above(place: Place) -> context.Context:
    """A context of nothing but the span above, if there is one."""
    if place.parent_id is None:
        return context.Context()
    parent = trace.SpanContext(
        int(place.trace_id, 16), int(place.parent_id, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), context.Context())
