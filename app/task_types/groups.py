"""Groups of parameters, each declared once; a task type is composed of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from app.domain.asset_kinds import AssetKind
from app.domain.operations import ModelOptions, Operation
from app.domain.prompts import compose
from app.task_types import fields
from app.task_types.params import Params
from app.task_types.steps import Output

_MOST_FACES = 2**31 - 1  # a provider makes fewer


class Worded(Params):
    """Words that say what is made. A type adds ``prompt``, needed or optional; ``operation`` says how they are put."""

    operation: ClassVar[Operation]

    style: fields.Style = Field(None, description="Appended to the prompt.")

    @property
    def words(self) -> str:
        """The client's prompt; empty without one."""
        return getattr(self, "prompt", None) or ""

    def text(self) -> str:
        """Prompt and style as a provider gets them."""
        return compose(self.operation, self.words, self.style)

    def output(self, kind: AssetKind, *, from_step: int | None = None) -> Output:
        """An asset that keeps the words it was asked for with."""
        return Output(kind, prompt=self.words, style=self.style, from_step=from_step)


class Provided(Params):
    """The client may name who makes it."""

    provider: fields.Provider = None


class ImageOptions(Params):
    """How many images, and how they are drawn."""

    n: Annotated[int, fields.Whole] = Field(1, strict=True, ge=1, le=10, description="How many images. Each is paid.")
    background: Literal["auto", "opaque", "transparent"] | None = None
    size: fields.ImageSize | None = Field(None, description="auto, or WIDTHxHEIGHT as the provider takes it.")
    quality: Literal["auto", "low", "medium", "high"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None

    @model_validator(mode="after")
    def _transparency_has_a_format(self) -> Self:
        if self.background == "transparent" and self.output_format == "jpeg":
            raise ValueError("A transparent background needs png or webp.")
        return self


class MeshOptions(Params):
    """How a 3D model is made."""

    texture: bool | None = Field(None, strict=True, description="false also leaves out PBR maps.")
    pbr: bool | None = Field(None, strict=True)
    model_version: fields.Choice | None = Field(None, description="Default: as the gateway is configured.")
    face_limit: Annotated[int | None, fields.Whole] = Field(None, strict=True, ge=1, le=_MOST_FACES)
    auto_size: bool | None = Field(None, strict=True, description="Scale to real size, in metres.")
    texture_quality: fields.Choice | None = None
    orientation: fields.Choice | None = Field(None, description="Counts for image inputs.")

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.texture is False and self.pbr:
            raise ValueError("PBR maps need texture.")
        return self

    def options(self) -> ModelOptions:
        """As providers get them."""
        return ModelOptions(
            texture=self.texture,
            pbr=self.pbr,
            model_version=self.model_version,
            face_limit=self.face_limit,
            auto_size=self.auto_size,
            texture_quality=self.texture_quality,
            orientation=self.orientation,
        )


class ModelParams(MeshOptions, Provided, Worded):
    """A 3D model; the type adds what it is made from."""
