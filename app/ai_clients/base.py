"""The protocols that providers implement, and the values they exchange with the core.

A protocol is a way of delivery, whatever is made. A ``SynchronousProvider`` answers the paid POST with the result; a
``PolledProvider`` answers with an id that is polled. A provider is a folder with a ``ProviderSpec`` and one line in
``registry.py``; what it can make follows from its ``capabilities``.

``send`` sends exactly one POST and never retries. It awaits ``before_first_byte`` right before the first byte leaves
(``http.paid_client`` does that), and sends nothing when that raises ``SendRevoked``. It raises ``Refused`` when nothing
can have been paid and ``OutcomeUnknown`` when that is not known. Free methods may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from app.ai_clients.limits import Limits
from app.domain.operations import ModelOptions, View
from app.errors import ErrorCode


class Capability(StrEnum):
    """What a call can make."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    SKETCH_TO_IMAGE = "sketch-to-image"
    TEXT_TO_MODEL = "text-to-model"
    IMAGE_TO_MODEL = "image-to-model"
    MULTIVIEW_TO_MODEL = "multiview-to-model"
    IMPORT_MODEL = "import-model"
    TEXTURE_MODEL = "texture-model"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may cost, before it is made. USD micros; ``price_version`` names the price table."""

    micros: int
    price_version: str


# --- what is asked for ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileInput:
    """A local file on its way to a provider; ``content_type`` is what the bytes are, not what a client said."""

    path: Path
    content_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """``n`` pictures. With ``inputs`` it is an edit, without a generation."""

    prompt: str
    n: int = 1
    model: str | None = None  # None: the provider's configured model
    size: str | None = None  # "auto" or "WxH"
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    inputs: tuple[FileInput, ...] = ()
    mask: FileInput | None = None
    sketch: bool = False  # the input is a drawing that becomes a picture
    safety_identifier: str | None = None  # a hash that stands for the user

    @property
    def capability(self) -> Capability:
        if self.sketch:
            return Capability.SKETCH_TO_IMAGE
        return Capability.IMAGE_TO_IMAGE if self.inputs else Capability.TEXT_TO_IMAGE


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A model, or a step on the way to one. ``views`` maps a view to a local picture; ``source_task_id`` is a
    provider task of ours that is refined or chained; ``model_file`` is a mesh to import."""

    capability: Capability
    prompt: str | None = None
    views: Mapping[View, FileInput] = field(default_factory=dict[View, FileInput])
    source_task_id: str | None = None
    model_file: FileInput | None = None
    options: ModelOptions = field(default_factory=ModelOptions)


Request = ImageRequest | ModelRequest


# --- what comes back --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a synchronous provider. It lies whole on disk at ``path``, not yet decoded."""

    path: Path
    provider_request_id: str | None


@dataclass(frozen=True, slots=True)
class ResultFile:
    path: Path
    content_type: str  # sniffed from the bytes
    extension: str
    size: int  # bytes
    width: int | None = None  # of a picture
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The files of a reply in the provider's order. ``None`` marks one that could not be decoded."""

    files: tuple[ResultFile | None, ...]
    cost_micros: int
    price_version: str
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cost_is_estimate: bool = False  # the provider did not say what it took


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A paid POST ready to be sent. ``fingerprint`` holds what finds it again in the provider's own listing
    (seed, fresh upload token, type). JSON-serialisable, so that it can be journalled."""

    capability: Capability
    path: str
    body: Mapping[str, Any]
    fingerprint: Mapping[str, Any]


class ProviderTaskState(StrEnum):
    RUNNING = "running"  # queued, running, unknown or a new word: go on until our own deadline
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    MISSING = "missing"  # not listed this time: ask again


@dataclass(frozen=True, slots=True)
class ProviderTask:
    """A polled task. Its URLs are signed and short-lived; ``cost_micros`` is set when the task is over."""

    id: str
    state: ProviderTaskState
    progress: int | None = None  # 0–100 as the provider says; may go backwards
    output_urls: tuple[str, ...] = ()  # one for each file that was made, in the provider's order
    preview_url: str | None = None
    cost_micros: int | None = None
    credits: Decimal | None = None
    error: ErrorCode | None = None  # set when FAILED
    error_detail: str | None = None
    created_at: datetime | None = None
    echoed_input: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def output_url(self) -> str | None:
        """The first file's."""
        return self.output_urls[0] if self.output_urls else None


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    path: Path
    content_type: str  # sniffed
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Balance:
    """Money at the provider in its own unit."""

    available: Decimal
    frozen: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """An accepted call in a provider's own record. ``charged_micros`` is None while that is not decided or told."""

    reference: str  # the provider's task id or request id
    kind: str  # the provider's word
    accepted_at: datetime
    charged_micros: int | None


# --- providers --------------------------------------------------------------------------------------------------

BeforeFirstByte = Callable[[], Awaitable[None]]


class Provider(Protocol):
    """What every provider is, however it delivers."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Mapping[Capability, Limits]:
        """What it can make, and within which limits."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """How long a paid call may stay open; its journal deadline is later than this."""
        ...

    def pool(self, request: Request) -> str: ...

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:
        """``inputs`` is how many pictures will be sent, while ``request`` has none yet."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class SynchronousProvider(Provider, Protocol):
    """The reply is the result."""

    @property
    def paid_retry(self) -> bool:
        """Whether a call whose outcome nobody can learn may be paid once more."""
        ...

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        """Send the one paid POST; stream the reply's body to ``reply`` (renamed into place when whole).

        Raises Refused, OutcomeUnknown.
        """
        ...

    async def decode(self, reply: Path, request: Request, *, directory: Path) -> Result:
        """Decode a stored reply in a thread. Free, repeatable, also by another process after a crash.

        Raises OutcomeUnknown when the reply is not one (broken JSON, no data).
        """
        ...


@runtime_checkable
class PolledProvider(Provider, Protocol):
    """The reply is an id."""

    @property
    def poll_seconds(self) -> float:
        """The pace of polling, seconds between two polls of the same task."""
        ...

    async def prepare(self, request: Request) -> PreparedCall:
        """Upload inputs (free) and build the paid request with a fresh fingerprint. Raises Refused."""
        ...

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        """Send the one paid POST; the provider's task id. Raises Refused, OutcomeUnknown."""
        ...

    async def poll(self, task_ids: Sequence[str]) -> Mapping[str, ProviderTask]:
        """State of all ids in as few requests as the provider allows. Raises ProviderError when the listing fails
        as a whole; an id the provider does not list is MISSING."""
        ...

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        """Stream a result to ``target``, from the provider's hosts only and without our key.

        Raises Refused(advice=RETRY) when the link is dead (a new poll gives a fresh one), Refused with
        PROVIDER_RESULT_TOO_LARGE or PROVIDER_RESULT_INVALID.
        """
        ...

    async def find_submitted(
        self, fingerprint: Mapping[str, Any], *, since: datetime, known_ids: frozenset[str]
    ) -> Sequence[str]:
        """Ids in the provider's own listing that match the fingerprint and are not in ``known_ids``."""
        ...


@runtime_checkable
class RecordKeeper(Protocol):
    """A provider that tells what it was paid for."""

    async def recorded_calls(self, *, since: datetime) -> Sequence[RecordedCall]:
        """The provider's own record of the account's calls from a moment on, as far back as it is told. Raises
        Refused."""
        ...
