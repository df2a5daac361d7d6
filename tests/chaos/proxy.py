"""A TCP proxy that breaks connections in the ways networks and servers do, for any dependency."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Target = Path | tuple[str, int]  # a Unix socket, or host and port


@dataclass
class Proxy:
    """Listens on a port of loopback that stays its own. Every method returns when the change is in force."""

    target: Target
    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _links: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _requests: asyncio.Event = field(default_factory=asyncio.Event)  # set: bytes pass towards the server
    _replies: asyncio.Event = field(default_factory=asyncio.Event)  # set: bytes pass towards the client
    accepted: int = 0
    replied: int = 0  # bytes that passed towards clients

    @classmethod
    @contextlib.contextmanager
    def to(cls, target: Target) -> Generator[Proxy]:
        proxy = cls(target)
        thread = threading.Thread(target=proxy._loop.run_forever, daemon=True)
        thread.start()
        try:
            proxy.heal()
            yield proxy
        finally:
            proxy.refuse()
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            thread.join()
            proxy._loop.close()

    def heal(self) -> None:
        """Everything passes; what was held goes on."""
        self._do(self._heal())

    def stall(self) -> None:
        """Half-open: connections are accepted and stay, and nothing passes in either direction."""
        self._do(self._gates(requests=False, replies=False))

    def mute(self) -> None:
        """Requests arrive and are worked on; no reply comes back."""
        self._do(self._gates(requests=True, replies=False))

    def cut(self) -> None:
        """Reset the connections there are. New ones are as before."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Nobody listens: what is open is reset, new connections are refused."""
        self._do(self._refuse())

    @property
    def open_links(self) -> int:
        return len(self._links)

    # --- on the proxy's own loop ----------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(timeout=30)

    async def _heal(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        await self._gates(requests=True, replies=True)

    async def _gates(self, *, requests: bool, replies: bool) -> None:
        for gate, is_open in ((self._requests, requests), (self._replies, replies)):
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = asyncio.ensure_future(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with _closing(to_client):
                await self._requests.wait()
                server, to_server = await self._connect()
                async with _closing(to_server):
                    await _first_end(
                        _pump(client, to_server, self._requests),
                        _pump(server, to_client, self._replies, self._count),
                    )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await asyncio.open_connection(*self.target)

    def _count(self, size: int) -> None:
        self.replied += size


async def _first_end(*pumps: Coroutine[Any, Any, None]) -> None:
    """Until one side closes or breaks: then so does the other."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    gate: asyncio.Event,
    count: Callable[[int], None] = lambda _: None,
) -> None:
    while block := await source.read(_BLOCK):
        await gate.wait()
        sink.write(block)
        await sink.drain()
        count(len(block))
    await gate.wait()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncGenerator[None]:
    """Closed in order when the other side closed, reset when the link was cut."""
    try:
        yield
    except asyncio.CancelledError:
        connection = writer.get_extra_info("socket")
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
        raise
    finally:
        writer.close()
