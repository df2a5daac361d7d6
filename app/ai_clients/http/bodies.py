"""Bodies of replies: bounded, streamed to disk off the loop, in place only when whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

_WRITE_BYTES = 1024 * 1024


class BodyUnusable(Exception):
    """A body can not be kept; what was written of it is gone."""


class BodyTooLarge(BodyUnusable):
    pass


class BodyEmpty(BodyUnusable):
    pass


@dataclass(frozen=True, slots=True)
class SavedBody:
    size: int  # bytes
    sha256: str
    head: bytes  # the first bytes, for sniffing


class _Part:
    """A file that grows in batches, written and hashed off the loop."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.size = 0
        self.head = b""

    async def add(self, chunk: bytes, *, head_bytes: int) -> None:
        self.size += len(chunk)
        if len(self.head) < head_bytes:
            self.head = (self.head + chunk)[:head_bytes]
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= _WRITE_BYTES:
            await asyncio.to_thread(self._flush, self._take())

    async def finish(self, *, durable: bool) -> SavedBody:
        await asyncio.to_thread(self._flush, self._take(), last=True, durable=durable)
        return SavedBody(self.size, self._digest.hexdigest(), self.head)

    def _take(self) -> list[bytes]:
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        return batch

    def _flush(self, batch: list[bytes], *, last: bool = False, durable: bool = False) -> None:
        for chunk in batch:
            self._file.write(chunk)
            self._digest.update(chunk)
        if last:
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())


async def save_body(
    chunks: AsyncIterator[bytes], target: Path, *, max_bytes: int, head_bytes: int, durable: bool
) -> SavedBody:
    """Stream a body to ``<target>.part`` and rename it to ``target`` when it is whole; memory stays near 1 MiB.

    ``durable`` syncs file and directory before returning. Nothing is left behind when it fails. Raises
    BodyTooLarge, BodyEmpty, OSError, and what ``chunks`` raises.
    """
    path = target.with_name(f"{target.name}.part")
    try:
        with path.open("wb") as file:
            part = _Part(file)
            async for chunk in chunks:
                if part.size + len(chunk) > max_bytes:
                    raise BodyTooLarge
                await part.add(chunk, head_bytes=head_bytes)
            if part.size == 0:
                raise BodyEmpty
            saved = await part.finish(durable=durable)
        await asyncio.to_thread(_rename, path, target, durable=durable)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return saved


def _rename(part: Path, target: Path, *, durable: bool) -> None:
    part.replace(target)
    if durable:
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


async def read_body(response: httpx.Response, *, max_bytes: int) -> bytes:
    """The body of a streamed response. Raises BodyTooLarge, httpx.TransportError."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge
    return bytes(body)
