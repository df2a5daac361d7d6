"""Picture files made for tests: real encodings, real metadata, real damage."""

from __future__ import annotations

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
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        )
    )


def glb(description: bytes = b'{"asset":{"version":"2.0"}} ', *, version: int = 2, kind: bytes = b"JSON") -> bytes:
    chunk = struct.pack("<I4s", len(description), kind) + description
    return struct.pack("<4sII", b"glTF", version, 12 + len(chunk)) + chunk
