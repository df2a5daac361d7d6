"""What jobs and rows each operation of the contract becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from app.ai_clients.base import ImageRequest, ModelKind, ModelSpec
from app.ai_clients.registry import Providers
from app.config import Settings
from app.db.assets import Sources
from app.domain.commands import GenerateCommand
from app.domain.jobs import AssetKind, AssetPlan, JobPlan, JobType, Lane
from app.domain.operations import Operation, View
from app.domain.params import ImageJob, ModelJob, ObjectRef, Source, StepOutput
from app.domain.prompts import OPENAI_PROMPT_LIMIT, TRIPO_PROMPT_LIMIT, TRIPO_SKETCH_PROMPT_LIMIT, compose
from app.errors import AppError, ErrorCode

_GENERATE_PRIORITY = 50
_VIEWS: tuple[View, ...] = ("front", "left", "back", "right")


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """Checked inputs of a command."""

    pictures: Sequence[ObjectRef] = ()
    model: ObjectRef | None = None
    sources: Sources = field(default_factory=Sources)


@dataclass(frozen=True, slots=True)
class Plan:
    jobs: tuple[JobPlan, ...]
    assets: tuple[AssetPlan, ...]

    @property
    def main_job_id(self) -> UUID:
        """The job that makes what was asked for: the last one."""
        return self.jobs[-1].id

    @property
    def providers(self) -> frozenset[str]:
        return frozenset(job.provider for job in self.jobs if job.provider is not None)


class Planner:
    def __init__(self, providers: Providers, settings: Settings) -> None:
        self._providers = providers
        self._sketch_renderer = settings.sketch_renderer
        self._threshold = settings.priority_threshold

    def plan(self, command: GenerateCommand, inputs: PlanInputs, user_id: UUID) -> Plan:
        """Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        match command.operation:
            case Operation.TEXT_TO_IMAGE | Operation.IMAGE_TO_IMAGE:
                return self._images(command, inputs, user_id)
            case Operation.TEXT_TO_MODEL | Operation.IMAGE_TO_MODEL:
                views: dict[View, Source] = dict(zip(_VIEWS, inputs.pictures, strict=False))
                return self._one_model(command, inputs, self._model_job(command, views=views))
            case Operation.SKETCH_TO_MODEL:
                return self._sketch(command, inputs, user_id)
            case Operation.REFINE_MODEL:
                return self._refine(command, inputs)

    def _images(self, command: GenerateCommand, inputs: PlanInputs, user_id: UUID) -> Plan:
        job = self._image_job(command, inputs, user_id, n=command.n, sketch=False)
        concepts = tuple(self._asset(command, inputs, AssetKind.CONCEPT, job.id) for _ in range(command.n))
        return Plan((job,), concepts)

    def _one_model(self, command: GenerateCommand, inputs: PlanInputs, job: JobPlan) -> Plan:
        return Plan((job,), (self._asset(command, inputs, AssetKind.MODEL, job.id),))

    def _sketch(self, command: GenerateCommand, inputs: PlanInputs, user_id: UUID) -> Plan:
        """A concept (kept, visible) from the sketch, then the model from it."""
        if self._sketch_renderer == "none":
            views: dict[View, Source] = {"front": inputs.pictures[0]}
            return self._one_model(command, inputs, self._model_job(command, views=views))
        if self._sketch_renderer == "openai":
            concept_job = self._image_job(command, inputs, user_id, n=1, sketch=True)
            model_job = self._model_job(command, step=2, views={"front": StepOutput(1)})
        else:
            concept_job = self._rendered_sketch_job(command, inputs)
            model_job = self._model_job(command, step=2, source_step=1)
        concept = self._asset(command, inputs, AssetKind.CONCEPT, concept_job.id)
        model = self._asset(command, inputs, AssetKind.MODEL, model_job.id, concept_id=concept.id)
        return Plan((concept_job, model_job), (concept, model))

    def _refine(self, command: GenerateCommand, inputs: PlanInputs) -> Plan:
        provider = self._providers.models(command.provider, command.operation)
        params = ModelJob(
            prompt=_prompt(command, TRIPO_PROMPT_LIMIT),
            source_task_id=command.tripo_draft_task_id,
            model=inputs.model,
            options=command.options,
        )
        spec = ModelSpec(ModelKind.TEXTURE_MODEL, options=command.options)  # the import before it is free
        job = JobPlan(
            id=uuid4(),
            step=1,
            type=JobType.REFINE_MODEL,
            provider=provider.name,
            pool=provider.pool(spec),
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=params.as_json(),
            estimate_micros=provider.estimate(spec).micros,
        )
        return Plan((job,), (self._asset(command, inputs, AssetKind.REFINED_MODEL, job.id),))

    # --- jobs -----------------------------------------------------------------------------------------------

    def _image_job(
        self, command: GenerateCommand, inputs: PlanInputs, user_id: UUID, *, n: int, sketch: bool
    ) -> JobPlan:
        # for a sketch the client's provider names who makes the model
        provider = self._providers.images(None if sketch else command.provider, command.operation)
        params = ImageJob(
            prompt=_prompt(command, OPENAI_PROMPT_LIMIT),
            n=n,
            size=command.size,
            quality=command.quality,
            background=command.background,
            output_format=command.output_format,
            inputs=tuple(inputs.pictures),
            sketch=sketch,
            safety_identifier=hashlib.sha256(f"makeit3d:{user_id}".encode()).hexdigest()[:32],
        )
        request = ImageRequest(params.prompt, n=n, size=params.size, quality=params.quality, sketch=sketch)
        return JobPlan(
            id=uuid4(),
            step=1,
            type=JobType.GENERATE_IMAGES,
            provider=provider.name,
            pool=provider.pool(request),
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=params.as_json(),
            estimate_micros=provider.estimate(request, inputs=len(params.inputs)).micros,
        )

    def _rendered_sketch_job(self, command: GenerateCommand, inputs: PlanInputs) -> JobPlan:
        provider = self._providers.models(command.provider, command.operation)
        params = ModelJob(prompt=_prompt(command, TRIPO_SKETCH_PROMPT_LIMIT), views={"front": inputs.pictures[0]})
        spec = ModelSpec(ModelKind.SKETCH_TO_IMAGE)
        return JobPlan(
            id=uuid4(),
            step=1,
            type=JobType.RENDER_SKETCH,
            provider=provider.name,
            pool=provider.pool(spec),
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=params.as_json(),
            estimate_micros=provider.estimate(spec).micros,
        )

    def _model_job(
        self,
        command: GenerateCommand,
        *,
        step: int = 1,
        views: dict[View, Source] | None = None,
        source_step: int | None = None,
    ) -> JobPlan:
        provider = self._providers.models(command.provider, command.operation)
        text_only = command.operation is Operation.TEXT_TO_MODEL
        params = ModelJob(
            prompt=_prompt(command, TRIPO_PROMPT_LIMIT) if text_only else "",
            views=views or {},
            source_step=source_step,
            options=command.options,
        )
        spec = ModelSpec(ModelKind.TEXT_TO_MODEL if text_only else ModelKind.IMAGE_TO_MODEL, options=command.options)
        return JobPlan(
            id=uuid4(),
            step=step,
            type=JobType.GENERATE_MODEL,
            provider=provider.name,
            pool=provider.pool(spec),
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=params.as_json(),
            estimate_micros=provider.estimate(spec).micros,
        )

    def _lane(self) -> Lane:
        return "priority" if self._threshold <= _GENERATE_PRIORITY else "normal"

    @staticmethod
    def _asset(
        command: GenerateCommand, inputs: PlanInputs, kind: AssetKind, job_id: UUID, concept_id: UUID | None = None
    ) -> AssetPlan:
        return AssetPlan(
            id=uuid4(),
            kind=kind,
            job_id=job_id,
            prompt=command.prompt,
            style=command.style,
            source_input_asset_id=inputs.sources.input_asset_id,
            source_concept_image_id=concept_id or inputs.sources.concept_image_id,
            source_model_id=inputs.sources.model_id if kind is not AssetKind.CONCEPT else None,
            metadata={"operation": command.operation.value},
        )


def _prompt(command: GenerateCommand, limit: int) -> str:
    """Prompt and style as the provider gets them. Raises AppError(VALIDATION_ERROR) beyond the provider's limit."""
    text = compose(command.operation, command.prompt, command.style)
    if len(text) > limit:
        detail = f"Prompt and style together have {len(text)} characters; the provider takes {limit}."
        fault = {"field": "prompt", "code": "too_long", "message": detail}
        raise AppError(ErrorCode.VALIDATION_ERROR, detail, extra={"errors": [fault]})
    return text
