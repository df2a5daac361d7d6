"""From a task type's steps to the jobs and rows of a request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.ai_clients.registry import Providers
from app.config import Settings
from app.domain.jobs import AssetPlan, JobPlan, Lane, Permit
from app.queue.contracts import StepPlan
from app.queue.plans import planned_jobs, shares
from app.task_types.registry import P, TaskType
from app.task_types.steps import Inputs, Planning, Step

_GENERATE_PRIORITY = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` in order; ``jobs`` of those whose number of jobs is known, in order of steps and chunks."""

    steps: tuple[StepPlan, ...]
    jobs: tuple[JobPlan, ...]
    assets: tuple[AssetPlan, ...]

    @property
    def main_job_id(self) -> UUID:
        """The job that makes what was asked for: the first of the last step that has one."""
        return next(job.id for job in self.jobs if job.step == self.jobs[-1].step)

    @property
    def providers(self) -> frozenset[str]:
        return frozenset(step.provider for step in self.steps if step.provider is not None)


class Planner:
    """``permits`` is what jobs take of their user, by job type: of no other type a job is planned."""

    def __init__(self, providers: Providers, settings: Settings, permits: Mapping[str, Permit]) -> None:
        self._providers = providers
        self._permits = permits
        self._threshold = settings.priority_threshold

    def plan(self, task_type: TaskType[P], params: P, inputs: Inputs, user_id: UUID) -> Plan:
        """Raises AppError: PROVIDER_NOT_AVAILABLE, VALIDATION_ERROR."""
        steps = self.steps(task_type, params, inputs, user_id)
        prices = shares(task_type.price(params, steps), [step.estimate_micros for step in steps])
        plans = tuple(
            self._step(step, number, micros)
            for number, (step, micros) in enumerate(zip(steps, prices, strict=True), start=1)
        )
        jobs = tuple(job for plan in plans for job in planned_jobs(plan))
        return Plan(plans, jobs, _assets(task_type.name, steps, jobs, inputs))

    def steps(self, task_type: TaskType[P], params: P, inputs: Inputs, user_id: UUID | None = None) -> Sequence[Step]:
        """What a request would be; without a user it is only asked what it would cost. Raises what ``plan`` does."""
        stands_for = None if user_id is None else hashlib.sha256(f"makeit3d:{user_id}".encode()).hexdigest()[:32]
        words = getattr(params, "words", "")
        return task_type.plan(params, inputs, Planning(self._providers, task_type.name, words, stands_for))

    @property
    def providers(self) -> Sequence[str]:
        """The names that a client may try."""
        return sorted(self._providers.names)

    def _step(self, step: Step, number: int, micros: int) -> StepPlan:
        """``micros`` is its share of the request's price. Raises ValueError."""
        if step.items_from is not None and not 0 < step.items_from < number:
            raise ValueError(f"step {number} works through what step {step.items_from} yields, which is no earlier one")
        return StepPlan(
            step=number,
            type=step.type,
            permit=self._permits[step.type],
            provider=step.provider,
            pool=step.pool,
            lane=self._lane(),
            priority=_GENERATE_PRIORITY,
            params=step.params,
            estimate_micros=step.estimate_micros,
            participants=step.participants,
            price={"micros": micros} if step.price is None else step.price,
            items=step.items,
            items_from=step.items_from,
            items_per_job=step.items_per_job,
        )

    def _lane(self) -> Lane:
        return "priority" if self._threshold <= _GENERATE_PRIORITY else "normal"


def _assets(operation: str, steps: Sequence[Step], jobs: Sequence[JobPlan], inputs: Inputs) -> tuple[AssetPlan, ...]:
    made: dict[int, dict[str, UUID]] = {}  # by step: the first output, under the column that names it as a source
    planned: list[AssetPlan] = []
    for job in jobs:
        step = steps[job.step - 1]
        several = len(step.items) > step.items_per_job  # then each item has an output, or none has
        first = job.chunk * step.items_per_job
        for output in step.outputs[first : first + step.items_per_job] if several else step.outputs:
            sources = inputs.sources.by_column()
            if output.from_step is not None:
                sources |= made[output.from_step]
            asset = AssetPlan(
                id=uuid4(),
                kind=output.kind.name,
                job_id=job.id,
                prompt=output.prompt,
                style=output.style,
                metadata={"operation": operation},
                **{name: source for name, source in sources.items() if name in output.kind.columns},
            )
            planned.append(asset)
            if output.kind.names_as is not None:
                made.setdefault(job.step, {output.kind.names_as: asset.id})
    return tuple(planned)
