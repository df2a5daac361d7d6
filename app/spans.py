"""What a span is, for those who begin one and those who record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from uuid import UUID

Attribute = str | int | float | bool


class Kind(Enum):
    INTERNAL = "internal"
    SERVER = "server"  # answers a request
    CLIENT = "client"  # waits for somebody else


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span belongs: a W3C trace id and, unless it is the trace's first, the id of the span above it."""

    trace_id: str  # 32 hex digits
    parent_id: str | None = None  # 16 hex digits


def span_id_of(id_: UUID) -> str:
    """The id of the span that was begun with ``own_id``: other processes find it without being told."""
    return f"{id_.int & (2**64 - 1):016x}"


class OpenSpan(Protocol):
    def set(self, attributes: Mapping[str, Attribute]) -> None: ...
    def rename(self, name: str) -> None: ...
    def end(self, error: str | None) -> None: ...


class Recorder(Protocol):
    """Takes spans to a collector."""

    def begin(
        self, name: str, kind: Kind, place: Place | None, own_id: str | None, attributes: Mapping[str, Attribute]
    ) -> OpenSpan:
        """A span under the current one, or at its ``place``; from now on it is the current one."""
        ...

    def close(self) -> None: ...
