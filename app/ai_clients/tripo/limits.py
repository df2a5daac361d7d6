"""What Tripo takes. Source: Tripo v3's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.ai_clients.base import Capability
from app.ai_clients.limits import Limits

ModelVersion = Literal["v3.1-20260211", "v3.0-20250812", "v2.5-20250123", "P1-20260311", "P2-20260801"]
TextureVersion = Literal["v3.5-20260815", "v3.0-20250812", "v2.5-20250123"]

PROMPT_CHARACTERS = 1_024
SKETCH_PROMPT_CHARACTERS = 1_800

# calls that an account may have under way, by pool
CALLS_AT_A_TIME: Mapping[str, int] = {"tripo_h": 10, "tripo_p": 5, "tripo_image": 1, "tripo_texture": 5}

LEAST_POLL_SECONDS = 1.0  # no more often than this

# the most faces of each model version
_MOST_FACES: Mapping[str, int] = {
    "v3.1-20260211": 1_500_000,
    "v3.0-20250812": 1_000_000,
    "v2.5-20250123": 500_000,
    "P1-20260311": 20_000,
    "P2-20260801": 50_000,
}
_FEWEST_FACES = 50

_Faces = Annotated[int, Field(ge=_FEWEST_FACES, le=max(_MOST_FACES.values()))]


class ModelOptions(BaseModel):
    """Options of a new model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    texture: bool | None = None
    pbr: bool | None = None
    model_version: ModelVersion | None = None
    face_limit: _Faces | None = None
    auto_size: bool | None = None
    texture_quality: Literal["standard", "detailed", "extreme"] | None = None
    orientation: Literal["default", "align_image"] | None = None

    @model_validator(mode="after")
    def _faces_fit_the_version(self) -> Self:
        if self.model_version and self.face_limit and self.face_limit > _MOST_FACES[self.model_version]:
            raise ValueError(f"{self.model_version} makes at most {_MOST_FACES[self.model_version]} faces.")
        return self


class TextureOptions(BaseModel):
    """Options of a new texture for a model that is there."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    texture: Literal[True] | None = None
    pbr: bool | None = None
    model_version: TextureVersion | None = None
    texture_quality: Literal["fast", "standard", "detailed", "extreme"] | None = None


_MODEL = Limits(PROMPT_CHARACTERS, ModelOptions)

CAPABILITIES: Mapping[Capability, Limits] = {
    Capability.TEXT_TO_MODEL: _MODEL,
    Capability.IMAGE_TO_MODEL: _MODEL,
    Capability.MULTIVIEW_TO_MODEL: _MODEL,
    Capability.SKETCH_TO_IMAGE: Limits(SKETCH_PROMPT_CHARACTERS),
    Capability.IMPORT_MODEL: Limits(),
    Capability.TEXTURE_MODEL: Limits(PROMPT_CHARACTERS, TextureOptions),
}
