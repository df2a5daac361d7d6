"""Requests made to hurt: each is refused, nothing is kept of it, and the next request is served."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from app.config import Settings
from app.server import HEAD_BYTES

from tests.integration.factories import settings_for
from tests.integration.http_gateway import Gateway, gateway

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return settings_for(
        database, tmp_path, max_input_bytes=200_000, max_model_bytes=300_000, max_input_pixels=4_000_000
    )


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened
        # whatever was sent, the next one is served, and nothing lies around
        assert (await opened.get("/tasks")).status_code == 200
        assert list(settings.spool_directory.iterdir()) == []
        for table in ("makeit3d.requests", "makeit3d.files", "input_assets"):
            assert await opened.db.fetchval(f"select count(*) from {table} where true") == 0  # noqa: S608


def told(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 20_000  # what was sent is not sent back
    return answer.status_code, answer.json()["code"]


BODIES = {
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "deep lists": (b"[" * 500_000, 400),
    "a number of 100,000 digits": (b'{"n":' + b"9" * 100_000 + b"}", 400),
    "a number beyond numbers": (b'{"n":1e999,"task_id":"task-1234","prompt":"x"}', 422),
    "no number": (b'{"n":NaN,"task_id":"task-1234","prompt":"x"}', 422),
    "not UTF-8": (b'{"prompt":"\xff"}', 400),
    "half a character as key": (b'{"\\ud800":1,"task_id":"task-1234","prompt":"x"}', 422),
    "half a character as value": (b'{"provider":"\\ud800","task_id":"task-1234","prompt":"x"}', 422),
    "zero as key": (b'{"\\u0000":1}', 422),
    "60,000 fields": (b"{" + b",".join(b'"k%d":1' % number for number in range(60_000)) + b"}", 422),
    "a field's name of 900,000 bytes": (b'{"' + b"k" * 900_000 + b'":1}', 422),
    "a text": (b'"x"', 422),
    "nothing": (b"", 422),
    "packed": (zlib.compress(bytes(100_000)), 400),
}


async def test_bodies(gate: Gateway) -> None:
    for name, (content, status) in BODIES.items():
        answer = await gate.post("/generate/text-to-image", content=content, headers=JSON)
        assert told(answer)[0] == status, (name, answer.text[:300])


def part(name: bytes, content: bytes = b"x", headers: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n' + headers + b"\r\n" + content + b"\r\n"


END = b"--b--\r\n"
FORMS = {
    "5,000 parts of one name": part(b"task_id") * 5_000 + END,
    "5,000 names": b"".join(part(b"f%d" % number) for number in range(5_000)) + END,
    "9,000 headers": part(b"file", b"x", b"".join(b"X-%d: y\r\n" % number for number in range(9_000))) + END,
    "one header 50,000 times": part(b"file", b"x", b"X: y\r\n" * 50_000) + END,
    "a header without end": b"--b\r\n" + b"X" * 300_000,
    "a long name": part(b"n" * 200_000) + END,
    "a form in a form": part(b"file", b"--c\r\n\r\nx--c--", b"Content-Type: multipart/mixed; boundary=c\r\n") + END,
    "a name in pieces": b"--b\r\nContent-Disposition: form-data; name*0=fi; name*1=le\r\n\r\nx\r\n" + END,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
    "a name that is no text": part(b"\xff\xfe\x1b[2J") + END,
    "two files": part(b"file") + part(b"file") + END,
    "much behind its end": part(b"file", b"\x89PNG\r\n\x1a\n") + END + b"z" * 200_000,
    "much before its beginning": b"\r\n" * 100_000 + part(b"file", b"\x89PNG\r\n\x1a\n") + END,
    "no end": part(b"file", b"\x89PNG\r\n\x1a\n"),
}


async def test_forms(gate: Gateway) -> None:
    for name, content in FORMS.items():
        answer = await gate.post("/uploads", content=content, headers=FORM)
        assert told(answer)[0] in (400, 422), (name, answer.text)


async def test_boundaries(gate: Gateway) -> None:
    for boundary in ("b" * 5_000, "", '"', "b\\", '"b; x=\\"', "; boundary=c"):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = await gate.post("/uploads", content=part(b"file") + END, headers=headers)
        assert told(answer) in {(400, "malformed_request"), (422, "validation_error")}, boundary


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)


_ZEROS = zlib.compress(bytes(100_000_000), 9)
_PIXELS = (b"IDAT", zlib.compress(bytes((1 + 64 * 4) * 64)))
_TEXT = zlib.compress(bytes(60_000_000), 9)
GLTF = b'{"asset":{"version":"2.0"}} '
FILES = {
    "5,000 by 5,000 pixels of nothing": (png([header(5_000, 5_000), (b"IDAT", _ZEROS), (b"IEND", b"")]), 422),
    "2 billion by 2 billion": (png([header(2**31 - 1, 2**31 - 1), (b"IDAT", _ZEROS), (b"IEND", b"")]), 422),
    "a text of 60 MB": (png([header(64, 64), (b"zTXt", b"k\0\0" + _TEXT), _PIXELS, (b"IEND", b"")]), 422),
    "a profile of 60 MB": (png([header(64, 64), (b"iCCP", b"k\0\0" + _TEXT), _PIXELS, (b"IEND", b"")]), 422),
    "a WebP of 16,383 by 16,383": (
        b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + (16_382).to_bytes(3, "little") * 2,
        422,
    ),
    "a JPEG of 65,535 by 65,535": (
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
        422,
    ),
    "a TIFF": (b"II*\0" + bytes(100), 422),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 422),
    "a page": (b"<!doctype html><script>alert(1)</script>", 422),
    "a PDF": (b"%PDF-1.7\n", 422),
    "a GLB that is longer than it is": (struct.pack("<4sIIII", b"glTF", 2, 2**32 - 1, 28, 0x4E4F534A) + GLTF, 422),
    "a GLB whose text is longer": (struct.pack("<4sIIII", b"glTF", 2, 48, 2**32 - 1, 0x4E4F534A) + GLTF, 422),
    "a GLB of another version": (struct.pack("<4sIIII", b"glTF", 1, 48, 28, 0x4E4F534A) + GLTF, 422),
}


async def test_files(gate: Gateway) -> None:
    for name, (content, status) in FILES.items():
        assert len(content) < 200_000
        answer = await gate.post("/uploads", files={"file": ("a.png", content, "image/png")})
        assert told(answer)[0] == status, (name, answer.text)


MOMENTS = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00", "now", "\x00")
EVENT_CURSORS = (
    *("9999999999999999999-1", "18446744073709551615-0", "1-9223372036854775808", "1-", "-1-1"),
    *("\u0661-\u0661", "1-1\u00b2"),
)


async def test_cursors(gate: Gateway) -> None:
    for moment in MOMENTS:
        cursor = base64.urlsafe_b64encode(f"{moment} task-0001".encode()).decode().rstrip("=")
        assert told(await gate.get("/tasks", params={"cursor": cursor})) == (422, "validation_error"), moment
    for event_cursor in EVENT_CURSORS:
        answer = await gate.get("/events", params={"last_event_id": event_cursor})
        assert told(answer) == (400, "event_cursor_invalid"), event_cursor


# --- below HTTP -------------------------------------------------------------------------------------------------


async def exchange(gate: Gateway, request: bytes) -> bytes:
    """What is answered before the server closes. Fails when it keeps on listening."""
    host, port = gate.http.base_url.host, gate.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""  # closed while we were still sending
    finally:
        writer.close()


POST = b"POST /generate/text-to-image HTTP/1.1\r\nHost: x\r\n"
HEADS = {
    "a header without end": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000_000,
    "a name without end": b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"y" * 2_000_000,
    "a path without end": b"GET /" + b"y" * 2_000_000,
    "headers without end": b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 300_000,
    "a complete one that is too long": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"y" * HEAD_BYTES + b"\r\n\r\n",
    "trailers without end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 300_000,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length below zero": POST + b"Content-Length: -5\r\n\r\nabcde",
    "a length that is no number": POST + b"Content-Length: \xb2\r\n\r\nabcde",
    "a line break in a header": POST + b"X: a\nContent-Length: 5\r\n\r\n\x00",
}


async def test_heads(gate: Gateway) -> None:
    for name, head in HEADS.items():
        answer = await exchange(gate, head)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ", b"HTTP/1.1 422 ")), name
        assert b"200 OK" not in answer, name


async def test_line_ends_in_place_of_a_request_are_a_head(gate: Gateway) -> None:
    reader, writer = await asyncio.open_connection(gate.http.base_url.host, gate.http.base_url.port)
    writer.write(b"HEAD /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"\r\n" * 1_000_000)
        with suppress(ConnectionError):  # closed while we were still sending
            assert (await reader.read()).startswith((b"HTTP/1.1 400 ", b""))
    writer.close()


async def test_a_body_in_pieces_of_a_byte_is_refused(gate: Gateway) -> None:
    token = gate.headers()["Authorization"]
    head = POST + f"Authorization: {token}\r\nX-User-Id: {gate.user_id}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert b"Invalid HTTP request" in await exchange(gate, head + b"1\r\nx\r\n" * 15_000 + b"0\r\n\r\n")
    assert b"Invalid HTTP request" not in await exchange(gate, head + b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n")
