"""A small HTTP/1.1 load generator on plain sockets, cheap enough to share two cores with what it measures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of requests took: seconds per request, and the whole."""

    latencies: list[float]
    seconds: float
    statuses: dict[int, int]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in milliseconds below which this share of the requests lies."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def run(url: str, requests: Iterator[bytes], *, connections: int) -> Load:
    """Send all requests over so many keep-alive connections, each as soon as its last was answered."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for request in requests:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            status = int(head[9:12])
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return Load(latencies, time.perf_counter() - began, statuses)


def request_maker(url: str, token: str) -> Callable[[str, str, bytes], bytes]:
    """Makes raw requests with the caller's authorisation."""
    host = urlsplit(url).netloc

    def make(method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    return make
