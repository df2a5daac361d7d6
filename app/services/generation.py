"""The generation use case: check, plan, accept in one statement, ring."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from app.ai_clients.registry import Providers
from app.db import assets, provider_calls, requests
from app.db.pool import Database
from app.db.requests import DuplicateRequest, RequestPlan, StoredRequest, TaskOwnedByAnother, UnknownUser
from app.domain.commands import GenerateCommand
from app.domain.crash_points import Boundary, boundary
from app.domain.jobs import Lane
from app.domain.operations import Operation
from app.domain.principal import Principal
from app.domain.statuses import AssetStatus, CallState, JobStatus, asset_status
from app.domain.user_limits import UserLimits
from app.errors import AppError, ErrorCode
from app.services.bells import Bells
from app.services.input_resolver import InputResolver, ResolvedInput
from app.services.notifier import Notifier
from app.services.plans import PlanInputs, Planner
from app.services.rate_limits import RateLimits
from app.services.turns import Turns
from app.services.vacancies import Vacancies
from app.tracing import span

log = structlog.get_logger(__name__)

_POLL_HINT_SECONDS = 2.0
# requests of one user whose inputs are fetched and decoded at a time, and how many there may be with those that wait
_LOOKS_AT_ONCE = 2
MOST_LOOKS = 64


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an accepted request, the same for every repeat of it."""

    task_id: str
    request_id: UUID
    job_id: UUID
    status: AssetStatus
    deduplicated: bool
    retry_after: float = _POLL_HINT_SECONDS  # seconds


