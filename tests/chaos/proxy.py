"""A TCP proxy that breaks connections in the ways networks and servers do, for any dependency."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
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
    _numbers: count[int] = field(default_factory=count)
    _to_lose: _LostReply | None = None
    _hides_ends: bool = False
    _last_replies: bytes = b""
    lost_replies: int = 0

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

    def lose_reply(self, *markers: bytes) -> None:
        """Once: the request that holds the last marker, on a connection on which the others came before it, is worked
        on, and instead of its reply the connection is reset."""
        self._do(self._arm(markers))

    def has_passed(self, marker: bytes) -> bool:
        """Whether it was among the last replies that passed towards a client."""
        return marker in self._last_replies

    def hide_ends(self) -> None:
        """What the server closes stays open towards the client, as when the end is late."""
        self._hides_ends = True

    def cut(self) -> None:
        """Reset the connections there are. New ones are as before."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Nobody listens: what is open is reset, new connections are refused."""
        self._do(self._refuse())

    # --- on the proxy's own loop ----------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(timeout=30)

    async def _heal(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        self._hides_ends = False
        await self._gates(requests=True, replies=True)

    async def _gates(self, *, requests: bool, replies: bool) -> None:
        for gate, is_open in ((self._requests, requests), (self._replies, replies)):
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def _arm(self, markers: tuple[bytes, ...]) -> None:
        self._to_lose = _LostReply(markers)

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
        link = asyncio.ensure_future(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async with _closing(to_client):
                await self._requests.wait()
                server, to_server = await self._connect()
                async with _closing(to_server):
                    link = next(self._numbers)
                    await _first_end(
                        _pump(client, to_server, self._requests, lambda block: self._saw_request(link, block)),
                        _pump(server, to_client, self._replies, lambda block: self._saw_reply(link, block)),
                    )
                    if self._hides_ends:
                        await asyncio.Event().wait()  # until the links are cut

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await asyncio.open_connection(*self.target)

    def _saw_request(self, link: int, block: bytes) -> None:
        if self._to_lose is not None:
            self._to_lose.saw_request(link, block)

    def _saw_reply(self, link: int, block: bytes) -> None:
        self._last_replies = (self._last_replies + block)[-_BLOCK:]
        if self._to_lose is not None and self._to_lose.is_due(link):
            self._to_lose = None
            self.lost_replies += 1
            raise ConnectionResetError


class _LostReply:
    """Follows every link until one showed all markers in turn."""

    def __init__(self, markers: tuple[bytes, ...]) -> None:
        self._markers = markers
        self._found: defaultdict[int, int] = defaultdict(int)

    def saw_request(self, link: int, block: bytes) -> None:
        while not self.is_due(link) and self._markers[self._found[link]] in block:
            self._found[link] += 1

    def is_due(self, link: int) -> bool:
        return self._found[link] == len(self._markers)


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
    seen: Callable[[bytes], None],
) -> None:
    while block := await source.read(_BLOCK):
        await gate.wait()
        seen(block)
        sink.write(block)
        await sink.drain()
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
