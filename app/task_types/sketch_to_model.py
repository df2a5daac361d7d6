"""A concept image from a sketch, kept and visible, then a 3D model from it."""

from __future__ import annotations

from app.ai_clients.base import Capability, PolledProvider
from app.domain.operations import Operation
from app.domain.params import ImageJob, ModelJob, StepOutput
from app.outputs.kinds import CONCEPT, MODEL
from app.task_types import fields
from app.task_types.examples import SKETCH_URL
from app.task_types.groups import ModelParams
from app.task_types.inputs import SKETCH
from app.task_types.registry import TaskType
from app.task_types.steps import Inputs, Planning, Step


class SketchToModel(ModelParams):
    operation = Operation.SKETCH_TO_MODEL

    input_sketch_asset_url: fields.AssetUrl
    prompt: fields.OptionalPrompt = None


def sketch_to_model(renderer: str | None = None) -> TaskType[SketchToModel]:
    """``renderer`` is the provider that makes the concept: None, the first that can; ``none``, nobody."""

    def plan(params: SketchToModel, inputs: Inputs, planning: Planning) -> list[Step]:
        [sketch] = inputs.all(SKETCH.key)

        def mesh(job: ModelJob, *, from_step: int | None = 1) -> Step:
            # the client's provider names who makes the model
            model = params.output(MODEL, from_step=from_step)
            return planning.model(Capability.IMAGE_TO_MODEL, job, model, provider=params.provider)

        options, concept = params.options(), params.output(CONCEPT)
        if renderer == "none":
            return [mesh(ModelJob("", views={"front": sketch}, options=options), from_step=None)]
        artist = planning.offering(renderer, Capability.SKETCH_TO_IMAGE)
        after = mesh(ModelJob("", views={"front": StepOutput(1)}, options=options))
        if not isinstance(artist, PolledProvider):
            image = ImageJob(params.text(), 1, inputs=(sketch,), sketch=True)
            return [planning.images(image, concept, provider=artist.name), after]
        if after.provider == artist.name:
            after = mesh(ModelJob("", source_step=1, options=options))
        drawing = ModelJob(params.text(), views={"front": sketch})
        made = planning.model(Capability.SKETCH_TO_IMAGE, drawing, concept, type="render_sketch", provider=artist.name)
        return [made, after]

    return TaskType(
        name="sketch-to-model",
        label="Sketch to 3D model",
        description="A concept image from a sketch, then a 3D model from it.",
        category="generation",
        params=SketchToModel,
        plan=plan,
        example={"input_sketch_asset_url": SKETCH_URL, "prompt": "a chair of bent oak"},
        inputs=(SKETCH,),
        aliases=("sketch_to_model",),
    )
