"""One run of a claimed job, as its handler sees it.

HandlerError
├── ClaimLost     the job belongs to somebody else now (or to nobody): stop, write nothing
├── HandBack      the process stops: another continues from the journal
└── JobEnded      the run ends with this outcome
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.domain.jobs import AssetSlot, Claim, ClaimedJob, Outcome
from app.services.outcomes import RetryPolicy


class HandlerError(Exception):
    pass


class ClaimLost(HandlerError):
    pass


class HandBack(HandlerError):
    pass


class JobEnded(HandlerError):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class JobRun:
    """A claimed job in this process. ``protected`` marks stretches in which money is in the air."""

    def __init__(self, job: ClaimedJob, assets: Sequence[AssetSlot]) -> None:
        self.job = job
        self.assets = tuple(assets)
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.Task[None] | None = None  # ends the job because its time is over
        self.percent: int | None = None  # of its work, as the handler last said
        self.upload_cut = False  # an upload broke off: storage may still store it
        self._begun = False
        self._protections = 0
        self._stopping = False
        self._lost = False
        self._decided = False
        self._interrupted = False

    @property
    def claim(self) -> Claim:
        return self.job.claim

    @property
    def lost(self) -> bool:
        return self._lost

    @property
    def stopping(self) -> bool:
        return self._stopping

    def begin(self) -> None:
        """The handler is about to run: from now on a stop interrupts it. Raises ClaimLost or HandBack as ``check``."""
        self._begun = True
        self.check()

    def decide(self) -> bool:
        """How the run ends is decided once, by its handler or by its deadline: True for who comes first."""
        first = not self._decided
        self._decided = True
        return first

    def close(self) -> None:
        """The handler has returned: what is left to do is short, and nothing interrupts it any more."""
        self._protections += 1

    @contextmanager
    def protected(self) -> Generator[None]:
        """While inside, a stop waits. Leaving it during a stop raises HandBack; after a lost claim, ClaimLost."""
        self._protections += 1
        try:
            yield
        finally:
            self._protections -= 1
        self.check()

    @contextmanager
    def exposed(self) -> Generator[None]:
        """Within ``protected``, before there is money in the air: a stop or a lost claim interrupts the run. Raises
        ClaimLost or HandBack as ``check``."""
        protections, self._protections = self._protections, 0
        try:
            self.check()
            yield
            self.check()
        finally:
            self._protections = protections

    def check(self) -> None:
        """A good place to end: raises ClaimLost or HandBack when the run should."""
        if self._protections:
            return
        if self._lost:
            raise ClaimLost
        if self._stopping:
            raise HandBack

    def lose(self) -> None:
        """The claim is gone: cancel the handler where that can not lose money."""
        self._lost = True
        self._interrupt()

    def stop(self) -> None:
        """The process stops: interrupt the handler unless money is in the air."""
        self._stopping = True
        self._interrupt()

    def _interrupt(self) -> None:
        # a task that is cancelled before its first step never runs at all: nobody would settle the job; one that is
        # cancelled again while it tidies up leaves things about
        if self._begun and not self._protections and not self._interrupted and self.task is not None:
            self._interrupted = True
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class RunnableType:
    """A job type as the engine runs it: fetch, call, store; the engine settles the returned outcome."""

    run: Callable[[JobRun], Awaitable[Outcome]]
    retry: RetryPolicy
    time_limit_seconds: float | None = None
