"""Refuses picture files whose structure alone keeps a decoder busy, before a decoder sees them.

Decoders walk markers, fill bytes and chunks one by one, whatever they hold: a valid picture of 64 by 64 pixels with
millions of empty ones takes them half a minute. The walk here is the decoder's own, without reading what the parts
hold, and ends at the caps. Whether a file is a picture at all is left to the decoder.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from app.domain.sniff import JPEG, PNG, WEBP
from app.errors import AppError, ErrorCode

Content = bytes | mmap.mmap

# A camera writes some 20 segments; depth maps and colour profiles cut into pieces of 64 KiB make some hundreds.
MOST_SEGMENTS = 1_000
MOST_STRAY_BYTES = 16_384  # fill bytes and others between the segments of a JPEG; encoders write none
MOST_SCANS = 100  # cameras and editors write up to about 12; each costs a pass over all pixels
_SCANS_OF_LARGEST = 20  # and together they pass over no more pixels than so many scans of the largest picture
# An encoder's buffer makes a chunk: 8 KiB in the common one, rarely less than 1 KiB
MOST_SMALL_CHUNKS = 1_000
_SPARE_BYTES_PER_CHUNK = 1_024
MOST_COMPRESSED_CHUNKS = 256  # texts and profiles; each may unpack to 1 MiB

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)  # all but stuffing and restarts
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # headers with the picture's sides
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})  # markers that a length follows

_PNG_SIGNATURE_BYTES = 8
_PNG_AROUND_DATA = 12  # length, type and checksum
_COMPRESSED = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_RIFF_HEADER_BYTES = 12
_RIFF_AROUND_DATA = 8


def check_structure_of(path: Path, content_type: str, *, max_pixels: int) -> None:
    """As ``check_structure``, of a file that is not empty."""
    with path.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
        check_structure(content, content_type, max_pixels=max_pixels)


def check_structure(content: Content, content_type: str, *, max_pixels: int) -> int:
    """How many parts were looked at: the work of this check, which has an upper limit.

    Raises AppError(INPUT_TOO_COMPLEX).
    """
    match content_type:
        case _ if content_type == JPEG:
            return _check_jpeg(content, max_pixels)
        case _ if content_type == PNG:
            return _check_chunks(content, _png_chunks(content))
        case _ if content_type == WEBP:
            return _check_chunks(content, _webp_chunks(content))
        case _:
            return 0


def _check_jpeg(content: Content, max_pixels: int) -> int:
    """Up to the end of the first picture: phones append films and further pictures."""
    segments = stray = scans = pixels = 0
    position = 2
    while found := _next_marker(content, position, compressed=scans > 0):
        kind = found[1][0]
        if not scans:
            # decoders look at each byte here; behind the first scan's header they read compressed data
            stray += found.start() - position
        elif kind == _END_OF_IMAGE:
            break
        segments += 1
        position = found.end()
        if kind in _SEGMENTS:
            if kind in _FRAMES:
                height, width = _number(content, position + 3, 2), _number(content, position + 5, 2)
                pixels = max(pixels, min(width * height, max_pixels))  # more are refused by the decoder's header
            scans += kind == _START_OF_SCAN
            position += max(2, _number(content, position, 2))
        if segments > MOST_SEGMENTS or stray > MOST_STRAY_BYTES:
            raise _too_complex("This JPEG has too many parts.")
        if scans > MOST_SCANS or scans * pixels > _SCANS_OF_LARGEST * max_pixels:
            raise _too_complex("This JPEG has too many scans.")
    if not scans and stray + len(content) - position > MOST_STRAY_BYTES:
        raise _too_complex("This JPEG has too many parts.")
    return segments


def _next_marker(content: Content, position: int, *, compressed: bool) -> re.Match[bytes] | None:
    # compressed data may be long; elsewhere no marker is far away
    end = len(content) if compressed else position + MOST_STRAY_BYTES + 2
    return _MARKER.search(content, position, end)


def _check_chunks(content: Content, chunks: Iterator[bytes]) -> int:
    most = MOST_SMALL_CHUNKS + len(content) // _SPARE_BYTES_PER_CHUNK
    number = compressed = 0
    for number, kind in enumerate(chunks, start=1):
        compressed += kind in _COMPRESSED
        if number > most or compressed > MOST_COMPRESSED_CHUNKS:
            raise _too_complex("This picture has too many chunks.")
    return number


def _png_chunks(content: Content) -> Iterator[bytes]:
    position = _PNG_SIGNATURE_BYTES
    while position + _PNG_AROUND_DATA <= len(content):
        kind = bytes(content[position + 4 : position + 8])
        yield kind
        if kind == b"IEND":
            return
        position += _PNG_AROUND_DATA + _number(content, position, 4)


def _webp_chunks(content: Content) -> Iterator[bytes]:
    position = _RIFF_HEADER_BYTES
    while position + _RIFF_AROUND_DATA <= len(content):
        yield bytes(content[position : position + 4])
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        position += _RIFF_AROUND_DATA + size + size % 2


def _number(content: Content, position: int, length: int) -> int:
    return int.from_bytes(content[position : position + length], "big")


def _too_complex(detail: str) -> AppError:
    return AppError(ErrorCode.INPUT_TOO_COMPLEX, detail)
