"""Jobs as workers see them: what is planned, what is claimed, and how a run of a job can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.domain.params import ObjectRef
from app.domain.statuses import WaitingFor
from app.errors import ErrorCode

Lane = Literal["priority", "normal"]
LANES: tuple[Lane, ...] = ("priority", "normal")

# what a job takes of its user while it runs: a permit for paid work, one for work on graphics cards, or none
Permit = Literal["paid", "gpu", "none"]

ITEMS_PER_JOB = 2000  # of a step that says nothing else
FOLLOW_UP = "follow_up"  # the type of the job that stands for a follow-up without a plan: it failed, and nobody runs it


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write for a job. A write whose claim is stale changes nothing."""

    job_id: UUID
    worker_id: UUID
    attempt: int


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A paid result that storage refused for good: it lies in the spool of a host until a time. ``pictures`` are the
    numbers of those in an image reply that are still to be stored, in the order of the rows that want them."""

    call_id: UUID  # the call that paid for it
    host: str
    until: datetime
    pictures: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """By the names of a job's columns."""
        return {
            "kept_call": str(self.call_id),
            "kept_host": self.host,
            "kept_until": self.until.isoformat(),
            "kept_pictures": list(self.pictures),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> KeptResult:
        until = datetime.fromisoformat(value["kept_until"])
        return cls(UUID(value["kept_call"]), value["kept_host"], until, tuple(value["kept_pictures"]))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> KeptResult | None:
        """From a job's columns."""
        if row["kept_call"] is None:
            return None
        return cls(row["kept_call"], row["kept_host"], row["kept_until"], tuple(row["kept_pictures"] or ()))


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job that a request is about to add."""

    id: UUID
    step: int
    type: str  # a registered job type
    provider: str | None
    pool: str
    lane: Lane
    priority: int
    params: Mapping[str, Any]
    estimate_micros: int = 0  # what its paid calls may cost, USD micros
    retry_of: UUID | None = None  # the failed job whose place it takes
    keeps_paid_work: bool = False  # it goes on with the provider's work that the failed job paid for
    kept: KeptResult | None = None  # and stores this one
    chunk: int = 0
    permit: Permit = "paid"  # of its type
    participants: tuple[str, ...] = ()  # names of those who take part when it is accepted and ends
    price: Mapping[str, Any] | None = None  # what it costs its user, frozen: ``micros``, and what its type adds
    items: tuple[str, ...] = ()  # keys of what it works through


@dataclass(frozen=True, slots=True)
class AssetPlan:
    """An asset row that a request is about to add, ``pending``."""

    id: UUID
    kind: str  # a registered kind of assets
    job_id: UUID
    prompt: str
    style: str | None
    source_input_asset_id: UUID | None = None
    source_concept_image_id: UUID | None = None
    source_model_id: UUID | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A running job with all a handler needs to know of its row."""

    claim: Claim
    task_id: str
    request_id: UUID
    user_id: UUID | None
    step: int
    type: str  # a registered job type
    provider: str | None
    pool: str
    lane: Lane
    params: Mapping[str, Any]
    failures: int
    deferrals: int
    crashes: int
    alone: bool
    age_seconds: float
    time_left_seconds: float | None  # until its deadline; None: no limit
    retry_of: UUID | None = None
    trace_id: str | None = None  # of the HTTP request that it comes from
    kept: KeptResult | None = None  # what it is to store


@dataclass(frozen=True, slots=True)
class JobTrail:
    """What a line of the log says of a job, so that it can be followed."""

    job_id: UUID
    task_id: str
    request_id: UUID
    trace_id: str | None

    def as_log(self) -> dict[str, str | None]:
        return {
            "job_id": str(self.job_id),
            "task_id": self.task_id,
            "request_id": str(self.request_id),
            "trace_id": self.trace_id,
        }


@dataclass(frozen=True, slots=True)
class AssetSlot:
    """An asset row of a claimed job, waiting for its file."""

    id: UUID
    kind: str
    number: int
    prompt: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a result that lies in the bucket; its ``files`` row becomes ``stored`` when the job settles."""

    file_id: UUID
    asset_id: UUID
    kind: str
    bucket: str
    key: str
    url: str
    content_type: str
    size: int
    sha256: str | None
    width: int | None = None
    height: int | None = None
    preview_url: str | None = None
    preview_file_id: UUID | None = None
    preview_size: int | None = None
    preview_sha256: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "file_id": str(self.file_id),
            "asset_id": str(self.asset_id),
            "kind": str(self.kind),
            "bucket": self.bucket,
            "key": self.key,
            "url": self.url,
            "content_type": self.content_type,
            "size": self.size,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "preview_url": self.preview_url,
            "preview_file_id": None if self.preview_file_id is None else str(self.preview_file_id),
            "preview_size": self.preview_size,
            "preview_sha256": self.preview_sha256,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoredFile:
        return cls(
            file_id=UUID(value["file_id"]),
            asset_id=UUID(value["asset_id"]),
            kind=value["kind"],
            bucket=value["bucket"],
            key=value["key"],
            url=value["url"],
            content_type=value["content_type"],
            size=value["size"],
            sha256=value["sha256"],
            width=value["width"],
            height=value["height"],
            preview_url=value["preview_url"],
            preview_file_id=None if value["preview_file_id"] is None else UUID(value["preview_file_id"]),
            preview_size=value.get("preview_size"),
            preview_sha256=value.get("preview_sha256"),
        )


# --- how a run ends: exactly one of these is settled ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """Why an asset row got no file."""

    error: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One of the things that a job works through; positions count from 1."""

    key: str
    position: int


ItemStatus = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """How one of the things that a job works through ended. A bad item fails no job."""

    key: str
    status: ItemStatus
    error: ErrorCode | None = None
    message: str | None = None
    output: Mapping[str, Any] = field(default_factory=dict[str, Any])  # goes into the item's event


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Work that a job found to do: planned by the task type and accepted in the transaction that finishes the job.
    ``key`` tells it apart from the other follow-ups of the job; without a task id it joins the job's own task.
    ``inputs`` are objects that the job has seen, by the key of the task type's input: nobody looks at them again."""

    task_type: str
    params: Mapping[str, Any]
    key: str
    task_id: str | None = None
    inputs: Mapping[str, tuple[ObjectRef, ...]] = field(default_factory=dict[str, tuple[ObjectRef, ...]])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FollowUp:
        """From what ``asdict`` made of one."""
        inputs = {key: tuple(ObjectRef(**ref) for ref in refs) for key, refs in value["inputs"].items()}
        return cls(value["task_type"], value["params"], value["key"], value["task_id"], inputs)


@dataclass(frozen=True, slots=True)
class Completed:
    """The job did its work. ``output`` is what later steps may read (``jobs.output``); ``missing`` are asset rows that
    got no file; ``kept`` has what storage refused of them; ``usage`` counts what the job used, by unit."""

    files: tuple[StoredFile, ...] = ()
    provider_task_id: str | None = None
    missing: Mapping[UUID, Missing] = field(default_factory=dict[UUID, Missing])
    kept: KeptResult | None = None
    output: Mapping[str, Any] = field(default_factory=dict[str, Any])
    items: tuple[ItemEnd, ...] = ()
    usage: Mapping[str, Any] | None = None
    follow_ups: tuple[FollowUp, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    error: ErrorCode
    message: str
    kept: KeptResult | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed; the job waits ``delay`` seconds for another. ``start_over`` asks for a new paid call,
    because the provider's own work failed; otherwise the next run goes on with what was paid."""

    error: ErrorCode
    message: str
    delay: float
    start_over: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """Nothing failed: the provider is full or takes nothing, or an outcome is still open. The attempt is given back.

    ``waiting_for`` is what clients are told during the ``delay``, in seconds.
    """

    error: ErrorCode | None
    message: str | None
    delay: float
    waiting_for: WaitingFor = WaitingFor.RETRY


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The process stops; another continues where this one was."""


Outcome = Completed | Failed | Retry | Deferred | HandedBack


@dataclass(frozen=True, slots=True)
class Settlement:
    """A claimed job and how its run ended."""

    job: ClaimedJob
    outcome: Outcome
