"""One picture and one model that stand for all, where a suite counts calls and nobody looks at what they made."""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from app.sandbox.media.glb import GlbBuilder

_PAPER, _INK = (236, 234, 228), (58, 96, 140)
_TEXTURE_SIDE = 64
PREVIEW_SIZE: Final = (256, 256)


def stock_image(size: tuple[int, int]) -> Image.Image:
    """A disc on paper."""
    image = Image.new("RGB", size, _PAPER)
    middle, radius = (size[0] // 2, size[1] // 2), min(size) // 3
    ImageDraw.Draw(image).circle(middle, radius, fill=_INK)
    return image


@lru_cache(maxsize=64)
def stock_picture(size: tuple[int, int], output_format: str) -> bytes:
    """That image in a format of the Images API."""
    buffer = io.BytesIO()
    stock_image(size).save(buffer, output_format.upper())
    return buffer.getvalue()


@cache
def stock_model() -> bytes:
    """A tetrahedron that wears the disc, as a GLB."""
    corners = np.array([(0, 0, 0.5), (0.5, 0, -0.5), (-0.5, 0, -0.5), (0, 1, 0)], np.float32)
    outward = corners - corners.mean(axis=0)
    builder = GlbBuilder()
    attributes = {
        "POSITION": builder.attribute(corners, bounds=True),
        "NORMAL": builder.attribute(outward / np.linalg.norm(outward, axis=1, keepdims=True)),
        "TEXCOORD_0": builder.attribute(np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float32)),
    }
    texture = builder.texture(stock_picture((_TEXTURE_SIDE, _TEXTURE_SIDE), "png"), "image/png", name="disc")
    surface = {"baseColorTexture": {"index": texture}, "metallicFactor": 0.0}
    builder.add("materials", {"name": "stock", "pbrMetallicRoughness": surface})
    indices = builder.indices(np.array([(0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)], np.int64))
    builder.add(
        "meshes",
        {"name": "stock", "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}]},
    )
    builder.add("nodes", {"name": "sandbox stock", "mesh": 0})
    builder.document["scene"] = builder.add("scenes", {"nodes": [0]})
    return builder.pack()
