"""Picture files made for tests: real encodings, real metadata, real damage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from app.domain.pictures import PictureLimits
from PIL import Image

LIMITS = PictureLimits(max_bytes=4_000_000, max_pixels=1_000_000)


def gradient(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Red grows to the right, green downwards; blue is constant."""
    width, height = size
    red = Image.linear_gradient("L").rotate(90).resize(size)
    green = Image.linear_gradient("L").resize(size)
    blue = Image.new("L", (width, height), 90)
    return Image.merge("RGB", (red, green, blue)).convert(mode)


def noise(size: tuple[int, int]) -> Image.Image:
    """What no encoder makes small."""
    return Image.merge("RGB", [Image.effect_noise(size, 120) for _ in range(3)])


def saved(path: Path, image: Image.Image, format_name: str, **options: Any) -> Path:  # noqa: ANN401 - Pillow takes them
    image.save(path, format_name, **options)
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, *, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG with a header and rows of one's own; ``rows`` with filter bytes."""
    return _png(width, height, bits=bits, colour=colour, data=zlib.compress(rows))


def black_png(width: int, height: int, *, row_filter: int = 0) -> bytes:
    """Any number of black pixels in a small file. Row filter 4 (Paeth) is twice the work for a decoder."""
    packer = zlib.compressobj()
    row = bytes([row_filter]) + bytes(3 * width)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    return _png(width, height, bits=8, colour=2, data=data)


def _png(width: int, height: int, *, bits: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), png_chunk(b"IDAT", data), png_chunk(b"IEND", b""))
    )


def glb(description: bytes = b'{"asset":{"version":"2.0"}} ', *, version: int = 2, kind: bytes = b"JSON") -> bytes:
    chunk = struct.pack("<I4s", len(description), kind) + description
    return struct.pack("<4sII", b"glTF", version, 12 + len(chunk)) + chunk


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow takes them
    sink = io.BytesIO()
    image.save(sink, format_name, **options)
    return sink.getvalue()


def _jpeg_with(inserted: bytes) -> bytes:
    plain = encoded(gradient(size=(64, 64)), "JPEG")
    return plain[:2] + inserted + plain[2:]


def _png_with(*, before: bytes = b"", between: bytes = b"") -> bytes:
    plain = encoded(gradient(size=(64, 64)), "PNG")
    data = plain.index(b"IDAT") - 4
    end = plain.index(b"IEND") - 4
    return plain[:data] + before + plain[data:end] + between + plain[end:]


def _webp_with(inserted: bytes) -> bytes:
    plain = encoded(gradient(size=(64, 64)), "WEBP", exif=b"Exif\x00\x00")
    whole = plain + inserted
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def attacks(size: int) -> dict[str, bytes]:
    """Pictures of 64 by 64 pixels and about ``size`` bytes whose parts hold nothing; decoders take them."""
    iccp = png_chunk(b"iCCP", b"p\x00\x00" + zlib.compress(b"\x00" * 1_000_000, 9))
    return {
        "jpeg markers": _jpeg_with(b"\xff\xe5\x00\x02" * (size // 4)),
        "jpeg fill": _jpeg_with(b"\xff" * size),
        "jpeg stray bytes": _jpeg_with(b"\xff\xd8" + b"\x00" * size),
        "jpeg stuffing": _jpeg_with(b"\xff\x00" * (size // 2)),
        "jpeg restarts": _jpeg_with(b"\xff\xd0" * (size // 2)),
        "jpeg markers without a length": _jpeg_with((b"\xff\xf0\xff\xff" + b"\x00" * 65_533) * (size // 65_537)),
        "jpeg ends at once": _jpeg_with(b"\xff\xd9" + b"\xff\xe5\x00\x02" * (size // 4)),
        "png chunks": _png_with(before=png_chunk(b"tEXt", b"") * (size // 12)),
        "png private chunks": _png_with(before=png_chunk(b"abCd", b"") * (size // 12)),
        "png empty data": _png_with(before=png_chunk(b"IDAT", b"") * (size // 12)),
        "png chunks behind the data": _png_with(between=png_chunk(b"tEXt", b"a\x00b") * (size // 15)),
        "png profiles": _png_with(before=iccp * (size // len(iccp))),
        "webp chunks": _webp_with(b"abcd\x00\x00\x00\x00" * (size // 8)),
    }
