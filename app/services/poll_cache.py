"""Answers to polls, kept for a few seconds while changes are heard of.

An entry belongs to one user and to the id that was asked for. It goes when a change of its task is heard, when it is
old, or when room is needed. A read that began before a change was heard stores nothing. Whatever a hint that never
comes would have said is known after ``LONGEST_SECONDS``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

LONGEST_SECONDS = 5.0  # an entry's life, from the moment its read began
CONFIRMED_SECONDS = 2.0  # so old may the proof be that changes are heard
_MOST_ENTRIES = 20_000
_MOST_BYTES = 32 * 1024 * 1024
_ENTRY_BYTES = 1024  # what an entry costs beside its answer
_CHANGES_REMEMBERED = 4096  # for reads under way

T = TypeVar("T")
_Key = tuple[int, str]  # the user as a number: a UUID is hashed and compared by slow code


@dataclass(frozen=True, slots=True)
class Head:
    """Headers of an answer, also as the lines that they are on the wire."""

    headers: tuple[tuple[bytes, bytes], ...]
    lines: bytes

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Head:
        kept = tuple(headers)
        return cls(kept, b"".join(b"%b: %b\r\n" % header for header in kept))


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """A status document, ready to be sent. ``unchanged`` is the head of a 304."""

    etag: str
    quoted_etag: bytes
    body: bytes
    head: Head
    unchanged: Head


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of the database that may fill the cache: what was known to be changed, and the time, when it began."""

    generation: int
    began: float


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    answer: T
    size: int
    ends: float
    names: frozenset[str]  # a change of any of these tasks ends it


class PollCache(Generic[T]):
    """For one loop. ``clock`` counts seconds as ``time.monotonic`` does."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_entries: int = _MOST_ENTRIES,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._clock = clock
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._entries: dict[_Key, _Entry[T]] = {}  # the one used last is the last
        self._by_name: dict[str, set[_Key]] = {}
        self._bytes = 0
        self._confirmed = float("-inf")
        self._generation = 0  # counts changes
        self._changed: dict[str, int] = {}  # the generation that a task's last change made
        self._oldest_valid = 0  # reads of earlier generations store nothing

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        return self._bytes

    # --- polls ----------------------------------------------------------------------------------------------

    def find(self, user_id: UUID, id: str) -> T | None:  # noqa: A002 - a task's or a job's
        key = (user_id.int, id)
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now - self._confirmed > CONFIRMED_SECONDS:
            return None
        if now >= entry.ends:
            self._remove(key)
            return None
        self._entries[key] = self._entries.pop(key)
        return entry.answer

    def begin(self) -> Reading:
        """Call it before the database is asked."""
        return Reading(self._generation, self._clock())

    def store(self, reading: Reading, user_id: UUID, id: str, *, task_id: str, answer: T, size: int) -> bool:  # noqa: A002
        """Keep what was read, unless a change may have been overtaken; whether it is kept. Only for work that has not
        ended: a final answer for a task is wrong as soon as anybody accepts another request for it."""
        now = self._clock()
        if now - self._confirmed > CONFIRMED_SECONDS or now >= reading.began + LONGEST_SECONDS:
            return False
        names = frozenset((task_id, id))
        newest = max(self._changed.get(name, 0) for name in names)
        if reading.generation < max(self._oldest_valid, newest):
            return False
        key, cost = (user_id.int, id), size + _ENTRY_BYTES
        if key in self._entries:
            self._remove(key)
        self._entries[key] = _Entry(answer, cost, reading.began + LONGEST_SECONDS, names)
        self._bytes += cost
        for name in names:
            self._by_name.setdefault(name, set()).add(key)
        self._make_room(now)
        return key in self._entries

    # --- what the listener and this process's own writes say ------------------------------------------------

    def changed(self, task_id: str) -> None:
        """Something of the task was committed."""
        self._generation += 1
        self._changed[task_id] = self._generation
        if len(self._changed) > _CHANGES_REMEMBERED:
            self._oldest_valid = self._generation
            self._changed.clear()
        for key in list(self._by_name.get(task_id, ())):
            self._remove(key)

    def confirmed(self, at: float) -> None:
        """All that was told before this moment has arrived."""
        self._confirmed = max(self._confirmed, at)

    def lost(self) -> None:
        """Nobody listens, or did not until now: anything may have changed."""
        self._generation += 1
        self._oldest_valid = self._generation
        self._confirmed = float("-inf")
        self._changed.clear()
        self._entries.clear()
        self._by_name.clear()
        self._bytes = 0

    # --- room -----------------------------------------------------------------------------------------------

    def _make_room(self, now: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries))
            full = len(self._entries) > self._most_entries or self._bytes > self._most_bytes
            if not full and now < self._entries[oldest].ends:
                return
            self._remove(oldest)

    def _remove(self, key: _Key) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        for name in entry.names:
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]
