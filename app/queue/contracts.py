"""What a feature needs to know of the queue, and the queue of a feature. Nothing here does anything.

A feature declares ``AssetKind``s and ``Participant``s; ``container.build_registry()`` registers them by explicit lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from app.db.pool import Connection
from app.domain.asset_kinds import AssetKind, AssetKinds
from app.domain.jobs import ITEMS_PER_JOB, Completed, FollowUp, ItemEnd, Lane, Permit
from app.domain.statuses import JobStatus
from app.errors import ErrorCode
from app.queue.states import Transition

__all__ = [
    "AssetKind",
    "AssetKinds",
    "Changed",
    "Committed",
    "Completed",
    "FollowUp",
    "ItemEnd",
    "Participant",
    "Participants",
    "Refused",
    "StepPlan",
    "Transition",
    "Tx",
]

# --- transitions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changed:
    """A job whose status a transition changed, as its row is now."""

    job_id: UUID
    task_id: str
    request_id: UUID
    user_id: UUID | None
    type: str
    by: Transition
    old: JobStatus | None
    new: JobStatus
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    usage: Mapping[str, Any] | None  # what the handler counted, see ``Completed.usage``
    price: Mapping[str, Any] | None  # frozen at accept
    participants: tuple[str, ...]
    step: int
    has_next: bool  # later steps of its request wait for it
    permit: Permit
    lane: Lane
    pool: str
    waiting_for: str | None
    error_message: str | None
    trace_id: str | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any], by: Transition) -> Changed:
        """From what ``makeit3d.changed`` makes of a job's row."""

        def moment(name: str) -> datetime | None:
            return None if value[name] is None else datetime.fromisoformat(value[name])

        return cls(
            job_id=UUID(value["job_id"]),
            task_id=value["task_id"],
            request_id=UUID(value["request_id"]),
            user_id=None if value["user_id"] is None else UUID(value["user_id"]),
            type=value["type"],
            by=by,
            old=None if value["old"] is None else JobStatus(value["old"]),
            new=JobStatus(value["new"]),
            attempt=value["attempt"],
            started_at=moment("started_at"),
            finished_at=moment("finished_at"),
            error_code=value["error_code"],
            usage=value["usage"],
            price=value["price"],
            participants=tuple(value["participants"]),
            step=value["step"],
            has_next=value["has_next"],
            permit=value["permit"],
            lane=value["lane"],
            pool=value["pool"],
            waiting_for=value["waiting_for"],
            error_message=value["error_message"],
            trace_id=value["trace_id"],
        )

    @property
    def ended(self) -> bool:
        return self.new.is_final

    @property
    def seconds(self) -> float:
        """From when a job first began to run to its end, by the server's clock; waits between its runs are in it."""
        if self.started_at is None or self.finished_at is None:
            return 0.0
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(slots=True)
class Committed:
    """What others are told when a transaction is committed: ``publish`` does, at most once. Maintenance makes good
    what is lost."""

    lanes: set[Lane] = field(default_factory=set[Lane])  # got claimable work
    users: set[UUID] = field(default_factory=set[UUID])  # may have a permit free
    tasks: set[tuple[str, UUID | None]] = field(default_factory=set[tuple[str, UUID | None]])  # have readers
    capacity: set[str] = field(default_factory=set[str])  # pools that may have a slot free
    dependents: set[str] = field(default_factory=set[str])  # tasks that others wait for, who are to be told

    def free(self, pool: str, user_id: UUID | None) -> None:
        """A job or a paid call of the pool ended."""
        self.capacity.add(pool)
        if user_id is not None:
            self.users.add(user_id)

    def add(self, other: Committed) -> None:
        self.lanes |= other.lanes
        self.users |= other.users
        self.tasks |= other.tasks
        self.capacity |= other.capacity
        self.dependents |= other.dependents

    def __bool__(self) -> bool:
        return bool(self.lanes or self.users or self.tasks or self.capacity or self.dependents)


@dataclass(frozen=True, slots=True)
class Tx:
    """The transaction of a transition. A participant reads and writes through it, and tells ``committed`` whom to
    wake."""

    connection: Connection
    committed: Committed


class Refused(Exception):
    """A participant does not let a request in: nothing is written, and the client gets the problem."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str | None = None,
        *,
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code.code)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.extra = dict(extra or {})


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """A job that was just accepted, as a participant sees it."""

    job_id: UUID
    type: str
    step: int
    estimate_micros: int
    price: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    request_id: UUID
    task_id: str
    user_id: UUID
    operation: str
    retry_of: UUID | None


class Participant(Protocol):
    """Takes part in the transactions in which jobs are accepted and end.

    It writes its own tables alone, by one set-based statement per call, and does no other I/O. It is called again for
    the same job when a transaction is repeated, never after one that was committed.
    """

    @property
    def name(self) -> str: ...

    @property
    def wants(self) -> frozenset[Transition]:
        """ACCEPT calls ``accepted``; of the others, those that end jobs call ``ended``."""
        ...

    async def accepted(self, tx: Tx, request: AcceptedRequest, jobs: Sequence[AcceptedJob]) -> None:
        """Raises Refused."""
        ...

    async def ended(self, tx: Tx, jobs: Sequence[Changed]) -> None:
        """Each job that ended and names this participant, once."""
        ...


class Participants:
    """The registered participants, in the order in which they are called, and lock."""

    def __init__(self, participants: Iterable[Participant] = ()) -> None:
        self._participants = {one.name: one for one in participants}

    def __iter__(self) -> Iterator[Participant]:
        return iter(self._participants.values())

    def __getitem__(self, name: str) -> Participant:
        return self._participants[name]

    def __contains__(self, name: object) -> bool:
        return name in self._participants


# --- steps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step of a request, as data: accept copies it into ``requests.steps``, so that no deploy changes the way of a
    request that is under way. Steps are numbered from 1; step n + 1 starts when every job of step n is completed.

    A step works through ``items``, or through what the step ``items_from`` yields: the ``items`` of its jobs' outputs,
    else those of their own items that are done. More than ``items_per_job`` make several jobs (chunks) of it, which
    share its estimate and the ``micros`` of its price. There is always one.
    """

    step: int
    type: str  # of its jobs
    pool: str
    lane: Lane
    priority: int
    provider: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    estimate_micros: int = 0
    participants: tuple[str, ...] = ()
    price: Mapping[str, Any] | None = None
    permit: Permit = "paid"
    items: tuple[str, ...] = ()
    items_from: int | None = None
    items_per_job: int = ITEMS_PER_JOB

    def as_json(self) -> dict[str, Any]:
        """Without the items, which are rows of their own."""
        return {
            "step": self.step,
            "type": self.type,
            "pool": self.pool,
            "lane": self.lane,
            "priority": self.priority,
            "provider": self.provider,
            "params": dict(self.params),
            "estimate_micros": self.estimate_micros,
            "participants": list(self.participants),
            "price": None if self.price is None else dict(self.price),
            "permit": self.permit,
            "items_from": self.items_from,
            "items_per_job": self.items_per_job,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StepPlan:
        values: dict[str, Any] = dict(value)
        values["participants"] = tuple(values["participants"])
        return cls(**values)
