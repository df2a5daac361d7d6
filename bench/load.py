"""A small HTTP/1.1 load generator in a process of its own: keep-alive connections, each sends as soon as its last
request was answered. It reads what to do as JSON from standard input and prints what it saw as JSON.

It states its own limit: ``ceiling`` is measured against a socket that answers with ready bytes.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

from bench.bench import BenchFailed
from bench.figures import percentile

CONNECTIONS = 16
UNIQUE = "00000000-0000-4000-8000-000000000000"  # in a request: another id each time it is sent
_REPOSITORY = Path(__file__).resolve().parents[1]
_WARM_SECONDS = 0.2  # not counted
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Load:
    """What a run saw: counted requests, all of them (with the warm-up), latencies in ms."""

    counted: int
    total: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float
    cpu_seconds: float  # of the generator itself
    cpu_share: float  # of one core, likewise
    broken: int  # connections that the server closed

    @property
    def per_second(self) -> float:
        return self.counted / self.seconds


def request(url: str, method: str, path: str, *, token: str = "", body: str = "", **headers: str) -> str:
    """A raw request. Text in ISO 8859-1, as on the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body])


def load(
    url: str,
    requests: Sequence[str],
    *,
    seconds: float,
    expected: int,
    connections: int = CONNECTIONS,
) -> Load:
    """Run the generator against a server on this machine. Raises BenchFailed when an answer is not ``expected``."""
    job = {"url": url, "requests": list(requests), "seconds": seconds, "connections": connections}
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        cwd=_REPOSITORY,
        timeout=60 + 4 * seconds,
    )
    if done.returncode != 0:
        raise BenchFailed(f"The load generator ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    result = Load(**json.loads(done.stdout))
    if set(result.statuses) != {str(expected)} or result.broken:
        first = requests[0].split("\r\n", 1)[0]
        raise BenchFailed(
            f"{first}: expected {expected}, got {result.statuses or 'no answer'}, {result.broken} connections closed."
            " Look at the server's log; a limit of the gateway may have to be raised for the load."
        )
    return result


def ceiling(seconds: float, connections: int = CONNECTIONS) -> Load:
    """How many requests per second the generator can send at all: the other side answers with ready bytes."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load", "answer"], stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY
    ) as server:
        assert server.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            return load(url, [request(url, "GET", "/")], seconds=seconds, expected=200, connections=connections)
        finally:
            server.terminate()


class _Run:
    """Counters of one run, and the requests to send."""

    def __init__(self, requests: Iterator[bytes], seconds: float, connections: int) -> None:
        self.requests = requests
        self.count_from = time.perf_counter() + _WARM_SECONDS
        self.until = self.count_from + seconds
        self.open = connections
        self.total = 0
        self.broken = 0
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.over = asyncio.get_running_loop().create_future()

    def answered(self, status: str, began: float, now: float) -> None:
        self.total += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if self.count_from <= began and now <= self.until:
            self.latencies.append(now - began)

    def closed(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.over.done():
            self.over.set_result(None)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._answer = b""
        self._began = 0.0
        self._ended = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        self._send(time.perf_counter())

    def data_received(self, data: bytes) -> None:
        answer = self._answer + data if self._answer else data
        end = answer.find(b"\r\n\r\n")
        if end < 0 or len(answer) < end + 4 + self._length(answer, end):
            self._answer = answer
            return
        self._answer = b""
        now = time.perf_counter()
        self._run.answered(answer[9:12].decode(), self._began, now)
        self._send(now)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._ended:
            self._run.broken += 1
        self._run.closed()

    def _send(self, now: float) -> None:
        assert self._transport is not None
        if now >= self._run.until:
            self._ended = True
            self._transport.close()
            return
        self._began = now
        self._transport.write(next(self._run.requests))

    @staticmethod
    def _length(answer: bytes, end: int) -> int:
        if int(answer[9:12]) in _NO_BODY:
            return 0
        found = _LENGTH.search(answer, 0, end)
        return 0 if found is None else int(found[1])


def _requests(texts: Sequence[str]) -> Iterator[bytes]:
    ready = [text.encode("latin-1") for text in texts]
    unique, prefix, numbers = UNIQUE.encode(), str(uuid4())[:24].encode(), count()
    for item in cycle(ready):
        yield item.replace(unique, b"%s%012x" % (prefix, next(numbers))) if unique in item else item


async def _run(job: dict[str, Any]) -> Load:
    address = urlsplit(job["url"])
    began, cpu = time.perf_counter(), time.process_time()
    run = _Run(_requests(job["requests"]), job["seconds"], job["connections"])
    loop = asyncio.get_running_loop()
    for _ in range(job["connections"]):
        await loop.create_connection(lambda: _Connection(run), address.hostname, address.port)
    await asyncio.wait_for(run.over, 30 + 2 * job["seconds"])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    latencies = run.latencies or [0.0]
    return Load(
        counted=len(run.latencies),
        total=run.total,
        seconds=job["seconds"],
        statuses=run.statuses,
        p50=1000 * percentile(latencies, 0.5),
        p99=1000 * percentile(latencies, 0.99),
        cpu_seconds=cpu,
        cpu_share=cpu / wall,
        broken=run.broken,
    )


class _Answer(asyncio.Protocol):
    _BYTES = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(self._BYTES)


async def _answer() -> None:
    server = await asyncio.get_running_loop().create_server(_Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    if sys.argv[1:] == ["answer"]:
        uvloop.run(_answer())
    else:
        print(json.dumps(asdict(uvloop.run(_run(json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
