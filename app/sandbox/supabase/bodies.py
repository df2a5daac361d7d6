"""Upload bodies, streamed to disk: multipart as supabase-py and browsers send it, or the raw bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.sandbox.supabase.errors import bad_request, too_large

_DEFAULT_TYPE = "text/plain;charset=UTF-8"
_FIELD_BYTES = 64 * 1024


@dataclass
class UploadBody:
    """What came with the bytes. ``etag`` is quoted, as it goes on the wire."""

    size: int = 0
    etag: str = ""
    content_type: str = _DEFAULT_TYPE
    cache_control: str = "no-cache"
    metadata: dict[str, Any] | None = None


async def receive(request: Request, target: Path, *, max_bytes: int) -> UploadBody:
    """Stream the request's file into ``target``. Raises StorageRefusal, ClientDisconnect."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    with target.open("wb") as file:
        sink = _Sink(file, max_bytes)
        if kind == b"multipart/form-data":
            body = await _receive_form(request, options.get(b"boundary", b""), sink)
        else:
            body = await _receive_raw(request, sink)
    body.size, body.etag = sink.size, sink.etag
    return body


async def _receive_raw(request: Request, sink: _Sink) -> UploadBody:
    async for block in request.stream():
        await asyncio.to_thread(sink.write, block)
    body = UploadBody(content_type=request.headers.get("content-type", _DEFAULT_TYPE))
    if "cache-control" in request.headers:
        body.cache_control = request.headers["cache-control"]
    if "x-metadata" in request.headers:
        try:
            raw = base64.b64decode(request.headers["x-metadata"])
        except ValueError:
            raise bad_request("Metadata must be base64") from None
        body.metadata = _metadata(raw)
    return body


async def _receive_form(request: Request, boundary: bytes, sink: _Sink) -> UploadBody:
    if not boundary:
        raise bad_request("Multipart: Boundary not found")
    form = _Form(sink)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for block in request.stream():
            await asyncio.to_thread(parser.write, block)
    except FormParserError as error:
        raise bad_request(f"Multipart: {error}") from None
    return form.finish()


def _metadata(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        raise bad_request("Metadata must be JSON") from None
    if not isinstance(value, dict):
        raise bad_request("Metadata must be a JSON object")
    return cast("dict[str, Any]", value)


class _Sink:
    """A file that counts, hashes and refuses to grow beyond a limit."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    @property
    def etag(self) -> str:
        return f'"{self._md5.hexdigest()}"'

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self.size > self._max_bytes:
            raise too_large()
        self._md5.update(data)
        self._file.write(data)


@dataclass
class _Form:
    """Callbacks of the streaming parser. The file part is the one with a file name: JS gives it an empty name."""

    sink: _Sink
    body: UploadBody = field(default_factory=UploadBody)
    _header: bytes = b""
    _value: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    _name: bytes = b""
    _text: bytes = b""
    _is_file: bool = False
    _has_file: bool = False
    _complete: bool = False

    def callbacks(self) -> Any:  # noqa: ANN401 - the parser's type is a TypedDict of private names
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def finish(self) -> UploadBody:
        if not self._complete:
            raise bad_request("Multipart: Unexpected end of form")
        if not self._has_file:
            raise bad_request("No file in the form")
        return self.body

    def _begin(self) -> None:
        self._headers, self._text, self._is_file, self._name = {}, b"", False, b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"")
        self._is_file = b"filename" in options and not self._has_file
        if self._is_file:
            self._has_file = True
            self.body.content_type = self._headers.get(b"content-type", _DEFAULT_TYPE.encode()).decode("latin-1")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.sink.write(memoryview(data)[start:end])
            return
        if len(self._text) + end - start > _FIELD_BYTES:
            raise bad_request("Multipart: a field is too large")
        self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._is_file:
            return
        if self._name == b"cacheControl":
            self.body.cache_control = f"max-age={self._text.decode('latin-1')}"
        elif self._name == b"metadata":
            self.body.metadata = _metadata(self._text)

    def _on_end(self) -> None:
        self._complete = True


__all__ = ["UploadBody", "receive"]
