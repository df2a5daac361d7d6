"""Motion JPEG in an MP4 file: pictures become a film without any encoder, and pictures again."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

_TICKS = 10  # a second, and one for each picture
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def film(pictures: Sequence[bytes], width: int, height: int) -> bytes:
    """An MP4 file of JPEG pictures of one size."""
    head = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isommp41")
    body = _box(b"mdat", *pictures)
    return head + body + _moov([len(picture) for picture in pictures], len(head) + 8, width, height)


def pictures_of(content: bytes) -> list[bytes]:
    """The pictures of a film, by its own tables."""
    sizes = dict(_boxes(content))[b"moov"]
    for name in (b"trak", b"mdia", b"minf", b"stbl"):
        sizes = dict(_boxes(sizes))[name]
    tables = dict(_boxes(sizes))
    (count,) = struct.unpack_from(">I", tables[b"stsz"], 8)
    (offset,) = struct.unpack_from(">I", tables[b"stco"], 8)
    found: list[bytes] = []
    for size in struct.unpack_from(f">{count}I", tables[b"stsz"], 12):
        found.append(content[offset : offset + size])
        offset += size
    return found


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        yield name, content[at + 8 : at + size]
        at += size


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, name) + body


def _full(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", flags), *parts)


def _moov(sizes: Sequence[int], offset: int, width: int, height: int) -> bytes:
    n = len(sizes)
    jpeg = _box(
        b"jpeg",
        struct.pack(">6xH16xHHIIIH", 1, width, height, 0x480000, 0x480000, 0, 1),
        struct.pack(">32sHh", b"\x04JPEG", 24, -1),
    )
    table = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), jpeg),
        _full(b"stts", struct.pack(">3I", 1, n, 1)),
        _full(b"stsc", struct.pack(">4I", 1, 1, n, 1)),
        _full(b"stsz", struct.pack(f">2I{n}I", 0, n, *sizes)),
        _full(b"stco", struct.pack(">2I", 1, offset)),
    )
    here = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">4I2H", 0, 0, _TICKS, n, 0x55C4, 0)),
        _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"\0"),
        _box(b"minf", _full(b"vmhd", bytes(8), flags=1), here, table),
    )
    track = _full(
        b"tkhd",
        struct.pack(">6I12x4x", 0, 0, 1, 0, n, 0),
        _MATRIX,
        struct.pack(">2I", width << 16, height << 16),
        flags=7,
    )
    whole = struct.pack(">4I", 0, 0, _TICKS, n) + struct.pack(">IH10x", 0x10000, 0x100) + _MATRIX
    return _box(b"moov", _full(b"mvhd", whole, bytes(24), struct.pack(">I", 2)), _box(b"trak", track, media))
