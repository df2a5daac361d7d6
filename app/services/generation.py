"""The generation use case: check, plan, accept in one statement, ring."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from app.ai_clients.base import Capability
from app.ai_clients.registry import Providers
from app.db import assets, provider_calls
from app.domain.commands import GenerateCommand
from app.domain.crash_points import Boundary, boundary
from app.domain.operations import Operation
from app.domain.principal import Principal
from app.domain.statuses import AssetStatus, CallState, JobStatus, asset_status
from app.domain.user_limits import UserLimits
from app.errors import AppError, ErrorCode
from app.queue import transitions as queue
from app.queue.plans import RequestPlan
from app.queue.transitions import DuplicateRequest, Queue, StoredRequest, TaskOwnedByAnother, UnknownUser
from app.services.input_resolver import InputResolver, ResolvedInput
from app.services.plans import PlanInputs, Planner
from app.services.publisher import Publisher
from app.services.rate_limits import RateLimits
from app.services.turns import Turns
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
        queue: Queue,
        resolver: InputResolver,
        providers: Providers,
        planner: Planner,
        rate_limits: RateLimits,
        user_limits: UserLimits,
        publisher: Publisher,
    ) -> None:
        self._queue = queue
        self._database = queue.database
        self._resolver = resolver
        self._providers = providers
        self._planner = planner
        self._rate_limits = rate_limits
        self._user_limits = user_limits
        self._publisher = publisher
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
        # a repeat looks at no input and uses up no limit; without these, accepting says that it is one
        if urls or command.tripo_draft_task_id or self._rate_limits.count_any or self._user_limits.any:
            repeat = await self._repeat(command.task_id, user_id, key, body_hash)
            if repeat is not None:
                return repeat
        try:
            request, accepted = await self._accept_new(
                command, user_id, key, body_hash, explicit=idempotency_key is not None
            )
        except DuplicateRequest as duplicate:
            if duplicate.existing is not None:
                return _repeated(duplicate.existing, body_hash)
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
        self._publisher.publish(accepted.committed)
        log.info(
            "request_accepted",
            task_id=command.task_id,
            request_id=str(request.id),
            job_id=str(request.job_id),
            operation=request.operation,
            jobs=len(request.jobs),
        )
        return Accepted(command.task_id, request.id, request.job_id, AssetStatus.PENDING, deduplicated=False)

    async def _accept_new(
        self, command: GenerateCommand, user_id: UUID, key: str, body_hash: str, *, explicit: bool
    ) -> tuple[RequestPlan, queue.Accepted]:
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
            explicit_key=explicit,
            body_hash=body_hash,
            job_id=plan.main_job_id,
            jobs=plan.jobs,
            assets=plan.assets,
            inputs=[item for resolved in checked if (item := resolved.checked) is not None],
            trace_id=structlog.contextvars.get_contextvars().get("trace_id"),
        )
        # the jobs' runs, in other processes, go under this span
        with (
            span("accept", own_id=request.id, task_id=command.task_id, jobs=len(request.jobs)),
            boundary(Boundary.ACCEPT, [command.task_id]),
        ):
            return request, await self._queue.accept(request, self._user_limits)

    async def _repeat(self, task_id: str, user_id: UUID, key: str, body_hash: str) -> Accepted | None:
        """The answer that an earlier request under the same key got."""
        known = await self._queue.look_up(task_id=task_id, user_id=user_id, scope=task_id, idempotency_key=key)
        if known.task_is_foreign:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        return None if known.existing is None else _repeated(known.existing, body_hash)

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
        provider = self._providers.offering(command.provider, Capability.TEXTURE_MODEL, wanted=command.operation.value)
        call = await provider_calls.owned_task(
            self._database, provider=provider.name, provider_task_id=draft, user_id=user_id
        )
        if call is None:
            raise AppError(ErrorCode.DRAFT_NOT_FOUND)
        if call.state is not CallState.SETTLED or call.error_code is not None or not call.kind.endswith("-model"):
            raise AppError(ErrorCode.DRAFT_NOT_REFINABLE, "Only a finished model can be refined.")
        sources = await assets.source_of_draft(self._database, provider_task_id=draft, user_id=user_id)
        return PlanInputs(sources=sources), []


def _repeated(request: StoredRequest, body_hash: str) -> Accepted:
    if request.body_hash != body_hash:
        raise AppError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED,
            "This key already stands for another request of the task. Use a new key for another request.",
        )
    return Accepted(
        request.task_id,
        request.id,
        request.job_id,
        asset_status(JobStatus(request.status)),
        deduplicated=True,
    )
