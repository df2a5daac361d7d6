"""One picture and one model that stand for all, where a suite counts calls and nobody looks at what they made."""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import Final

from PIL import Image, ImageDraw

from app.sandbox.media.models import build_model

_PAPER, _INK = (236, 234, 228), (58, 96, 140)
_MODEL_SIDE, _MODEL_FACES, _TEXTURE_SIDE = 128, 700, 64
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
    """The disc as a GLB."""
    views = [stock_image((_MODEL_SIDE, _MODEL_SIDE))]
    return build_model(views, face_limit=_MODEL_FACES, texture=True, pbr=True, texture_size=_TEXTURE_SIDE, seed=0)
