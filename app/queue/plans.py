"""What accepting a request writes, and how it is handed to the statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from app.domain.jobs import AssetPlan, JobPlan
from app.queue.contracts import AcceptedJob, AcceptedRequest, StepPlan


@dataclass(frozen=True, slots=True)
class CheckedInput:
    """An ``input_assets`` row whose object was seen and checked."""

    id: UUID
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Everything one accepted POST writes."""

    id: UUID
    task_id: str
    user_id: UUID
    operation: str
    scope: str
    idempotency_key: str
    explicit_key: bool
    body_hash: str
    job_id: UUID
    jobs: Sequence[JobPlan]
    assets: Sequence[AssetPlan]
    inputs: Sequence[CheckedInput] = ()
    retry_of: UUID | None = None
    trace_id: str | None = None  # of the HTTP request, W3C: 32 hex digits
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what was set, in the task type's own words
    steps: Sequence[StepPlan] = ()  # all of them, also those whose jobs come later
    depends_on: Sequence[str] = ()  # tasks of the user that must be completed first
    expires_in: float | None = None  # seconds in which it must be started

    @property
    def participants(self) -> frozenset[str]:
        return frozenset(name for job in self.jobs for name in job.participants)

    @property
    def estimate_micros(self) -> int:
        """What its paid calls may cost, also those of steps whose jobs are made later."""
        known = {job.step for job in self.jobs}
        later = sum(step.estimate_micros for step in self.steps if step.step not in known)
        return sum(job.estimate_micros for job in self.jobs) + later

    def as_accepted(self) -> AcceptedRequest:
        return AcceptedRequest(self.id, self.task_id, self.user_id, self.operation, self.retry_of)

    def jobs_by_participant(self) -> dict[str, list[AcceptedJob]]:
        found: dict[str, list[AcceptedJob]] = {}
        for job in self.jobs:
            accepted = AcceptedJob(job.id, job.type, job.step, job.estimate_micros, job.price)
            for name in job.participants:
                found.setdefault(name, []).append(accepted)
        return found

    def arguments(self, permits: Mapping[str, int] | None, *, blocked: bool = False) -> Mapping[str, Any]:
        """Of the statement ``accept``; ``permits`` is how many jobs of each class may start now, None: all that can.
        ``blocked``: none may, for it depends on what is not completed."""
        first = min(job.step for job in self.jobs)
        last = max([job.step for job in self.jobs] + [step.step for step in self.steps])
        return {
            "task_id": self.task_id,
            "user_id": self.user_id,
            "reserved": dict(Counter(asset.kind for asset in self.assets)),
            "request_id": self.id,
            "operation": self.operation,
            "scope": self.scope,
            "idempotency_key": self.idempotency_key,
            "explicit_key": self.explicit_key,
            "body_hash": self.body_hash,
            "job_id": self.job_id,
            "retry_of": self.retry_of,
            "params": dict(self.params),
            "steps": [step.as_json() for step in self.steps],
            "jobs": [
                _job(job, later=job.step > first, has_next=job.step < last)
                | ({} if job.step > first else {"blocked": blocked, "expires_in": self.expires_in})
                for job in self.jobs
            ],
            "assets": [_asset(asset, position) for position, asset in enumerate(self.assets)],
            "inputs": [{"id": str(item.id), "width": item.width, "height": item.height} for item in self.inputs],
            "permits": permits,
            "trace_id": self.trace_id,
            "sources": _sources(self.assets) or None,
        }


def planned_jobs(step: StepPlan) -> tuple[JobPlan, ...]:
    """The jobs of a step when its request is accepted; none where its items are not known yet."""
    if step.items_from is not None:
        return ()
    chunks = [step.items[first : first + step.items_per_job] for first in range(0, len(step.items), step.items_per_job)]
    count = max(1, len(chunks))
    estimates = shares(step.estimate_micros, [1] * count)
    prices = [step.price] * count
    if step.price is not None and "micros" in step.price:
        prices = [{**step.price, "micros": micros} for micros in shares(step.price["micros"], [1] * count)]
    return tuple(
        JobPlan(
            id=uuid4(),
            step=step.step,
            chunk=chunk,
            type=step.type,
            permit=step.permit,
            provider=step.provider,
            pool=step.pool,
            lane=step.lane,
            priority=step.priority,
            params=step.params,
            estimate_micros=estimates[chunk],
            participants=step.participants,
            price=prices[chunk],
            items=chunks[chunk] if chunks else (),
        )
        for chunk in range(count)
    )


def shares(whole: int, weights: Sequence[int]) -> list[int]:
    """The whole in parts of these weights; what does not divide, and all where nothing weighs, goes to the last."""
    total = sum(weights)
    parts = [whole * weight // total if total else 0 for weight in weights]
    parts[-1] += whole - sum(parts)
    return parts


def _job(job: JobPlan, *, later: bool, has_next: bool) -> dict[str, Any]:
    """``later`` says that another job of the request comes first."""
    return {
        "id": str(job.id),
        "step": job.step,
        "chunk": job.chunk,
        "type": job.type,
        "permit": job.permit,
        "provider": job.provider,
        "pool": job.pool,
        "lane": job.lane,
        "priority": job.priority,
        "estimate_micros": job.estimate_micros,
        "params": dict(job.params),
        "later": later,
        "has_next": has_next,
        "retry_of": None if job.retry_of is None else str(job.retry_of),
        "paid": job.keeps_paid_work,
        "participants": list(job.participants),
        "items": list(job.items) or None,
        "price": None if job.price is None else dict(job.price),
    } | ({} if job.kept is None else job.kept.as_json())


def _sources(assets: Sequence[AssetPlan]) -> list[UUID]:
    """The rows outside the plan that its assets are made from."""
    own = {asset.id for asset in assets}
    named = {
        source
        for asset in assets
        for source in (asset.source_input_asset_id, asset.source_concept_image_id, asset.source_model_id)
        if source is not None
    }
    return sorted(named - own)


def _asset(asset: AssetPlan, position: int) -> dict[str, Any]:
    def text(value: UUID | None) -> str | None:
        return None if value is None else str(value)

    return {
        "id": str(asset.id),
        "kind": asset.kind,
        "position": position,
        "job_id": str(asset.job_id),
        "prompt": asset.prompt,
        "style": asset.style,
        "source_input_asset_id": text(asset.source_input_asset_id),
        "source_concept_image_id": text(asset.source_concept_image_id),
        "source_model_id": text(asset.source_model_id),
        "metadata": dict(asset.metadata),
    }
