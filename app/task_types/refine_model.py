"""A new, finer texture for a model that is there."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from app.ai_clients.base import Capability
from app.domain.operations import ModelOptions, Operation
from app.domain.params import ModelJob
from app.outputs.kinds import REFINED_MODEL
from app.task_types import fields
from app.task_types.examples import DRAFT_ID, MODEL_URL
from app.task_types.groups import Provided, Worded
from app.task_types.inputs import DRAFT, MODEL
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class RefineModel(Provided, Worded):
    """A draft keeps its mesh and gets a new texture of high quality."""

    operation = Operation.REFINE_MODEL

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
    prompt: fields.OptionalPrompt = None
    texture: Literal[True] | None = None
    pbr: bool | None = Field(None, strict=True)
    model_version: fields.Choice | None = None
    texture_quality: fields.Choice | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.tripo_draft_task_id is None) == (self.input_model_asset_url is None):
            raise ValueError("Send either tripo_draft_task_id or input_model_asset_url.")
        if self.input_model_asset_url is not None and not self.prompt:
            raise ValueError("A model of your own needs a prompt: nothing else says how it should look.")
        return self

    def options(self) -> ModelOptions:
        """As providers get them."""
        return ModelOptions(
            texture=self.texture, pbr=self.pbr, model_version=self.model_version, texture_quality=self.texture_quality
        )


def _plan(params: RefineModel, inputs: Inputs, planning: Planning) -> list[Step]:
    job = ModelJob(
        params.text(),
        source_task_id=params.tripo_draft_task_id,
        model=inputs.one(MODEL.key),
        options=params.options(),
    )
    return [
        planning.model(
            Capability.TEXTURE_MODEL,  # the import before it is free
            job,
            params.output(REFINED_MODEL),
            type="refine_model",
            provider=params.provider,
        )
    ]


REFINE_MODEL = TaskType(
    name="refine-model",
    label="Refine a 3D model",
    description="A new, finer texture for a model that is there.",
    category="generation",
    params=RefineModel,
    plan=_plan,
    example={"tripo_draft_task_id": DRAFT_ID, "prompt": "weathered oak, brass fittings"},
    inputs=(DRAFT, MODEL),
    aliases=("refine_model",),
)
