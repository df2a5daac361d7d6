"""The operations of the HTTP contract and their options."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Operation(StrEnum):
    """The operations of the HTTP contract, by the last part of their path."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    TEXT_TO_MODEL = "text-to-model"
    IMAGE_TO_MODEL = "image-to-model"
    SKETCH_TO_MODEL = "sketch-to-model"
    REFINE_MODEL = "refine-model"


View = Literal["front", "left", "back", "right"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of the HTTP contract; ``None`` means not set by the client and is never sent."""

    texture: bool | None = None
    pbr: bool | None = None
    model_version: str | None = None
    face_limit: int | None = None
    auto_size: bool | None = None
    texture_quality: str | None = None
    orientation: str | None = None
