"""Concept images from a text."""

from __future__ import annotations

from app.domain.operations import Operation
from app.task_types.concepts import ConceptParams, concept_step
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class TextToImage(ConceptParams):
    operation = Operation.TEXT_TO_IMAGE


def _plan(params: TextToImage, inputs: Inputs, planning: Planning) -> list[Step]:
    del inputs
    return [concept_step(params, (), planning)]


TEXT_TO_IMAGE = TaskType(
    name="text-to-image",
    label="Text to image",
    description="Concept images from a text.",
    category="generation",
    params=TextToImage,
    plan=_plan,
    example={"prompt": "a small wooden rowing boat", "n": 2},
    aliases=("text_to_image",),
)
