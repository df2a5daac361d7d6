"""Upload bodies, streamed to disk: multipart as supabase-py and browsers send it, or the raw bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.sandbox.supabase.errors import bad_request, too_large

_DEFAULT_TYPE = "text/plain;charset=UTF-8"
_FIELD_BYTES = 64 * 1024


@dataclass
class UploadBody:
    """What came with the bytes."""

    size: int = 0
    content_type: str = _DEFAULT_TYPE
    cache_control: str = "no-cache"
    metadata: dict[str, Any] | None = None


async def receive(request: Request, target: Path, *, max_bytes: int) -> UploadBody:
    """Stream the request's file into ``target``. Raises StorageRefusal."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    with target.open("wb") as sink:
        if kind == b"multipart/form-data":
            form = _Form(sink, max_bytes)
            parser = MultipartParser(options.get(b"boundary", b""), form.callbacks())
            async for block in request.stream():
                await asyncio.to_thread(parser.write, block)
            return form.finish()
        body = UploadBody(content_type=request.headers.get("content-type", _DEFAULT_TYPE))
        async for block in request.stream():
            body.size += len(block)
            if body.size > max_bytes:
                raise too_large()
            await asyncio.to_thread(sink.write, block)
    if "cache-control" in request.headers:
        body.cache_control = request.headers["cache-control"]
    if "x-metadata" in request.headers:
        body.metadata = _metadata(request.headers["x-metadata"].encode(), encoded=True)
    return body


def _metadata(raw: bytes, *, encoded: bool) -> dict[str, Any]:
    try:
        value = json.loads(base64.b64decode(raw) if encoded else raw)
    except (ValueError, binascii.Error):
        raise bad_request("Metadata must be JSON") from None
    if not isinstance(value, dict):
        raise bad_request("Metadata must be a JSON object")
    return value


@dataclass
class _Form:
    """Callbacks of the streaming parser. The file part is the one with a file name: JS gives it an empty name."""

    sink: Any
    max_bytes: int
    body: UploadBody = field(default_factory=UploadBody)
    _header: bytes = b""
    _value: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    _name: bytes = b""
    _is_file: bool = False
    _seen_file: bool = False
    _text: bytes = b""

    def callbacks(self) -> Any:  # noqa: ANN401 - the parser's own mapping type
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    def finish(self) -> UploadBody:
        if not self._seen_file:
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
        self._is_file = b"filename" in options and not self._seen_file
        if self._is_file:
            self._seen_file = True
            self.body.content_type = self._headers.get(b"content-type", _DEFAULT_TYPE.encode()).decode("latin-1")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.body.size += end - start
            if self.body.size > self.max_bytes:
                raise too_large()
            self.sink.write(memoryview(data)[start:end])
        elif len(self._text) + end - start <= _FIELD_BYTES:
            self._text += data[start:end]

    def _end(self) -> None:
        if self._is_file:
            return
        if self._name == b"cacheControl":
            self.body.cache_control = f"max-age={self._text.decode('latin-1')}"
        elif self._name == b"metadata":
            self.body.metadata = _metadata(self._text, encoded=False)
