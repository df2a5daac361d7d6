"""Upload bodies, streamed to disk: multipart as supabase-py and browsers send it, or the raw bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.sandbox.supabase.errors import bad_content, bad_parameter, no_content_type, too_large
from app.sandbox.supabase.unread import begin_body

_RAW_TYPE = "application/octet-stream"
_PART_TYPE = b"text/plain"
_MIME_TYPE = re.compile(r"[^\s/;]+/[^\s/;]+(\s*;.*)?")
_FIELD_BYTES = 64 * 1024


@dataclass
class UploadBody:
    """What came with the bytes. ``etag`` is quoted, as it goes on the wire."""

    size: int = 0
    etag: str = ""
    content_type: str = _RAW_TYPE
    cache_control: str = "no-cache"
    metadata: dict[str, Any] | None = field(default_factory=dict[str, Any])


class Upload:
    """An upload of which only the head is read: what came with the bytes is known, the bytes wait.

    Storage decides whether it takes an object before it reads the content. Of a form it reads as far as the file part.
    """

    def __init__(self, request: Request, form: _Form | None) -> None:
        self._request = request
        self._blocks = request.stream()
        self._form = form
        self.body = _described(request) if form is None else form.body
        self.declared_bytes: int | None = None
        if form is None and request.headers.get("content-length", "").isdecimal():
            self.declared_bytes = int(request.headers["content-length"])

    @classmethod
    async def opened(cls, request: Request) -> Upload:
        """Read what comes before the content. Raises StorageRefusal, ClientDisconnect."""
        content_type = request.headers.get("content-type")
        if content_type is not None and not _MIME_TYPE.fullmatch(content_type):
            raise no_content_type()
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            return cls(request, None)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise bad_content("Multipart: Boundary not found")
        begin_body(request)
        form = _Form(boundary)
        upload = cls(request, form)
        async for block in upload._blocks:
            await form.feed(block)
            if form.has_file:
                return upload
        form.finish()  # says what is wrong
        return upload

    def begin(self) -> None:
        """The body is next; what is refused from now on leaves it unread."""
        begin_body(self._request)

    async def store(self, target: Path, *, max_bytes: int) -> UploadBody:
        """Stream the content into ``target``. Raises StorageRefusal, ClientDisconnect."""
        # a body sent in chunks has no length to check beforehand, and nothing checks it afterwards
        limit = max_bytes if self._form is not None or self.declared_bytes is not None else None
        with target.open("wb") as file:
            sink = _Sink(file, limit)
            if self._form is None:
                async for block in self._blocks:
                    await asyncio.to_thread(sink.write, block)
            else:
                self._form.send_to(sink)
                async for block in self._blocks:
                    await self._form.feed(block)
                self._form.finish()
        if sink.truncated:
            raise too_large()
        self.body.size, self.body.etag = sink.size, sink.etag
        return self.body


def _described(request: Request) -> UploadBody:
    body = UploadBody(content_type=request.headers.get("content-type", _RAW_TYPE))
    if "cache-control" in request.headers:
        body.cache_control = request.headers["cache-control"]
    if "x-metadata" in request.headers:
        with suppress(ValueError):
            body.metadata = _metadata(base64.b64decode(request.headers["x-metadata"]))
    return body


def _metadata(raw: bytes) -> dict[str, Any]:
    """What is no JSON counts for nothing; a list is refused. Raises StorageRefusal."""
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    if isinstance(value, list):
        raise bad_parameter("invalid input syntax for type json")
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


class _Sink:
    """A file that counts, hashes and stops growing at a limit, while the sender is heard to the end."""

    def __init__(self, file: BinaryIO, max_bytes: int | None) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    @property
    def etag(self) -> str:
        return f'"{self._md5.hexdigest()}"'

    @property
    def truncated(self) -> bool:
        return self._max_bytes is not None and self.size > self._max_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)
        if self.truncated:
            return
        self._md5.update(data)
        self._file.write(data)


@dataclass
class _Form:
    """A form as it is parsed. The file part is the one with a file name: JS gives it an empty name."""

    boundary: InitVar[bytes]
    body: UploadBody = field(default_factory=UploadBody)
    has_file: bool = False
    _sink: _Sink | None = None
    _early: bytearray = field(default_factory=bytearray)
    _header: bytes = b""
    _value: bytes = b""
    _headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    _name: bytes = b""
    _text: bytes = b""
    _is_file: bool = False
    _given_type: str = ""
    _complete: bool = False

    def __post_init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(boundary, self._callbacks())

    async def feed(self, block: bytes) -> None:
        """Raises StorageRefusal."""
        try:
            await asyncio.to_thread(self._parser.write, block)
        except FormParserError as error:
            raise bad_content(f"Multipart: {error}") from None

    def _callbacks(self) -> Any:  # noqa: ANN401 - the parser's type is a TypedDict of private names
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

    def send_to(self, sink: _Sink) -> None:
        """Where the file's bytes go from now on; those that came with its head go first."""
        self._sink = sink
        sink.write(self._early)
        self._early = bytearray()

    def finish(self) -> None:
        """Raises StorageRefusal when the form is not whole."""
        if not self._complete:
            raise bad_content("Multipart: Unexpected end of form")
        if not self.has_file:
            raise bad_content("No content provided")

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
        self._is_file = b"filename" in options and not self.has_file
        if self._is_file:
            self.has_file = True
            self.body.content_type = self._given_type or self._headers.get(b"content-type", _PART_TYPE).decode(
                "latin-1"
            )

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            if self._sink is None:
                self._early += memoryview(data)[start:end]  # of one block
            else:
                self._sink.write(memoryview(data)[start:end])
            return
        if len(self._text) + end - start > _FIELD_BYTES:
            raise bad_content("Multipart: a field is too large")
        self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._is_file:
            return
        if self._name == b"cacheControl":
            self.body.cache_control = f"max-age={self._text.decode('latin-1')}"
        elif self._name == b"contentType" and self._text:
            self._given_type = self.body.content_type = self._text.decode("latin-1")
        elif self._name in (b"metadata", b"userMetadata"):
            self.body.metadata = _metadata(self._text)

    def _on_end(self) -> None:
        self._complete = True


__all__ = ["Upload", "UploadBody"]
