"""A 3D model from one to four views of an object."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from app.ai_clients.base import Capability
from app.domain.operations import Operation
from app.domain.params import ModelJob
from app.outputs.kinds import MODEL
from app.task_types import fields
from app.task_types.examples import PHOTO_URL
from app.task_types.groups import ModelParams
from app.task_types.inputs import VIEW_ORDER, VIEWS
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class ImageToModel(ModelParams):
    operation = Operation.IMAGE_TO_MODEL

    prompt: fields.OptionalPrompt = Field(None, description="Kept with the model; the pictures say what is made.")
    input_image_asset_urls: Annotated[list[fields.AssetUrl], Field(min_length=1, max_length=VIEWS.most)] | None = Field(
        None, description="Views of one object in the order front, left, back, right; the front alone is enough."
    )
    input_image_asset_url: fields.AssetUrl | None = Field(None, description="Instead of a list of one.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.input_image_asset_urls is None) == (self.input_image_asset_url is None):
            raise ValueError("Send either input_image_asset_urls or input_image_asset_url.")
        return self


def _plan(params: ImageToModel, inputs: Inputs, planning: Planning) -> list[Step]:
    views = dict(zip(VIEW_ORDER, inputs.all(VIEWS.key), strict=False))
    job = ModelJob("", views=views, options=params.options())
    model = params.output(MODEL)
    return [planning.model(Capability.IMAGE_TO_MODEL, job, model, provider=params.provider)]


IMAGE_TO_MODEL = TaskType(
    name="image-to-model",
    label="Image to 3D model",
    description="A 3D model from one to four views of an object.",
    category="generation",
    params=ImageToModel,
    plan=_plan,
    example={"input_image_asset_urls": [PHOTO_URL], "pbr": True},
    inputs=(VIEWS,),
    aliases=("image_to_model",),
)
