"""Spans for OpenTelemetry, where the settings name a collector; elsewhere nothing of it is imported and a span does
nothing.

Attributes are ids, kinds, codes and sizes: nothing that a user wrote, no address, no secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextvars import Context
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from app.config import Settings
from app.spans import Attribute, Kind, OpenSpan, Place, Recorder, span_id_of

__all__ = ["Kind", "Place", "close", "configure", "detached", "is_recording", "span", "span_id_of"]

T = TypeVar("T")

_recorder: Recorder | None = None


def configure(settings: Settings, service: str) -> None:
    """Begin to record, where the settings say so. ``service`` names the kind of process."""
    global _recorder  # noqa: PLW0603 - one process, one recorder
    if settings.otlp_endpoint is not None and _recorder is None:
        from app.otlp import OtlpRecorder  # hundreds of modules

        _recorder = OtlpRecorder(settings, settings.otlp_endpoint, service)


def is_recording() -> bool:
    return _recorder is not None


def close() -> None:
    """Send what is left, for a few seconds at most. Blocks."""
    global _recorder  # noqa: PLW0603
    if _recorder is not None:
        _recorder.close()
        _recorder = None


class span:  # noqa: N801 - reads as the statement that it is
    """``with span("settle", job_type="generate_model"): …``; an exception that leaves it is its error, by type alone.

    Without a value an attribute is left out. ``place`` puts it elsewhere than under the current span.
    """

    __slots__ = ("_attributes", "_kind", "_name", "_open", "_own_id", "_place")

    def __init__(
        self,
        name: str,
        kind: Kind = Kind.INTERNAL,
        *,
        place: Place | None = None,
        own_id: UUID | None = None,
        **attributes: Attribute | None,
    ) -> None:
        self._name = name
        self._kind = kind
        self._place = place
        self._own_id = own_id
        self._attributes = attributes
        self._open: OpenSpan | None = None

    def __enter__(self) -> Self:
        if _recorder is not None:
            own_id = None if self._own_id is None else span_id_of(self._own_id)
            self._open = _recorder.begin(self._name, self._kind, self._place, own_id, _present(self._attributes))
        return self

    def set(self, **attributes: Attribute | None) -> None:
        if self._open is not None:
            self._open.set(_present(attributes))

    def rename(self, name: str) -> None:
        if self._open is not None:
            self._open.rename(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._open is not None:
            cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
            self._open.end(None if kind is None or cancelled else kind.__name__)


def detached(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that belongs to no request and no job, whoever starts it: its spans and log lines carry none's ids."""
    return asyncio.create_task(work, context=Context())


def _present(attributes: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    return {name: value for name, value in attributes.items() if value is not None}
