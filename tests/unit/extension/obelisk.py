"""A task type that the product does not know: a concept image from words, then a 3D model of it, at its own price."""

from __future__ import annotations

from collections.abc import Sequence

from app.ai_clients.base import Capability
from app.domain.jobs import AssetKind
from app.domain.operations import Operation
from app.domain.params import ImageJob, ModelJob, StepOutput
from app.task_types import fields
from app.task_types.groups import ModelParams
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step
from pydantic import Field

_FEE_MICROS = 50_000  # for each obelisk, beside what the providers take


class Obelisk(ModelParams):
    operation = Operation.TEXT_TO_IMAGE

    prompt: fields.Prompt
    surface: str = Field("smooth", pattern="^(smooth|carved)$", description="How its sides look.")


def _plan(params: Obelisk, inputs: Inputs, planning: Planning) -> list[Step]:
    del inputs
    drawing = ImageJob(f"{params.text()} It is {params.surface}.", 1)
    mesh = ModelJob("", views={"front": StepOutput(1)}, options=params.options())
    concept, model = params.output(AssetKind.CONCEPT), params.output(AssetKind.MODEL, from_step=1)
    return [
        planning.images(drawing, concept),
        planning.model(Capability.IMAGE_TO_MODEL, mesh, model, provider=params.provider),
    ]


def _price(params: Obelisk, steps: Sequence[Step]) -> int:
    fee = 2 * _FEE_MICROS if params.surface == "carved" else _FEE_MICROS
    return sum(step.estimate_micros for step in steps) + fee


OBELISK = TaskType(
    name="obelisk",
    label="Obelisk",
    description="A concept image from words, then a 3D model of it.",
    category="generation",
    params=Obelisk,
    plan=_plan,
    price=_price,
    example={"prompt": "a fox", "surface": "carved"},
    aliases=("monolith",),
)
