"""What the HTTP server itself leaves open: how much the head of a request may hold, how long it may take, and how many
connections one address may have."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter

import orjson
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app import problems
from app.errors import ErrorCode

HEAD_BYTES = 64 * 1024  # request line and headers; trailers of a chunked body count, too
# each piece of a body costs as much as some hundred bytes: clients send kilobytes in each
MOST_SMALL_PIECES = 10_000
_SPARE_BYTES_PER_PIECE = 64
_HEAD_SECONDS = 30.0


class ConnectionsByAddress:
    """Of this process: at most ``most`` for each address, any number with 0. The 64 bits of an IPv6 network are one
    address, as one client has all that are in it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more may be open; then ``leave`` must follow."""
        network = _network(address)
        if self._most and self._open[network] >= self._most:
            return False
        self._open[network] += 1
        return True

    def leave(self, address: str) -> None:
        network = _network(address)
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


def http_protocol(connections_per_address: int) -> type[BoundedHead]:
    """The protocol of one server, whose connections are counted together."""

    class Counted(BoundedHead):
        connections_by_address = ConnectionsByAddress(connections_per_address)

    return Counted


def _too_many() -> bytes:
    """What a connection is answered that is one too many."""
    problem = problems.describe(ErrorCode.TOO_MANY_CONNECTIONS)
    body = orjson.dumps(problem)
    head = (
        f"HTTP/1.1 {problem['status']} Too Many Requests\r\nContent-Type: {problems.MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 5\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def answer_at_once(send: Send, status: int, lines: bytes, body: bytes) -> bool:
    """Write a whole answer in one piece, past the server's look at each header: ``lines`` are known to be good.

    False where ``send`` is not the server's own, or where it has more to do: then nothing was written.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started or cycle.disconnected:
        return False
    if not cycle.keep_alive or cycle.flow.write_paused:
        return False
    cycle.response_started = cycle.response_complete = True
    own = b"".join(b"%b: %b\r\n" % header for header in cycle.default_headers)
    cycle.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], own, lines, body))
    cycle.message_event.set()
    cycle.on_response()
    return True


class BoundedHead(HttpToolsProtocol):
    """Whoever sends an endless head, or none, or a body in pieces of a few bytes, loses the connection before it costs
    memory or time."""

    _head_bytes = 0
    _in_head = True
    _untimed = False  # a head has begun, and its time has not
    _in_message = False
    _body_bytes = 0
    _body_pieces = 0
    _timer: asyncio.TimerHandle | None = None
    _counted_address: str | None = None
    connections_by_address = ConnectionsByAddress(0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.ws_protocol_class = None  # we serve none, and an upgrade would take the connection out of every count
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # a Unix socket has none
            address = str(peer[0])  # pyright: ignore[reportUnknownArgumentType]
            if not self.connections_by_address.enter(address):
                problems.PROBLEMS.labels(ErrorCode.TOO_MANY_CONNECTIONS.code).inc()
                transport.write(_too_many())
                transport.close()
                return
            self._counted_address = address
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._counted_address is not None:
            self.connections_by_address.leave(self._counted_address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too long.")
            elif self._untimed:  # most heads are there at once, and never wait
                self._start_timer()
        elif not self._in_message and not self._in_head and self.cycle.response_complete:
            self._begin_head()  # line ends before a request ended the server's own patience, and begin none

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._body_bytes = self._body_pieces = 0
        self._head_bytes, self._in_head, self._untimed = 0, True, True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._body_pieces += 1
        if self._body_pieces > MOST_SMALL_PIECES + self._body_bytes // _SPARE_BYTES_PER_PIECE:
            raise ValueError("the body is in too many pieces")  # the parser makes a refusal of it
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_message = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("the head is too long")  # the parser makes a refusal of it
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._head_bytes, self._in_head = 0, True
        self._start_timer()

    def _start_timer(self) -> None:
        self._untimed = False
        self._stop_timer()
        self._timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
