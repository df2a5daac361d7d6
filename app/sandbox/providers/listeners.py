"""Ports where connecting itself goes wrong. A refused connection needs none: use a port where nothing listens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal, get_args

Manner = Literal["stall", "reset", "garbage"]
"""Accept and never answer; accept and reset; answer with bytes that are neither TLS nor HTTP."""

MANNERS: tuple[Manner, ...] = get_args(Manner)


class Listeners:
    """Extra listeners on loopback. They end with the sandbox."""

    def __init__(self) -> None:
        self._servers: dict[int, asyncio.Server] = {}
        self._stalled: set[asyncio.StreamWriter] = set()

    async def open(self, manner: Manner) -> int:
        """The port of a new listener."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            del reader
            if manner == "stall":
                self._stalled.add(writer)
                return
            if manner == "reset":
                found = writer.get_extra_info("socket")
                with contextlib.suppress(OSError), socket.fromfd(found.fileno(), found.family, found.type) as copy:
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            writer.write(b"\x00\xffthis is the sandbox, and no protocol\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        self._servers[port] = server
        return port

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for writer in self._stalled:
            writer.transport.abort()
        self._servers.clear()
        self._stalled.clear()
