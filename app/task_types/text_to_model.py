"""A 3D model from a text."""

from __future__ import annotations

from app.ai_clients.base import Capability
from app.domain.operations import Operation
from app.domain.params import ModelJob
from app.outputs.kinds import MODEL
from app.task_types import fields
from app.task_types.groups import ModelParams
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class TextToModel(ModelParams):
    operation = Operation.TEXT_TO_MODEL

    prompt: fields.Prompt


def _plan(params: TextToModel, inputs: Inputs, planning: Planning) -> list[Step]:
    del inputs
    job = ModelJob(params.text(), options=params.options())
    model = params.output(MODEL)
    return [planning.model(Capability.TEXT_TO_MODEL, job, model, provider=params.provider)]


TEXT_TO_MODEL = TaskType(
    name="text-to-model",
    label="Text to 3D model",
    description="A 3D model from a text.",
    category="generation",
    params=TextToModel,
    plan=_plan,
    example={"prompt": "a small wooden rowing boat", "face_limit": 30000},
    aliases=("text_to_model",),
)
