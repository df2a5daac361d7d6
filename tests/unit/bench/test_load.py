"""The load generator: what it sends, what it counts, and that it tells of answers nobody expected."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator

import pytest
from bench.bench import BenchFailed
from bench.load import UNIQUE, ceiling, load, request


class Server:
    """Answers each request with the same bytes, in two pieces, and keeps what was sent."""

    def __init__(self, head: str, body: str) -> None:
        self.pieces = (head.encode(), body.encode())
        self.seen: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.seen.append(await reader.readuntil(b"\r\n\r\n"))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


@contextlib.contextmanager
def serving(head: str, body: str = "") -> Generator[Server]:
    server = Server(head, body)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(server.serve, "127.0.0.1", 0), loop).result()
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

    async def end() -> None:
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_request_is_as_it_goes_over_the_wire() -> None:
    assert request("http://h:1", "POST", "/p", token="t", body="é", If_None_Match='"x"') == (
        "POST /p HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n"
        'Content-Length: 2\r\nIf-None-Match: "x"\r\n\r\né'
    )


def test_answers_in_pieces_are_counted_once_each() -> None:
    with serving("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hello") as server:
        seen = load(server.url, [request(server.url, "GET", "/")], seconds=0.2, expected=200, connections=3)
        assert seen.statuses == {"200": len(server.seen)}
        assert seen.total == len(server.seen)
        assert 0 < seen.counted <= seen.total


def test_a_304_has_no_body_whatever_its_length_says() -> None:
    with serving("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n") as server:
        seen = load(server.url, [request(server.url, "GET", "/")], seconds=0.1, expected=304, connections=1)
        assert seen.total == len(server.seen)


def test_requests_take_turns_and_each_has_an_id_of_its_own() -> None:
    with serving("HTTP/1.1 204 No Content\r\n\r\n") as server:
        paths = [request(server.url, "GET", f"/{name}?{UNIQUE}") for name in ("a", "b")]
        load(server.url, paths, seconds=0.1, expected=204, connections=1)
        assert len(set(server.seen)) == len(server.seen) > 1
        assert [line[5:6] for line in server.seen[:4]] == [b"a", b"b", b"a", b"b"]
        assert UNIQUE.encode() not in b"".join(server.seen)


def test_another_status_than_expected_is_told_with_what_to_do() -> None:
    with serving("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n") as server:
        wanted = [request(server.url, "GET", "/tasks")]
        with pytest.raises(BenchFailed, match=r"GET /tasks HTTP/1\.1: expected 200, got \{'429': .*limit"):
            load(server.url, wanted, seconds=0.1, expected=200)


def test_the_generator_states_its_own_ceiling() -> None:
    seen = ceiling(0.2, connections=2)
    assert seen.counted > 0
    assert seen.cpu_seconds > 0
