"""Reads a stored image reply without holding it: ten 4K pictures are more than 100 MB of base64.

The file is scanned once. Values of ``"b64_json"`` go to picture files as they are decoded, and their index takes
their place in what is left of the JSON, which is small and parsed as usual.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import pybase64
from PIL import Image

from app.ai_clients.base import ResultFile
from app.domain.picture_guard import check_structure_of
from app.domain.sniff import HEAD_BYTES, IMAGE_TYPES, extension_of, sniff
from app.errors import AppError

_READ_BYTES = 256 * 1024
_REST_BYTES = 1024 * 1024
_STRING_END = re.compile(rb'["\\]')
_KEY = b'"b64_json"'
_FORMATS = ("PNG", "JPEG", "WEBP")


class NotAReply(Exception):
    """The file is not a reply of the Images API."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The pictures in their order (None: broken), and the provider's ``usage`` if it sent one."""

    images: tuple[ResultFile | None, ...]
    usage: Mapping[str, Any]


def read_reply(path: Path, *, directory: Path, max_images: int, max_image_bytes: int, max_pixels: int) -> Reply:
    """Decode the reply at ``path`` into ``directory``; blocking, in bounded memory.

    Pictures beyond ``max_images`` are skipped. Raises NotAReply, OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as file:
        scan = _Scan(file, directory, max_images=max_images, max_bytes=max_image_bytes)
        rest = scan.run()
    try:
        document: object = orjson.loads(rest)
    except orjson.JSONDecodeError:
        raise NotAReply("broken JSON") from None
    reply = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    data: object = reply.get("data")
    if not isinstance(data, list) or not data:
        raise NotAReply("no data")
    entries = [_picture_of(entry, scan.pictures) for entry in cast("list[object]", data)[:max_images]]
    images = tuple(None if entry is None else _checked(entry, max_pixels) for entry in entries)
    usage: object = reply.get("usage")
    return Reply(images, cast("dict[str, Any]", usage) if isinstance(usage, dict) else {})


def _picture_of(entry: object, pictures: Mapping[int, Path]) -> Path | None:
    """The file that an element of ``data`` was decoded to."""
    mark: object = cast("dict[str, object]", entry).get("b64_json") if isinstance(entry, dict) else None
    return pictures.get(int(mark)) if isinstance(mark, str) and mark.isdecimal() else None


def _checked(path: Path, max_pixels: int) -> ResultFile | None:
    """The picture named by what it is, or None when it is none."""
    with path.open("rb") as file:
        content_type = sniff(file.read(HEAD_BYTES))
    if content_type not in IMAGE_TYPES:
        return None
    try:
        check_structure_of(path, content_type, max_pixels=max_pixels)
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                return None
            picture.verify()
    except (AppError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    extension = extension_of(content_type)
    named = path.rename(path.with_suffix(f".{extension}"))
    return ResultFile(named, content_type, extension, named.stat().st_size, width, height)


class _Scan:
    """One pass over the file. ``rest`` collects everything but the pictures."""

    def __init__(self, file: BinaryIO, directory: Path, *, max_images: int, max_bytes: int) -> None:
        self._file = file
        self._directory = directory
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._buffer = b""
        self._rest = bytearray()
        self.pictures: dict[int, Path] = {}

    def run(self) -> bytes:
        last_string, seen = b"", 0
        while (between := self._until_quote()) is not None:
            self._keep(between)
            if last_string == _KEY and between.strip() == b":":
                self._picture(seen)
                self._keep(b'"%d"' % seen)
                seen += 1
                last_string = b""
            else:
                start = len(self._rest)
                self._keep(b'"')
                for piece in self._string():
                    self._keep(piece)
                self._keep(b'"')
                last_string = bytes(self._rest[start:])
        self._keep(self._buffer)
        return bytes(self._rest)

    def _keep(self, piece: bytes) -> None:
        self._rest += piece
        if len(self._rest) > _REST_BYTES:
            raise NotAReply("too much besides the pictures")

    def _fill(self) -> bool:
        chunk = self._file.read(_READ_BYTES)
        self._buffer += chunk
        return bool(chunk)

    def _until_quote(self) -> bytes | None:
        """What lies before the next string, its opening quote consumed; None at the end of the file."""
        searched = 0
        while (at := self._buffer.find(b'"', searched)) < 0:
            searched = len(self._buffer)
            if searched > _REST_BYTES:
                raise NotAReply("too much besides the pictures")
            if not self._fill():
                return None
        before, self._buffer = self._buffer[:at], self._buffer[at + 1 :]
        return before

    def _string(self) -> Iterator[bytes]:
        """The raw content of a string whose opening quote was consumed, escapes whole, closing quote consumed."""
        while True:
            if not self._buffer and not self._fill():
                raise NotAReply("ends within a string")
            found = _STRING_END.search(self._buffer)
            if found is None:
                piece, self._buffer = self._buffer, b""
                yield piece
                continue
            at = found.start()
            if at:
                yield self._buffer[:at]
            if self._buffer[at : at + 1] == b'"':
                self._buffer = self._buffer[at + 1 :]
                return
            self._buffer = self._buffer[at:]
            yield self._escape()

    def _escape(self) -> bytes:
        while len(self._buffer) < 2 or (self._buffer[1:2] == b"u" and len(self._buffer) < 6):
            if not self._fill():
                raise NotAReply("ends within a string")
        length = 6 if self._buffer[1:2] == b"u" else 2
        escape, self._buffer = self._buffer[:length], self._buffer[length:]
        return escape

    def _picture(self, index: int) -> None:
        """Decode the string that begins here into a file; a broken or surplus one is read over."""
        if index >= self._max_images:
            for _ in self._string():
                pass
            return
        path = self._directory / f"{index}.image"
        with path.open("wb") as target:
            sink = _Base64Sink(target, self._max_bytes)
            for piece in self._string():
                sink.feed(_plain(piece) if piece.startswith(b"\\") else piece)
            whole = sink.finish()
        if whole:
            self.pictures[index] = path
        else:
            path.unlink()


def _plain(escape: bytes) -> bytes:
    """The text of a JSON escape; line breaks within base64 mean nothing."""
    try:
        text = cast("str", orjson.loads(b'"' + escape + b'"'))
    except orjson.JSONDecodeError:
        return b"\x00"  # not base64: the picture is broken
    return text.encode().strip(b"\r\n\t ")


class _Base64Sink:
    """Decodes base64 piece by piece. Once broken it only swallows."""

    def __init__(self, target: BinaryIO, max_bytes: int) -> None:
        self._target = target
        self._left = max_bytes
        self._tail = b""
        self._padded = False
        self._broken = False

    def feed(self, piece: bytes) -> None:
        if self._broken or not piece:
            return
        text = self._tail + piece
        whole = len(text) - len(text) % 4
        self._tail = text[whole:]
        self._decode(text[:whole])

    def finish(self) -> bool:
        """Whether all of it was base64 of something within the cap."""
        return not self._broken and not self._tail and self._target.tell() > 0

    def _decode(self, text: bytes) -> None:
        if not text:
            return
        try:
            data = pybase64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self._broken = True
            return
        self._left -= len(data)
        # padding is the end: what follows it is not this picture
        self._broken = self._padded or self._left < 0
        self._padded = text.endswith(b"=")
        if not self._broken:
            self._target.write(data)
