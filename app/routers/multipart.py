"""A multipart form with one file, received as a stream: the file goes to disk, nothing is ever whole in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.domain.sniff import HEAD_BYTES
from app.errors import AppError, ErrorCode

FORM_BYTES = 64 * 1024  # what a form may have beside its file

_FILE = "file"
_FIELD_BYTES = 1024
_HEADER_BYTES = 4096
_PARTS = 16
_WRITE_BYTES = 1024 * 1024


@dataclass(slots=True)
class ReceivedForm:
    """``file`` lies complete on disk; ``fields`` are the short texts beside it."""

    file: Path
    fields: dict[str, str]


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str | None = None
    text: bytearray = field(default_factory=bytearray)


class FormReceiver:
    """``limit_of`` answers how many bytes a file may have that begins with these bytes, or raises AppError; ``room`` is
    asked for each block before it is written."""

    def __init__(
        self,
        target: Path,
        *,
        field_names: frozenset[str],
        limit_of: Callable[[bytes], int],
        room: Callable[[int], Awaitable[None]],
    ) -> None:
        self._target = target
        self._field_names = field_names
        self._limit_of = limit_of
        self._room = room
        self._part = _Part()
        self._parts = 0
        self._fields: dict[str, str] = {}
        self._file_seen = False
        self._ended = False
        self._pending = bytearray()  # of the file, not yet on disk
        self._received = 0
        self._limit: int | None = None
        self._body_bytes = 0
        self._delimiters = 0

    async def receive(self, content_type: str, body: AsyncIterator[bytes]) -> ReceivedForm:
        """Read the whole body.

        Raises AppError: UNSUPPORTED_MEDIA_TYPE, MALFORMED_REQUEST, VALIDATION_ERROR, INPUT_TOO_LARGE and what
        ``limit_of`` and ``room`` raise.
        """
        boundary = _boundary(content_type)
        parser = self._parser(boundary)
        delimiter, tail = b"\r\n--" + boundary, b""
        sink = await asyncio.to_thread(self._target.open, "wb")
        try:
            async for chunk in body:
                tail = self._count_delimiters(delimiter, tail + chunk)
                parser.write(chunk)
                self._check_rest(len(chunk), len(delimiter))
                if len(self._pending) >= _WRITE_BYTES:
                    await self._flush(sink)
            parser.finalize()
            self._check_head(complete=True)
            await self._flush(sink)
        except FormParserError:
            raise _malformed("The form can not be parsed.") from None
        finally:
            await asyncio.to_thread(sink.close)
        if not self._ended:
            raise _malformed("The form is cut short.")
        if not self._file_seen:
            raise _invalid(_FILE, "missing", "A file is needed.")
        return ReceivedForm(self._target, self._fields)

    def _count_delimiters(self, delimiter: bytes, data: bytes) -> bytes:
        """The end of the data, where another may have begun. The parser goes byte by byte at each, and takes one that
        something else follows for a part of the file, which no form may have."""
        self._delimiters += data.count(delimiter)
        if self._delimiters > _PARTS + 1:  # the last one ends the form
            raise _malformed(f"A form may have {_PARTS} parts.")
        return data[max(0, len(data) - len(delimiter) + 1) :]

    def _check_rest(self, size: int, held_back: int) -> None:
        """The parser takes what is not of the file byte by byte; it holds back the beginning of a delimiter."""
        self._body_bytes += size
        if self._body_bytes - self._received > FORM_BYTES + held_back:
            raise _malformed(f"Beside its file a form may have {FORM_BYTES} bytes.")

    def _parser(self, boundary: bytes) -> MultipartParser:
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise _malformed("The form has no usable boundary.") from None

    async def _flush(self, sink: BinaryIO) -> None:
        self._check_head(complete=False)
        if self._pending:
            block, self._pending = bytes(self._pending), bytearray()
            await self._room(len(block))
            await asyncio.to_thread(sink.write, block)

    def _check_head(self, *, complete: bool) -> None:
        if self._file_seen and self._limit is None and (complete or self._received >= HEAD_BYTES):
            self._limit = self._limit_of(bytes(self._pending[:HEAD_BYTES]))
        if self._limit is not None and self._received > self._limit:
            raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {self._limit} bytes are accepted.")

    # --- what the parser calls --------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise _malformed(f"A form may have {_PARTS} parts.")
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        part = self._part
        held = sum(len(name) + len(value) for name, value in part.headers.items())
        if held + len(part.header_name) + len(part.header_value) > _HEADER_BYTES:
            raise _malformed("The headers of a part are too long.")

    def _header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.header_name).lower()] = bytes(part.header_value)
        part.header_name, part.header_value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == _FILE:
            if self._file_seen:
                raise _invalid(_FILE, "too_many", "One file at a time.")
            self._file_seen = True
        elif name not in self._field_names or name in self._fields:
            raise _invalid(name[:100] or "(unnamed)", "extra_forbidden", "There is no such field, or it comes twice.")
        self._part.name = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == _FILE:
            self._pending += data[start:end]
            self._received += end - start
            self._check_head(complete=False)
            return
        self._part.text += data[start:end]
        if len(self._part.text) > _FIELD_BYTES:
            raise _invalid(self._part.name or "", "string_too_long", f"At most {_FIELD_BYTES} bytes.")

    def _end_part(self) -> None:
        if self._part.name in self._field_names:
            try:
                self._fields[self._part.name] = self._part.text.decode("utf-8")
            except UnicodeDecodeError:
                raise _invalid(self._part.name, "string_unicode", "Must be UTF-8.") from None

    def _end(self) -> None:
        self._ended = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the file as multipart/form-data.")
    return options.get(b"boundary", b"")


def _malformed(detail: str) -> AppError:
    return AppError(ErrorCode.MALFORMED_REQUEST, detail)


def _invalid(name: str, code: str, message: str) -> AppError:
    return AppError(ErrorCode.VALIDATION_ERROR, extra={"errors": [{"field": name, "code": code, "message": message}]})
