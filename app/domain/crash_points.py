"""Failpoints: the places of a job's life where a process may die and the promises must still hold.

Each lies around one commit, send or transfer, and has a point on both sides. Every named statement that writes is one,
by its name, met by the database; the others are boundaries. Nothing happens at a point unless a test process called
``arm``; no setting and no environment variable can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self


class Boundary(StrEnum):
    # a request
    ACCEPT = "accept"
    RING = "ring"  # the bell leaves the process
    # a job
    CLAIM = "claim"
    UPLOAD = "upload"
    SETTLE = "settle"  # also begins the next step
    NEXT_STEP = "next_step"  # who may go on now is told
    SLOT = "slot"  # given back while inputs are prepared, and taken again
    FREE = "free"  # places of a user that came free are given out
    # a paid call
    PREPARE = "prepare"  # inputs go to the provider
    INTENT = "intent"
    SEND = "send"
    SUBMITTED = "submitted"  # the provider's id, or that its reply is on disk
    REFUSED = "refused"
    UNKNOWN = "unknown"
    LOOK = "look"  # for an unknown call in the provider's listing
    POLL = "poll"
    PROGRESS = "progress"
    BOOK = "book"  # the provider's final status and the cost
    DOWNLOAD = "download"
    DECODE = "decode"  # of a reply on disk
    RESULT = "result"  # the reply's pictures are stored, its cost is booked
    BREAKER = "breaker"  # how the provider took a call, for its circuit breaker
    GIVE_UP = "give_up"  # an unknown or endless call is booked by policy, and a second one gets fresh numbers
    # housekeeping
    RELEASE = "release"  # claims that the process does not know
    TAKE_BACK = "take_back"  # jobs of dead workers
    PROMOTE = "promote"  # what waited for a time
    ADOPT = "adopt"  # calls that no job waits for
    REMOVE = "remove"  # a file that belongs to nobody


class Side(StrEnum):
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class CrashPoint:
    side: Side
    boundary: str  # a Boundary, or the name of a statement

    def __str__(self) -> str:
        return f"{self.side}_{self.boundary}"


POINTS = tuple(CrashPoint(side, boundary) for boundary in Boundary for side in Side)

Reached = Callable[[CrashPoint, tuple[str, ...]], None]

_reached: Reached | None = None


def arm(reached: Reached | None) -> None:
    """Call ``reached`` at every point, with the ids of the tasks concerned as far as the place knows them; nothing for
    None."""
    global _reached  # noqa: PLW0603 - one process, one hook
    _reached = reached


def armed() -> bool:
    return _reached is not None


def meet(side: Side, name: str, tasks: Iterable[str | None] = ()) -> None:
    """A failpoint of this name is reached."""
    if _reached is not None:
        _reached(CrashPoint(side, name), tuple(task for task in tasks if task is not None))


class boundary:  # noqa: N801 - reads as the statement that it is
    """``with boundary(Boundary.INTENT): …`` reaches ``before_intent``, and ``after_intent`` unless the body raises."""

    __slots__ = ("_at", "_tasks")

    def __init__(self, at: Boundary, tasks: Iterable[str | None] = ()) -> None:
        self._at = at
        self._tasks = tasks

    def __enter__(self) -> Self:
        if _reached is not None:
            self.met(self._tasks)
            meet(Side.BEFORE, self._at, self._tasks)
        return self

    def met(self, tasks: Iterable[str | None]) -> None:
        """The tasks concerned, where they are known only inside."""
        self._tasks = tuple(tasks) if _reached is not None else ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            meet(Side.AFTER, self._at, self._tasks)
