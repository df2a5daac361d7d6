"""Connections that are dead without saying so: who meets one is answered all the same, over another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from app.storage.base import ContentTypeRefused, ObjectNotFound, ObjectTooLarge, StorageDenied, StorageError
from app.storage.supabase_storage import SupabaseStorage

from tests.unit.storage.desk import BUCKET, Buckets, Desk, storage_settings

INFO = {"size": 7, "content_type": "image/png", "etag": '"1"'}
REFUSALS = [
    ("404", "Bucket not found", ObjectNotFound),
    ("413", "Payload too large", ObjectTooLarge),
    ("415", "invalid_mime_type", ContentTypeRefused),
    ("403", "Unauthorized", StorageDenied),
]


@dataclass
class EarlyServer:
    """Answers as the real Storage does: an upload is refused before its body, which stays unread. The connection stays
    open and is never answered again, unless the request said that it would be closed."""

    refusal: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[str] = field(default_factory=list[str])
    connections: int = 0
    _open: set[int] = field(default_factory=set[int])
    _deaf: set[int] = field(default_factory=set[int])

    def go_deaf(self) -> None:
        self._deaf |= self._open

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        me = self.connections
        self._open.add(me)
        try:
            while await self._exchange(me, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, me: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        method, path, _ = head.split("\r\n")[0].split(" ")
        if me in self._deaf:
            await reader.read()
            return False
        self.requests.append(f"{method} {path.removeprefix('/storage/v1')}")
        closes = "connection: close" in head
        if method == "post" and path.startswith("/storage/v1/object/b/"):
            writer.write(_reply(400, self.refusal, closes=closes))
            await writer.drain()
            if closes:
                await reader.read()  # what is still on its way
                return False
            self._deaf.add(me)
            await asyncio.sleep(3600)
        writer.write(_reply(200, BUCKET if "/bucket/" in path else INFO, closes=closes))
        await writer.drain()
        return not closes


def _reply(status: int, body: object, *, closes: bool) -> bytes:
    content = json.dumps(body).encode()
    lines = (
        f"HTTP/1.1 {status} X",
        "content-type: application/json",
        f"content-length: {len(content)}",
        f"connection: {'close' if closes else 'keep-alive'}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
async def server() -> AsyncGenerator[tuple[EarlyServer, str]]:
    early = EarlyServer()
    async with await asyncio.start_server(early.serve, "127.0.0.1", 0) as listening:
        yield early, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.fixture
async def desk(server: tuple[EarlyServer, str], tmp_path: Path) -> AsyncGenerator[Desk]:
    settings = storage_settings(server[1], "sb_secret_0123456789").model_copy(update={"supabase_timeout_seconds": 3.0})
    storage = await SupabaseStorage.open(settings)
    yield Desk(storage, Buckets("b", "b", "b", "b"), tmp_path)
    await storage.aclose()


@pytest.mark.parametrize("size", [1_000, 400_000, 5_000_000])
@pytest.mark.parametrize(("status", "word", "expected"), REFUSALS)
async def test_an_early_refusal_costs_no_later_request_its_answer(
    server: tuple[EarlyServer, str], desk: Desk, status: str, word: str, expected: type[StorageError], size: int
) -> None:
    early = server[0]
    early.refusal = {"statusCode": status, "error": word, "message": "x", "code": "x"}
    await desk.storage.info("b", "a.png")
    with pytest.raises(expected):
        await desk.put("a.png", bytes(size))
    for _ in range(2):
        await desk.storage.info("b", "a.png")
    asked_whose_limit = expected is ObjectTooLarge
    # nobody asked twice
    assert len(early.requests) == 4 + asked_whose_limit
    assert early.requests.count("post /object/b/a.png") == 1
    # the reads share the first connection
    assert early.connections == 2


async def test_a_read_over_a_dead_connection_is_answered_over_another(
    server: tuple[EarlyServer, str], desk: Desk
) -> None:
    early = server[0]
    await desk.storage.info("b", "a.png")
    early.go_deaf()
    assert (await desk.storage.info("b", "a.png")).size == 7
    assert early.connections == 2


async def test_all_kept_connections_may_be_dead(server: tuple[EarlyServer, str], desk: Desk) -> None:
    early = server[0]
    await asyncio.gather(*(desk.storage.info("b", "a.png") for _ in range(5)))
    early.go_deaf()
    before = early.connections
    assert (await desk.storage.info("b", "a.png")).size == 7
    assert early.connections == before + 1
