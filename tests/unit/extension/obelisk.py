"""A task type that the product does not know: a picture of an obelisk from words, then a film of its sides being
polished, at its own price."""

from __future__ import annotations

from collections.abc import Sequence

from app.ai_clients.registry import LOCAL
from app.domain.operations import Operation
from app.domain.params import ImageJob
from app.outputs.kinds import CONCEPT
from app.task_types import fields
from app.task_types.groups import Provided, Worded
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step
from pydantic import Field

from tests.unit.extension.video import VIDEO

_FEE_MICROS = 50_000  # for each obelisk, beside what the providers take


class Obelisk(Provided, Worded):
    operation = Operation.TEXT_TO_IMAGE

    prompt: fields.Prompt
    surface: str = Field("smooth", pattern="^(smooth|carved)$", description="How its sides look.")
    sides: int = Field(4, ge=3, le=12)
    seconds_each: float = Field(0.0, ge=0, le=10, description="How long one side is polished.")


def _plan(params: Obelisk, inputs: Inputs, planning: Planning) -> list[Step]:
    del inputs
    drawing = ImageJob(f"{params.text()} It is {params.surface}.", 1)
    sides = [f"side-{number}" for number in range(1, params.sides + 1)]
    polishing = {"pebbles": sides, "seconds_each": params.seconds_each, "pictured_by": 1}
    return [
        planning.images(drawing, params.output(CONCEPT), provider=params.provider),
        Step("polish_pebbles", None, LOCAL, polishing, outputs=(params.output(VIDEO, from_step=1),)),
    ]


def _price(params: Obelisk, steps: Sequence[Step]) -> int:
    fee = 2 * _FEE_MICROS if params.surface == "carved" else _FEE_MICROS
    return sum(step.estimate_micros for step in steps) + fee


OBELISK = TaskType(
    name="obelisk",
    label="Obelisk",
    description="A picture of an obelisk from words, then a film of its sides being polished.",
    category="generation",
    params=Obelisk,
    plan=_plan,
    price=_price,
    example={"prompt": "a fox", "surface": "carved"},
    aliases=("monolith",),
)
