"""Concept images from a picture."""

from __future__ import annotations

from app.domain.operations import Operation
from app.task_types import fields
from app.task_types.concepts import ConceptParams, concept_step
from app.task_types.examples import PHOTO_URL
from app.task_types.inputs import PICTURE
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class ImageToImage(ConceptParams):
    operation = Operation.IMAGE_TO_IMAGE

    input_image_asset_url: fields.AssetUrl


def _plan(params: ImageToImage, inputs: Inputs, planning: Planning) -> list[Step]:
    return [concept_step(params, inputs.all(PICTURE.key), planning)]


IMAGE_TO_IMAGE = TaskType(
    name="image-to-image",
    label="Image to image",
    description="Concept images from a picture.",
    category="generation",
    params=ImageToImage,
    plan=_plan,
    example={"prompt": "as a clay figurine on a plain background", "input_image_asset_url": PHOTO_URL, "n": 2},
    inputs=(PICTURE,),
    aliases=("image_to_image",),
)
