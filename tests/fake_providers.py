"""Fakes of both provider protocols, in memory, under the same contract suite as the real clients.

They count what was paid and can be told how the next POST ends. Their pictures and models say ``sandbox``.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pybase64
from app.ai_clients.base import (
    Balance,
    BeforeFirstByte,
    Capability,
    DownloadedFile,
    Estimate,
    ImageRequest,
    PreparedCall,
    ProviderTask,
    ProviderTaskState,
    RecordedCall,
    Reply,
    Request,
    Result,
)
from app.ai_clients.errors import Advice, OutcomeUnknown, Refused, SendRevoked
from app.ai_clients.limits import Limits
from app.ai_clients.openai import limits as openai_limits
from app.ai_clients.openai.reply import NotAReply, read_reply
from app.ai_clients.tripo import limits as tripo_limits
from app.ai_clients.tripo.tasks import matches, missing
from app.domain.sniff import GLB, PNG
from app.errors import ErrorCode
from PIL import Image, ImageDraw

_PRICE_VERSION = "fake"
_IMAGE_MICROS = 40_000
_MODEL_MICROS = 200_000
_SIDE = 256
_MAX_BYTES = 8 * 1024 * 1024
_LINKS = "https://sandbox.invalid/"


async def unwatched() -> None:
    """For a send that nobody wants to revoke."""


class Ledger:
    """What was sent to a fake, what of it was paid, and how the next POSTs end."""

    def __init__(self) -> None:
        self.posts = 0
        self.paid: list[object] = []
        self._next: deque[Callable[[object], None]] = deque()

    @property
    def paid_calls(self) -> int:
        return len(self.paid)

    def refuse_next(self, error: Refused) -> None:
        """The next POST is refused like this; nothing is paid."""
        self._next.append(lambda _: _raise(error))

    def lose_next_request(self) -> None:
        """The next POST is lost on its way: not paid, and nobody knows."""
        self._next.append(lambda _: _raise(_unknown()))

    def lose_next_reply(self) -> None:
        """The next POST is accepted and paid, and its reply is lost."""
        self._next.append(self._pay_silently)

    def _pay_silently(self, call: object) -> None:
        self.paid.append(call)
        raise _unknown()

    def post(self, call: object) -> None:
        """Book one POST. Raises what was scripted for it."""
        self.posts += 1
        if self._next:
            self._next.popleft()(call)
        else:
            self.paid.append(call)


def _raise(error: Exception) -> None:
    raise error


async def _leave(before_first_byte: BeforeFirstByte) -> None:
    try:
        await before_first_byte()
    except SendRevoked as error:
        raise Refused(ErrorCode.PROVIDER_UNAVAILABLE, "The request did not leave.", advice=Advice.RETRY) from error


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, "The connection broke after the request was sent.")


class FakeImages:
    """A SynchronousProvider whose pictures are plain and differ by prompt and number."""

    capabilities = openai_limits.CAPABILITIES

    def __init__(self, name: str = "openai", *, timeout_seconds: float = 5.0, paid_retry: bool = False) -> None:
        self.name = name
        self.paid_retry = paid_retry
        self.ledger = Ledger()
        self._timeout_seconds = timeout_seconds

    @property
    def timeout_seconds(self) -> float:
        return self._timeout_seconds

    def pool(self, request: Request) -> str:  # noqa: ARG002 - the protocol's signature
        return self.name

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:  # noqa: ARG002
        return Estimate(_pictures(request).n * _IMAGE_MICROS, _PRICE_VERSION)

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        request = _pictures(request)
        await _leave(before_first_byte)
        self.ledger.post(request)
        pictures = [{"b64_json": pybase64.b64encode(_picture(request.prompt, k)).decode()} for k in range(request.n)]
        await asyncio.to_thread(reply.write_bytes, orjson.dumps({"data": pictures}))
        return Reply(reply, f"req_fake_{self.ledger.posts}")

    async def decode(self, reply: Path, request: Request, *, directory: Path) -> Result:
        request = _pictures(request)
        try:
            read = await asyncio.to_thread(
                read_reply,
                reply,
                directory=directory,
                max_images=request.n,
                max_image_bytes=_MAX_BYTES,
                max_pixels=_SIDE * _SIDE,
            )
        except NotAReply:
            raise _unknown() from None
        return Result(read.images, self.estimate(request).micros, _PRICE_VERSION)

    async def aclose(self) -> None:
        return None


def _pictures(request: Request) -> ImageRequest:
    assert isinstance(request, ImageRequest)
    return request


@dataclass(frozen=True, slots=True)
class _FakeTask:
    capability: Capability
    echoed: Mapping[str, Any]
    polls_left: int
    created_at: datetime
    error: ErrorCode | None = None


@dataclass(slots=True)
class FakeModels:
    """A PolledProvider of models, and of pictures where its capabilities say so. Its tasks take ``polls`` polls
    each and then succeed, unless told otherwise."""

    name: str = "tripo"
    polls: int = 1
    poll_seconds: float = 0.01
    timeout_seconds: float = 5.0
    ledger: Ledger = field(default_factory=Ledger)
    tasks: dict[str, _FakeTask] = field(default_factory=dict[str, _FakeTask])
    fail_next_task: ErrorCode | None = None
    links_expired: bool = False
    capabilities: Mapping[Capability, Limits] = field(default_factory=lambda: tripo_limits.CAPABILITIES)

    def pool(self, request: Request) -> str:
        match request.capability:
            case Capability.SKETCH_TO_IMAGE | Capability.TEXT_TO_IMAGE | Capability.IMAGE_TO_IMAGE:
                return f"{self.name}_image"
            case Capability.TEXTURE_MODEL | Capability.IMPORT_MODEL:
                return f"{self.name}_texture"
            case _:
                return f"{self.name}_h"

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:  # noqa: ARG002
        return Estimate(0 if request.capability is Capability.IMPORT_MODEL else _MODEL_MICROS, _PRICE_VERSION)

    async def prepare(self, request: Request) -> PreparedCall:
        body: dict[str, Any] = {"prompt": request.prompt}
        if isinstance(request, ImageRequest):
            body |= {"n": request.n}
        else:
            body |= {"input": request.source_task_id, "views": list(request.views)}
        seed = random.randint(-(2**31), 2**31 - 1)
        body |= {"model_seed": seed}
        kind = request.capability
        return PreparedCall(kind, f"/{kind.value}", body, {"kind": kind.value, "model_seed": seed})

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        # a lost reply must leave a task behind, so the task is booked where the payment is
        before = self.ledger.paid_calls
        task_id = str(uuid4())
        await _leave(before_first_byte)
        try:
            self.ledger.post(call)
        finally:
            if self.ledger.paid_calls > before:
                self.tasks[task_id] = _FakeTask(
                    call.capability, call.body, self.polls, datetime.now(UTC), self.fail_next_task
                )
                self.fail_next_task = None
        return task_id

    async def poll(self, task_ids: Sequence[str]) -> Mapping[str, ProviderTask]:
        return {task_id: self._poll(task_id) for task_id in task_ids}

    def _poll(self, task_id: str) -> ProviderTask:
        task = self.tasks.get(task_id)
        if task is None:
            return missing(task_id)
        if task.polls_left > 0:
            self.tasks[task_id] = replace(task, polls_left=task.polls_left - 1)
            return ProviderTask(
                task_id,
                ProviderTaskState.RUNNING,
                progress=100 // (task.polls_left + 1),
                created_at=task.created_at,
                echoed_input=task.echoed,
            )
        self.links_expired = False
        if task.error is not None:
            return ProviderTask(
                task_id,
                ProviderTaskState.FAILED,
                progress=100,
                cost_micros=0,
                credits=Decimal(0),
                error=task.error,
                error_detail=task.error.title,
                created_at=task.created_at,
                echoed_input=task.echoed,
            )
        extension = "png" if task.capability.value.endswith("-image") else "glb"
        numbers = range(task.echoed.get("n", 1))
        cost = 0 if task.capability is Capability.IMPORT_MODEL else _MODEL_MICROS
        return ProviderTask(
            task_id,
            ProviderTaskState.SUCCEEDED,
            progress=100,
            output_urls=tuple(f"{_LINKS}{task_id}-{number}.{extension}" for number in numbers),
            preview_url=f"{_LINKS}{task_id}.preview.png",
            cost_micros=cost,
            credits=Decimal(cost) / 10_000,
            created_at=task.created_at,
            echoed_input=task.echoed,
        )

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        if not url.startswith(_LINKS):
            raise Refused(ErrorCode.PROVIDER_RESULT_INVALID, "The result's link leads outside the provider's hosts.")
        if self.links_expired:
            raise Refused(ErrorCode.PROVIDER_UNAVAILABLE, "The result's link is no longer valid.", advice=Advice.RETRY)
        name = url.removeprefix(_LINKS)
        content, content_type = (_model(name), GLB) if name.endswith(".glb") else (_picture(name, 0), PNG)
        if len(content) > max_bytes:
            raise Refused(ErrorCode.PROVIDER_RESULT_TOO_LARGE, "The result is larger than results may be.")
        await asyncio.to_thread(target.write_bytes, content)
        return DownloadedFile(target, content_type, len(content), hashlib.sha256(content).hexdigest())

    async def find_submitted(
        self, fingerprint: Mapping[str, Any], *, since: datetime, known_ids: frozenset[str]
    ) -> Sequence[str]:
        return [
            task_id
            for task_id, task in self.tasks.items()
            if task_id not in known_ids and task.created_at >= since and matches(fingerprint, task.echoed)
        ]

    async def recorded_calls(self, *, since: datetime) -> Sequence[RecordedCall]:
        return [
            RecordedCall(task_id, task.capability.value, task.created_at, _charge(task))
            for task_id, task in self.tasks.items()
            if task.created_at >= since
        ]

    async def balance(self) -> Balance:
        return Balance(Decimal(1000 - 20 * self.ledger.paid_calls), Decimal(0), "credits")

    async def aclose(self) -> None:
        return None


def _charge(task: _FakeTask) -> int:
    return 0 if task.error is not None or task.capability is Capability.IMPORT_MODEL else _MODEL_MICROS


def _picture(words: str, number: int) -> bytes:
    red, green, blue = hashlib.sha256(f"{words}#{number}".encode()).digest()[:3]
    picture = Image.new("RGB", (_SIDE, _SIDE), (red, green, blue))
    ImageDraw.Draw(picture).text((8, _SIDE - 20), "sandbox", fill=(255 - red, 255 - green, 255 - blue))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _model(name: str) -> bytes:
    """A tetrahedron of the smallest valid kind."""
    points = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    faces = (0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3)
    positions = b"".join(struct.pack("<3f", *point) for point in points)
    binary = positions + struct.pack("<12H", *faces)
    document = {
        "asset": {"version": "2.0", "generator": f"MakeIt3D sandbox {name}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 1]},
            {"bufferView": 1, "componentType": 5123, "count": 12, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 48, "target": 34962},
            {"buffer": 0, "byteOffset": 48, "byteLength": 24, "target": 34963},
        ],
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        )
    )
