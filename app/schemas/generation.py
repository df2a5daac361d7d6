"""Bodies of the six ``/generate/*`` operations and their answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from app.domain.commands import GenerateCommand
from app.domain.operations import ModelOptions, Operation
from app.domain.prompts import OPENAI_PROMPT_LIMIT, TRIPO_PROMPT_LIMIT, compose
from app.domain.provider_limits import ModelVersion, TextureVersion
from app.schemas import fields
from app.schemas.examples import DRAFT_ID, MODEL_URL, PHOTO_URL, SKETCH_URL, TASK_ID

# the most faces of each model version; source: Tripo v3 reference
_MOST_FACES = {
    "v3.1-20260211": 1_500_000,
    "v3.0-20250812": 1_000_000,
    "v2.5-20250123": 500_000,
    "P1-20260311": 20_000,
    "P2-20260801": 50_000,
}
_FEWEST_FACES = 50
_MOST_FIELDS = 64  # more than an operation has: each that is unknown costs a fault


class _Body(BaseModel):
    # "model_" is a namespace of pydantic's own by default, and the contract has a model_version
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), str_max_length=32_000)

    operation: ClassVar[Operation]
    prompt_limit: ClassVar[int] = TRIPO_PROMPT_LIMIT

    task_id: fields.TaskId
    style: fields.Style = Field(None, description="Appended to the prompt.")
    provider: fields.Provider = None

    def command(self) -> GenerateCommand:
        """The use case's input: defaults filled in, other spellings gone."""
        values = self.model_dump(exclude_none=True)
        options = {name: values.pop(name) for name in ModelOptions.__dataclass_fields__ if name in values}
        one = values.pop("input_image_asset_url", None)
        many = values.pop("input_image_asset_urls", None)
        urls = tuple(many or ([] if one is None else [one]))
        return GenerateCommand(
            operation=self.operation,
            input_image_asset_urls=urls,
            options=ModelOptions(**options),
            set_fields=self.set_fields(),
            **values,
        )

    def set_fields(self) -> dict[str, Any]:
        """What was set to something else than its default, in one spelling; without the task's id, which the request is
        identified within, and without inputs, which their objects stand for."""
        values = self.model_dump(exclude_defaults=True, exclude_none=True, exclude={"task_id"})
        return {name: value for name, value in values.items() if not name.endswith(("_asset_url", "_asset_urls"))}

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if isinstance(data, Mapping) and len(cast("Mapping[str, Any]", data)) > _MOST_FIELDS:
            raise ValueError(f"A body may have {_MOST_FIELDS} fields.")
        return data

    @model_validator(mode="after")
    def _prompt_with_style_fits(self) -> Self:
        prompt: str | None = getattr(self, "prompt", None)
        if prompt and len(compose(self.operation, prompt, self.style)) > self.prompt_limit:
            raise ValueError(f"Prompt and style together may have {self.prompt_limit} characters.")
        return self


class _ImageBody(_Body):
    prompt_limit = OPENAI_PROMPT_LIMIT

    prompt: fields.ImagePrompt
    n: Annotated[int, fields.Whole] = Field(1, strict=True, ge=1, le=10, description="How many images. Each is paid.")
    background: Literal["auto", "opaque", "transparent"] | None = None
    size: fields.ImageSize | None = Field(None, description="auto, or WIDTHxHEIGHT in multiples of 16.")
    quality: Literal["auto", "low", "medium", "high"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None

    @model_validator(mode="after")
    def _transparency_has_a_format(self) -> Self:
        if self.background == "transparent" and self.output_format == "jpeg":
            raise ValueError("A transparent background needs png or webp.")
        return self


class TextToImage(_ImageBody):
    operation = Operation.TEXT_TO_IMAGE
    model_config = ConfigDict(
        json_schema_extra={"example": {"task_id": TASK_ID, "prompt": "a small wooden rowing boat", "n": 2}}
    )


class ImageToImage(_ImageBody):
    operation = Operation.IMAGE_TO_IMAGE
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "task_id": TASK_ID,
                "prompt": "as a clay figurine on a plain background",
                "input_image_asset_url": PHOTO_URL,
                "n": 2,
            }
        }
    )

    input_image_asset_url: fields.AssetUrl


