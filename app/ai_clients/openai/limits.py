"""What OpenAI Images takes. Source: OpenAI's Images reference, gpt-image-2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel

from app.ai_clients.base import Capability
from app.ai_clients.limits import Limits

PROMPT_CHARACTERS = 32_000

_SIZE = re.compile(r"([0-9]{3,4})x([0-9]{3,4})")
_EDGE_STEP = 16
_LONGEST_EDGE = 3840
_STEEPEST_RATIO = 3
_PIXELS = range(655_360, 8_294_400 + 1)


def _image_size(value: str) -> str:
    """Multiples of 16, ratio up to 1:3, bounded edge and area."""
    if value == "auto":
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("Must be auto or WIDTHxHEIGHT.")
    short, long = sorted((int(found[1]), int(found[2])))
    if short % _EDGE_STEP or long % _EDGE_STEP or long > _LONGEST_EDGE:
        raise ValueError(f"Both sides must be multiples of {_EDGE_STEP}, at most {_LONGEST_EDGE}.")
    if long > _STEEPEST_RATIO * short or short * long not in _PIXELS:
        raise ValueError(f"At most 1:{_STEEPEST_RATIO}, with {_PIXELS.start} to {_PIXELS.stop - 1} pixels.")
    return value


class ImageOptions(BaseModel):
    """Options of a picture."""

    size: Annotated[str, AfterValidator(_image_size)] | None = None
    quality: Literal["auto", "low", "medium", "high"] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None


CAPABILITIES: Mapping[Capability, Limits] = {
    capability: Limits(PROMPT_CHARACTERS, ImageOptions)
    for capability in (Capability.TEXT_TO_IMAGE, Capability.IMAGE_TO_IMAGE, Capability.SKETCH_TO_IMAGE)
}