class Generation:
    def __init__(
        self,
        database: Database,
        resolver: InputResolver,
        providers: Providers,
        planner: Planner,
        rate_limits: RateLimits,
        user_limits: UserLimits,
        bells: Bells,
        vacancies: Vacancies,
        notifier: Notifier,
    ) -> None:
        self._database = database
        self._resolver = resolver
        self._providers = providers
        self._planner = planner
        self._rate_limits = rate_limits
        self._user_limits = user_limits
        self._bells = bells
        self._vacancies = vacancies
        self._notifier = notifier
        self._looks = Turns(at_once=_LOOKS_AT_ONCE, most=MOST_LOOKS)

    async def accept(self, principal: Principal, command: GenerateCommand, *, idempotency_key: str | None) -> Accepted:
        """Queue what the command asks for, once per idempotency key.

        Raises AppError: TASK_NOT_FOUND, IDEMPOTENCY_KEY_REUSED, RATE_LIMITED, USER_LIMIT, USER_BUDGET_EXCEEDED,
        TOO_MANY_INPUTS, the INPUT_* and DRAFT_* codes, PROVIDER_NOT_AVAILABLE. Nothing is written then.
        """
        user_id = principal.user_id
        urls = [url for found in command.input_urls.values() for url in found]
        body_hash = command.body_hash(await self._resolver.objects(urls, user_id))
        key = f"body:{body_hash}" if idempotency_key is None else f"key:{idempotency_key}"
        repeat = await self._repeat(command.task_id, user_id, key, body_hash)
        if repeat is not None:
            return repeat
        inputs, checked = await self._inputs(command, user_id)
        plan = self._planner.plan(command, inputs, user_id)
        for provider in sorted(plan.providers):
            await self._rate_limits.hit(provider, user_id)
        request = RequestPlan(
            id=uuid4(),
            task_id=command.task_id,
            user_id=user_id,
            operation=command.operation.value,
            scope=command.task_id,
            idempotency_key=key,
            explicit_key=idempotency_key is not None,
            body_hash=body_hash,
            job_id=plan.main_job_id,
            jobs=plan.jobs,
            assets=plan.assets,
            inputs=[item for resolved in checked if (item := resolved.checked) is not None],
            trace_id=structlog.contextvars.get_contextvars().get("trace_id"),
        )
        try:
            # the jobs' runs, in other processes, go under this span
            with (
                span("accept", own_id=request.id, task_id=command.task_id, jobs=len(plan.jobs)),
                boundary(Boundary.ACCEPT, [command.task_id]),
            ):
                waits = await requests.accept(self._database, request, self._user_limits)
        except DuplicateRequest:
            repeat = await self._repeat(command.task_id, user_id, key, body_hash)
            if repeat is None:  # the other one failed in this very moment
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "Please repeat the request.", retry_after=1) from None
            return repeat
        except AppError:
            # it may be its own twin, accepted a moment ago, that used up the limit
            repeat = await self._repeat(command.task_id, user_id, key, body_hash)
            if repeat is None:
                raise
            return repeat
        except TaskOwnedByAnother:
            raise AppError(ErrorCode.TASK_NOT_FOUND) from None
        except UnknownUser:
            raise AppError(ErrorCode.UNAUTHENTICATED, "The user no longer exists.") from None
        lanes: set[Lane] = {job.lane for job in plan.jobs}
        self._bells.ring(lanes)
        if waits:  # a place may have come free while this was written, and nobody saw that it was wanted
            await self._vacancies.announce(users=[user_id])
        self._notifier.changed([(command.task_id, user_id)])
        log.info(
            "request_accepted",
            task_id=command.task_id,
            request_id=str(request.id),
            job_id=str(request.job_id),
            operation=request.operation,
            jobs=len(plan.jobs),
        )
        return Accepted(command.task_id, request.id, request.job_id, AssetStatus.PENDING, deduplicated=False)

    async def _repeat(self, task_id: str, user_id: UUID, key: str, body_hash: str) -> Accepted | None:
        """The answer that an earlier request under the same key got."""
        known = await requests.look_up(
            self._database, task_id=task_id, user_id=user_id, scope=task_id, idempotency_key=key
        )
        if known.task_is_foreign:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        if known.existing is None:
            return None
        if known.existing.body_hash != body_hash:
            raise AppError(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                "This key already stands for another request of the task. Use a new key for another request.",
            )
        return _accepted(known.existing)

    async def _inputs(self, command: GenerateCommand, user_id: UUID) -> tuple[PlanInputs, list[ResolvedInput]]:
        urls = list(command.input_image_asset_urls)
        if command.input_sketch_asset_url is not None:
            urls.append(command.input_sketch_asset_url)
        if command.operation is Operation.REFINE_MODEL:
            return await self._refine_inputs(command, user_id)
        if not urls:
            return PlanInputs(), []
        async with self._looks.turn(user_id):
            # one after the other: a refusal of one leaves no look at another going on
            pictures = [await self._resolver.picture(url, user_id) for url in urls]
        return PlanInputs([picture.ref for picture in pictures], sources=pictures[0].sources), pictures

    async def _refine_inputs(self, command: GenerateCommand, user_id: UUID) -> tuple[PlanInputs, list[ResolvedInput]]:
        if command.input_model_asset_url is not None:
            async with self._looks.turn(user_id):
                model = await self._resolver.model(command.input_model_asset_url, user_id)
            return PlanInputs(model=model.ref, sources=model.sources), [model]
        draft = command.tripo_draft_task_id
        if draft is None:
            raise AppError(ErrorCode.VALIDATION_ERROR, "Name a draft or a model to refine.")
        provider = self._providers.models(command.provider, command.operation)
        call = await provider_calls.owned_task(
            self._database, provider=provider.name, provider_task_id=draft, user_id=user_id
        )
        if call is None:
            raise AppError(ErrorCode.DRAFT_NOT_FOUND)
        if call.state is not CallState.SETTLED or call.error_code is not None or not call.kind.endswith("-model"):
            raise AppError(ErrorCode.DRAFT_NOT_REFINABLE, "Only a finished model can be refined.")
        sources = await assets.source_of_draft(self._database, provider_task_id=draft, user_id=user_id)
        return PlanInputs(sources=sources), []


def _accepted(request: StoredRequest) -> Accepted:
    return Accepted(
        request.task_id,
        request.id,
        request.job_id,
        asset_status(JobStatus(request.status)),
        deduplicated=True,
    )