class _ModelBody(_Body):
    texture: bool | None = Field(None, strict=True, description="false also leaves out PBR maps.")
    pbr: bool | None = Field(None, strict=True)
    model_version: ModelVersion | None = Field(None, description="Default: as the gateway is configured.")
    face_limit: Annotated[int | None, fields.Whole] = Field(
        None, strict=True, ge=_FEWEST_FACES, le=max(_MOST_FACES.values())
    )
    auto_size: bool | None = Field(None, strict=True, description="Scale to real size, in metres.")
    texture_quality: Literal["standard", "detailed", "extreme"] | None = None
    orientation: Literal["default", "align_image"] | None = Field(None, description="Counts for image inputs.")

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.texture is False and self.pbr:
            raise ValueError("PBR maps need texture.")
        if self.model_version and self.face_limit and self.face_limit > _MOST_FACES[self.model_version]:
            raise ValueError(f"{self.model_version} makes at most {_MOST_FACES[self.model_version]} faces.")
        return self


class TextToModel(_ModelBody):
    operation = Operation.TEXT_TO_MODEL
    model_config = ConfigDict(
        json_schema_extra={"example": {"task_id": TASK_ID, "prompt": "a small wooden rowing boat", "face_limit": 30000}}
    )

    prompt: fields.ModelPrompt


class ImageToModel(_ModelBody):
    operation = Operation.IMAGE_TO_MODEL
    model_config = ConfigDict(
        json_schema_extra={"example": {"task_id": TASK_ID, "input_image_asset_urls": [PHOTO_URL], "pbr": True}}
    )

    prompt: fields.OptionalModelPrompt = Field(None, description="Kept with the model; the pictures say what is made.")
    input_image_asset_urls: Annotated[list[fields.AssetUrl], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Views of one object in the order front, left, back, right; the front alone is enough."
    )
    input_image_asset_url: fields.AssetUrl | None = Field(None, description="Instead of a list of one.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.input_image_asset_urls is None) == (self.input_image_asset_url is None):
            raise ValueError("Send either input_image_asset_urls or input_image_asset_url.")
        return self


class SketchToModel(_ModelBody):
    operation = Operation.SKETCH_TO_MODEL
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"task_id": TASK_ID, "input_sketch_asset_url": SKETCH_URL, "prompt": "a chair of bent oak"}
        }
    )

    input_sketch_asset_url: fields.AssetUrl
    prompt: fields.OptionalModelPrompt = None


class RefineModel(_Body):
    """A draft keeps its mesh and gets a new texture of high quality."""

    operation = Operation.REFINE_MODEL
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"task_id": TASK_ID, "tripo_draft_task_id": DRAFT_ID, "prompt": "weathered oak, brass fittings"}
        }
    )

    tripo_draft_task_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,128}$",
        validation_alias=AliasChoices("tripo_draft_task_id", "draft_model_task_id"),
        description="The provider task of a model of yours: provider_task_id in the status of its job. Also accepted as"
        " draft_model_task_id.",
    )
    input_model_asset_url: fields.AssetUrl | None = Field(
        None, description=f"A GLB of your own instead, such as {MODEL_URL}; it needs a prompt."
    )
    prompt: fields.OptionalModelPrompt = None
    texture: Literal[True] | None = None
    pbr: bool | None = Field(None, strict=True)
    model_version: TextureVersion | None = None
    texture_quality: Literal["fast", "standard", "detailed", "extreme"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.tripo_draft_task_id is None) == (self.input_model_asset_url is None):
            raise ValueError("Send either tripo_draft_task_id or input_model_asset_url.")
        if self.input_model_asset_url is not None and not self.prompt:
            raise ValueError("A model of your own needs a prompt: nothing else says how it should look.")
        return self


class TaskAccepted(BaseModel):
    """The request is queued. Repeats under the same idempotency key get the same answer."""

    task_id: str
    request_id: UUID
    job_id: UUID = Field(description="The job that makes what was asked for.")
    celery_task_id: UUID = Field(description="The same as job_id, for older clients.")
    status: Literal["pending", "processing", "complete", "failed", "canceled"]
    status_url: str
    deduplicated: bool = Field(description="True when an earlier request with this key was found.")
