"""Connections for links that somebody else chose.

The name is resolved here, every address is looked at, and the connection goes to an address that was looked at: a name
that resolves to something else a moment later gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import httpcore

from app.domain.addresses import is_public, parse_address

_SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class PublicAddresses(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, ``loopback_too`` to those of this machine."""

    def __init__(self, *, loopback_too: bool) -> None:
        self._loopback_too = loopback_too
        self._network: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue] - it sees the stub for a missing anyio

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError, also for a name without a permitted address, and httpcore.ConnectTimeout."""
        failure = httpcore.ConnectError("no public address")
        for address in await _resolve(host, timeout):
            if not self._is_permitted(address):
                continue
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    def _is_permitted(self, address: IPv4Address | IPv6Address) -> bool:
        return is_public(address) or (self._loopback_too and address.is_loopback)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


async def _resolve(host: str, timeout: float | None) -> list[IPv4Address | IPv6Address]:
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise httpcore.ConnectTimeout("the name was not resolved in time") from None
    except (OSError, UnicodeError):
        raise httpcore.ConnectError("the name can not be resolved") from None
    addresses = (parse_address(str(where[0])) for *_, where in found)
    return [address for address in dict.fromkeys(addresses) if address is not None]
