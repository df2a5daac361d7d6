"""What jobs and rows each operation of the contract becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from app.ai_clients.base import Capability, ImageRequest, ModelRequest, PolledProvider, Provider
from app.ai_clients.registry import Providers
from app.config import Settings
from app.db.assets import Sources
from app.domain.commands import GenerateCommand
from app.domain.jobs import AssetKind, AssetPlan, JobPlan, Lane
from app.domain.operations import Operation, View
from app.domain.params import ImageJob, ModelJob, ObjectRef, Source, StepOutput
from app.domain.prompts import compose
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
        capability = Capability.IMAGE_TO_IMAGE if inputs.pictures else Capability.TEXT_TO_IMAGE
        provider = self._providers.offering(command.provider, capability, wanted=command.operation.value)
        job = self._image_job(command, inputs, user_id, provider, n=command.n, sketch=False)
        concepts = tuple(self._asset(command, inputs, AssetKind.CONCEPT, job.id) for _ in range(command.n))
        return Plan((job,), concepts)

    def _one_model(self, command: GenerateCommand, inputs: PlanInputs, job: JobPlan) -> Plan:
        return Plan((job,), (self._asset(command, inputs, AssetKind.MODEL, job.id),))

    def _sketch(self, command: GenerateCommand, inputs: PlanInputs, user_id: UUID) -> Plan:
        """A concept (kept, visible) from the sketch, then the model from it."""
        if self._sketch_renderer == "none":
            views: dict[View, Source] = {"front": inputs.pictures[0]}
            return self._one_model(command, inputs, self._model_job(command, views=views))
        renderer = self._providers.offering(
            self._sketch_renderer, Capability.SKETCH_TO_IMAGE, wanted=command.operation.value
        )
        if isinstance(renderer, PolledProvider):
            concept_job = self._rendered_sketch_job(command, inputs, renderer)
        else:
            concept_job = self._image_job(command, inputs, user_id, renderer, n=1, sketch=True)
        model_job = self._model_job(command, step=2, views={"front": StepOutput(1)})
        if isinstance(renderer, PolledProvider) and model_job.provider == renderer.name:
            model_job = self._model_job(command, step=2, source_step=1)
        concept = self._asset(command, inputs, AssetKind.CONCEPT, concept_job.id)
        model = self._asset(command, inputs, AssetKind.MODEL, model_job.id, concept_id=concept.id)
        return Plan((concept_job, model_job), (concept, model))

    def _refine(self, command: GenerateCommand, inputs: PlanInputs) -> Plan:
        capability = Capability.TEXTURE_MODEL  # the import before it is free
        provider = self._providers.offering(command.provider, capability, wanted=command.operation.value)
        params = ModelJob(
            prompt=_prompt(command, provider, capability),
            source_task_id=command.tripo_draft_task_id,
            model=inputs.model,
            options=command.options,
        )
        spec = ModelRequest(capability, options=command.options)
        job = JobPlan(
            id=uuid4(),
            step=1,
            type="refine_model",
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
        self,
        command: GenerateCommand,
        inputs: PlanInputs,
        user_id: UUID,
        provider: Provider,
        *,
        n: int,
        sketch: bool,
    ) -> JobPlan:
        drawn = Capability.IMAGE_TO_IMAGE if inputs.pictures else Capability.TEXT_TO_IMAGE
        params = ImageJob(
            prompt=_prompt(command, provider, Capability.SKETCH_TO_IMAGE if sketch else drawn),
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
            type="generate_images",
            provider=provider.name,
            pool=provider.pool(request),
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=params.as_json(),
            estimate_micros=provider.estimate(request, inputs=len(params.inputs)).micros,
        )

    def _rendered_sketch_job(self, command: GenerateCommand, inputs: PlanInputs, provider: Provider) -> JobPlan:
        capability = Capability.SKETCH_TO_IMAGE
        params = ModelJob(prompt=_prompt(command, provider, capability), views={"front": inputs.pictures[0]})
        spec = ModelRequest(capability)
        return JobPlan(
            id=uuid4(),
            step=1,
            type="render_sketch",
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
        text_only = command.operation is Operation.TEXT_TO_MODEL
        capability = Capability.TEXT_TO_MODEL if text_only else Capability.IMAGE_TO_MODEL
        provider = self._providers.offering(command.provider, capability, wanted=command.operation.value)
        params = ModelJob(
            prompt=_prompt(command, provider, capability) if text_only else "",
            views=views or {},
            source_step=source_step,
            options=command.options,
        )
        spec = ModelRequest(capability, options=command.options)
        return JobPlan(
            id=uuid4(),
            step=step,
            type="generate_model",
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


def _prompt(command: GenerateCommand, provider: Provider, capability: Capability) -> str:
    """Prompt and style as the provider gets them. Raises AppError(VALIDATION_ERROR) beyond the provider's limit."""
    text = compose(command.operation, command.prompt, command.style)
    limit = provider.capabilities[capability].prompt_characters
    if limit is not None and len(text) > limit:
        detail = f"Prompt and style together have {len(text)} characters; the provider takes {limit}."
        fault = {"field": "prompt", "code": "too_long", "message": detail}
        raise AppError(ErrorCode.VALIDATION_ERROR, detail, extra={"errors": [fault]})
    return text
