"""Fakes that hold still at one moment of a job's life, so that a test can do something exactly then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.ai_clients.base import (
    BeforeFirstByte,
    DownloadedFile,
    PreparedCall,
    Reply,
    Request,
)
from app.ai_clients.errors import OutcomeUnknown
from app.errors import ErrorCode
from app.storage.base import StorageUnavailable
from app.storage.memory import MemoryStorage

from tests.fake_providers import FakeImages, FakeModels

PATIENCE = 20.0


class Gate:
    """Open unless told to hold; ``reached`` says that somebody waits at it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def passing(self) -> None:
        if not self._open.is_set():
            self.reached.set()
            await self._open.wait()

    async def until_reached(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()


class GatedImages(FakeImages):
    """``post`` lies between the provider's acceptance and its reply."""

    def __init__(self) -> None:
        super().__init__()
        self.post = Gate()

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        receipt = await super().send(request, reply=reply.with_suffix(".part"), before_first_byte=before_first_byte)
        await self.post.passing()
        receipt.path.rename(reply)
        return Reply(reply, receipt.provider_request_id)


@dataclass(slots=True)
class GatedModels(FakeModels):
    """``preparing`` lies before the paid call, ``post`` between acceptance and reply, ``downloading`` before the
    result's bytes."""

    preparing: Gate = field(default_factory=Gate)
    post: Gate = field(default_factory=Gate)
    downloading: Gate = field(default_factory=Gate)
    loses_replies: bool = False
    corrupt: bool = False  # results are not what they should be

    async def prepare(self, request: Request) -> PreparedCall:
        await self.preparing.passing()
        return await FakeModels.prepare(self, request)

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        task_id = await FakeModels.send(self, call, before_first_byte=before_first_byte)
        await self.post.passing()
        if self.loses_replies:
            raise OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, "The connection broke.")
        return task_id

    def finish_all(self) -> None:
        """Whatever runs is done at the next poll."""
        self.tasks.update({task_id: replace(task, polls_left=0) for task_id, task in self.tasks.items()})

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        await self.downloading.passing()
        file = await FakeModels.download(self, url, target, max_bytes=max_bytes)
        return replace(file, content_type="image/png") if self.corrupt else file


class GatedStorage(MemoryStorage):
    """``before`` lies before an object is stored, ``after`` between that and the reply; ``late`` stores an object
    although the client hung up. Each upload whose key ends with ``only`` passes them."""

    def __init__(self, *args: Any, **rest: Any) -> None:  # noqa: ANN401 - the fake's own
        super().__init__(*args, **rest)
        self.before = Gate()
        self.after = Gate()
        self.only = ""
        self.stores_late = False
        self.down = False
        self.refuses = False

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        if self.refuses:
            raise StorageUnavailable("503")
        gated = key.endswith(self.only)
        if gated:
            try:
                await self.before.passing()
            except asyncio.CancelledError:
                if self.stores_late:
                    copy = self.directory / "late"
                    copy.write_bytes(source.read_bytes())
                    self.late = asyncio.create_task(self._store_late(bucket, key, copy, content_type))
                raise
        await super().upload(bucket, key, source, content_type=content_type)
        if gated:
            await self.after.passing()

    async def _store_late(self, bucket: str, key: str, copy: Path, content_type: str) -> None:
        await asyncio.sleep(0.2)
        await super().upload(bucket, key, copy, content_type=content_type)

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        if self.down:
            raise StorageUnavailable("503")
        return await super().remove(bucket, keys)
