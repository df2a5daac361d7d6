"""Against real sockets: connections, total timeouts, cut bodies, and a file that is whole or not there."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from app.ai_clients.base import Capability, ImageRequest, ModelRequest
from app.ai_clients.errors import OutcomeUnknown, Refused
from app.ai_clients.http.bodies import BodyEmpty, BodyTooLarge, save_body
from app.ai_clients.http.client import free_client, paid_client
from app.ai_clients.openai.client import OpenAIImages
from app.ai_clients.tripo.client import TripoModels

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import b64, make_settings, picture_bytes

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A bare server; its address, and the head of every request on a list, one entry per connection."""
    connections: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                connections.append(head)
                length = next(
                    (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
                )
                await reader.readexactly(length)
                await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", connections
    finally:
        server.close()


def reply(body: bytes, status: str = "200 OK", declared: int | None = None) -> Handler:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = len(body) if declared is None else declared
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n".encode() + body)
        await writer.drain()
        if declared is not None:
            writer.close()

    return write


async def test_every_paid_post_has_a_connection_of_its_own(context: ssl.SSLContext, tmp_path: Path) -> None:
    body = json.dumps({"data": [{"b64_json": b64(picture_bytes())}]}).encode()
    async with served(reply(body)) as (address, heads):
        client = OpenAIImages(make_settings(openai_base_url=f"{address}/v1"), context)
        for number in range(3):
            await client.send(ImageRequest("x"), reply=tmp_path / str(number), before_first_byte=unwatched)
        await client.aclose()
        assert len(heads) == 3
        assert all(head.lower().count(b"connection: close") == 1 for head in heads)


async def test_free_requests_share_connections_and_paid_ones_do_not(context: ssl.SSLContext) -> None:
    ports: list[int] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()

    async with served(note) as (address, _):
        for client, distinct in (
            (free_client(context, timeout_seconds=5), 1),
            (paid_client(context, timeout_seconds=5, before_first_byte=unwatched), 3),
        ):
            ports.clear()
            for _ in range(3):
                await client.get(address)
            await client.aclose()
            assert len(set(ports)) == distinct


async def test_a_dripping_reply_ends_at_the_total_timeout(context: ssl.SSLContext, tmp_path: Path) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with served(drip) as (address, heads):
        openai = OpenAIImages(make_settings(openai_base_url=f"{address}/v1", openai_timeout_seconds=0.3), context)
        with pytest.raises(OutcomeUnknown):
            await openai.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
        await openai.aclose()
        tripo = TripoModels(make_settings(tripo_base_url=address, tripo_timeout_seconds=0.3), context)
        with pytest.raises(OutcomeUnknown):
            await tripo.send(
                await tripo.prepare(ModelRequest(Capability.TEXT_TO_MODEL, prompt="x")), before_first_byte=unwatched
            )
        await tripo.aclose()
        assert len(heads) == 2
        assert list(tmp_path.iterdir()) == []


async def test_a_body_shorter_than_declared_is_unknown(context: ssl.SSLContext, tmp_path: Path) -> None:
    async with served(reply(b'{"data":[]}', declared=500)) as (address, _):
        client = OpenAIImages(make_settings(openai_base_url=f"{address}/v1"), context)
        with pytest.raises(OutcomeUnknown):
            await client.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
        await client.aclose()
        assert list(tmp_path.iterdir()) == []


async def test_nobody_listening_is_a_refusal(context: ssl.SSLContext, tmp_path: Path) -> None:
    async with served(reply(b"")) as (address, _):
        pass
    client = OpenAIImages(make_settings(openai_base_url=f"{address}/v1"), context)
    with pytest.raises(Refused):
        await client.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    await client.aclose()


async def test_proxies_of_the_environment_are_not_used(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with served(reply(b"{}")) as (address, heads):
        client = free_client(context, timeout_seconds=5)
        assert (await client.get(address)).status_code == httpx.codes.OK
        await client.aclose()
        assert len(heads) == 1


async def _body(*chunks: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


async def test_a_body_is_saved_whole(tmp_path: Path) -> None:
    chunks = [bytes([number]) * 300_000 for number in range(10)]
    saved = await save_body(_body(*chunks), tmp_path / "x", max_bytes=3_000_000, head_bytes=4, durable=True)
    assert (saved.size, saved.head) == (3_000_000, bytes(4))
    assert (tmp_path / "x").read_bytes() == b"".join(chunks)


@pytest.mark.parametrize(
    ("chunks", "error", "expected"),
    [
        ((b"ab",), OSError("reset"), OSError),
        ((), None, BodyEmpty),
        ((b"abcdef",), None, BodyTooLarge),
        ((b"abcde", b"f"), None, BodyTooLarge),
    ],
)
async def test_a_body_that_is_not_whole_is_not_there(
    tmp_path: Path, chunks: tuple[bytes, ...], error: Exception | None, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        await save_body(_body(*chunks, error=error), tmp_path / "x", max_bytes=5, head_bytes=0, durable=False)
    assert list(tmp_path.iterdir()) == []
