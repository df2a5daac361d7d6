"""What a job type is, and which there are. A type is one file and one line in ``container.build_registry``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from app.config import Settings
from app.domain.jobs import Outcome, Permit
from app.errors import ConfigurationError
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun, RunnableType
from app.services.outcomes import RetryPolicy

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


class JobHandler(Protocol[P_contra]):
    """Runs the jobs of one type; the returned outcome is recorded by the engine."""

    async def run(self, run: JobRun, params: P_contra, /) -> Outcome: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType(Generic[P]):
    """One kind of step. ``params`` is a pydantic model or a dataclass: what lies in ``jobs.params``.

    A job takes a permit of its user, unless nobody pays for it. ``time_limit_seconds`` counts from when work began;
    ``BFF_TIME_LIMITS`` may set another. ``retry`` makes the policy for what goes wrong from the settings.
    """

    name: str
    handler: Callable[[Toolbox], JobHandler[P]]
    params: type[P]
    permit: Permit
    retry: Callable[[Settings], RetryPolicy] = RetryPolicy.of
    time_limit_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a job type.")

    def parse(self, params: Mapping[str, Any]) -> P:
        """Raises pydantic's ValidationError, a ValueError."""
        return _adapter(self.params).validate_python(params)

    def runnable(self, toolbox: Toolbox, time_limit_seconds: float) -> RunnableType:
        """The type as the engine of a worker runs it."""
        handler = self.handler(toolbox)

        async def run(run: JobRun) -> Outcome:
            return await handler.run(run, self.parse(run.job.params))

        return RunnableType(run, self.retry(toolbox.settings), time_limit_seconds)


AnyJobType = JobType[Any]


class JobTypes:
    """The job types of a process by name. Frozen: nothing is added later."""

    def __init__(self, types: Iterable[AnyJobType]) -> None:
        self._types: dict[str, AnyJobType] = {}
        for job_type in types:
            if job_type.name in self._types:
                raise ValueError(f"{job_type.name} names two job types.")
            self._types[job_type.name] = job_type

    def __iter__(self) -> Iterator[AnyJobType]:
        return iter(self._types.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._types)

    @property
    def permits(self) -> dict[str, Permit]:
        """By name."""
        return {job_type.name: job_type.permit for job_type in self}

    def named(self, name: str) -> AnyJobType:
        """Raises ValueError for a name that nobody registered."""
        found = self._types.get(name)
        if found is None:
            raise ValueError(f"{name!r} is no job type of this process. Registered are {', '.join(self.names)}.")
        return found

    def time_limits(self, settings: Settings) -> dict[str, float]:
        """Seconds by name. Raises ConfigurationError when the setting names a type that is not registered."""
        if unknown := settings.time_limits.keys() - self._types.keys():
            raise ConfigurationError(f"BFF_TIME_LIMITS: there is no job type {', '.join(sorted(unknown))}.")
        return {job_type.name: job_type.time_limit_seconds for job_type in self} | settings.time_limits

    def runnable(self, toolbox: Toolbox) -> dict[str, RunnableType]:
        """Every type as the engine runs it. Raises ConfigurationError."""
        limits = self.time_limits(toolbox.settings)
        return {job_type.name: job_type.runnable(toolbox, limits[job_type.name]) for job_type in self}


@cache
def _adapter(params: type[P]) -> TypeAdapter[P]:
    return TypeAdapter(params)
