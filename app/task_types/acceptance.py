"""The way in for every task type: check, plan, accept in one statement, tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
import structlog

from app.ai_clients.base import Capability
from app.ai_clients.registry import Providers
from app.db import assets, drafts
from app.db.assets import Sources
from app.domain.crash_points import Boundary, boundary
from app.domain.params import ObjectRef
from app.domain.principal import Principal
from app.domain.statuses import AssetStatus, JobStatus, asset_status
from app.domain.user_limits import UserLimits
from app.errors import AppError, ErrorCode
from app.queue import accept as queue
from app.queue.accept import DuplicateRequest, StoredRequest, TaskOwnedByAnother
from app.queue.plans import RequestPlan
from app.queue.transitions import Queue, UnknownUser
from app.services.input_resolver import InputResolver, ResolvedInput
from app.services.publisher import Publisher
from app.services.rate_limits import RateLimits
from app.services.turns import Turns
from app.task_types.planner import Planner
from app.task_types.registry import P, TaskType, provider_of
from app.task_types.steps import Inputs
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


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a request may be started: after which tasks of its user, and in how many seconds."""

    depends_on: tuple[str, ...] = ()
    expires_in: int | None = None

    def hashed_with(self, body_hash: str) -> str:
        """Another condition makes another request; none changes no hash."""
        if self == UNCONDITIONAL:
            return body_hash
        whole = [body_hash, sorted(self.depends_on), self.expires_in]
        return hashlib.sha256(orjson.dumps(whole)).hexdigest()


UNCONDITIONAL = Conditions()


@dataclass(frozen=True, slots=True)
class _Identity:
    """What makes two requests one, a key within a scope for one body, and what is kept of it."""

    task_id: str
    user_id: UUID
    scope: str
    key: str
    explicit: bool
    body_hash: str
    params: Mapping[str, Any]  # what is stored of them
    conditions: Conditions


class Acceptance:
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

    async def accept(
        self,
        principal: Principal,
        task_type: TaskType[P],
        params: P,
        *,
        task_id: str | None,
        idempotency_key: str | None,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Accepted:
        """Queue what the parameters ask for, once per idempotency key. Without a task id a new task is made; then only
        a key makes a second request a repeat.

        Raises AppError: TASK_NOT_FOUND, IDEMPOTENCY_KEY_REUSED, RATE_LIMITED, USER_LIMIT, USER_BUDGET_EXCEEDED,
        TOO_MANY_INPUTS, the INPUT_*, DRAFT_* and DEPENDENCY_* codes, PROVIDER_NOT_AVAILABLE. Nothing is written then.
        """
        identity = await self._identity(task_type, params, principal.user_id, task_id, idempotency_key, conditions)
        # a repeat looks at no input and uses up no limit; without these, accepting says that it is one
        looks = any(item.values(params) for item in task_type.inputs)
        if looks or self._rate_limits.count_any or self._user_limits.any:
            repeat = await self._repeat(identity)
            if repeat is not None:
                return repeat
        try:
            request, accepted = await self._accept_new(task_type, params, identity)
        except DuplicateRequest as duplicate:
            if duplicate.existing is not None:
                return _repeated(duplicate.existing, identity.body_hash)
            repeat = await self._repeat(identity)
            if repeat is None:  # the other one failed in this very moment
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "Please repeat the request.", retry_after=1) from None
            return repeat
        except AppError:
            # it may be its own twin, accepted a moment ago, that used up the limit
            repeat = await self._repeat(identity)
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
            task_id=request.task_id,
            request_id=str(request.id),
            job_id=str(request.job_id),
            operation=request.operation,
            jobs=len(request.jobs),
        )
        return Accepted(request.task_id, request.id, request.job_id, AssetStatus.PENDING, deduplicated=False)

    async def _identity(
        self,
        task_type: TaskType[P],
        params: P,
        user_id: UUID,
        task_id: str | None,
        key: str | None,
        conditions: Conditions,
    ) -> _Identity:
        urls = [url for found in task_type.input_urls(params).values() for url in found]
        objects = await self._resolver.objects(urls, user_id)
        body_hash = conditions.hashed_with(task_type.body_hash(params, objects))
        own = task_id or str(uuid4())
        return _Identity(
            task_id=own,
            user_id=user_id,
            scope="" if task_id is None and key is not None else own,
            key=f"body:{body_hash}" if key is None else f"key:{key}",
            explicit=key is not None,
            body_hash=body_hash,
            params=task_type.kept(params, {url: self._resolver.lasting_url(ref) for url, ref in objects.items()}),
            conditions=conditions,
        )

    async def _accept_new(
        self, task_type: TaskType[P], params: P, identity: _Identity
    ) -> tuple[RequestPlan, queue.Accepted]:
        inputs, checked = await self._inputs(task_type, params, identity.user_id)
        plan = self._planner.plan(task_type, params, inputs, identity.user_id)
        for provider in sorted(plan.providers):
            await self._rate_limits.hit(provider, identity.user_id)
        request = RequestPlan(
            id=uuid4(),
            task_id=identity.task_id,
            user_id=identity.user_id,
            operation=task_type.name,
            params=identity.params,
            scope=identity.scope,
            idempotency_key=identity.key,
            explicit_key=identity.explicit,
            body_hash=identity.body_hash,
            job_id=plan.main_job_id,
            steps=plan.steps,
            jobs=plan.jobs,
            assets=plan.assets,
            depends_on=identity.conditions.depends_on,
            expires_in=identity.conditions.expires_in,
            inputs=[item for resolved in checked if (item := resolved.checked) is not None],
            trace_id=structlog.contextvars.get_contextvars().get("trace_id"),
        )
        # the jobs' runs, in other processes, go under this span
        with (
            span("accept", own_id=request.id, task_id=request.task_id, jobs=len(plan.jobs)),
            boundary(Boundary.ACCEPT, [request.task_id]),
        ):
            return request, await self._queue.accept(request, self._user_limits)

    async def _repeat(self, identity: _Identity) -> Accepted | None:
        """The answer that an earlier request under the same key got."""
        known = await self._queue.look_up(
            task_id=identity.task_id,
            user_id=identity.user_id,
            scope=identity.scope,
            idempotency_key=identity.key,
        )
        if known.task_is_foreign:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        return None if known.existing is None else _repeated(known.existing, identity.body_hash)

    async def _inputs(self, task_type: TaskType[P], params: P, user_id: UUID) -> tuple[Inputs, list[ResolvedInput]]:
        """The type's inputs, checked; the first one's rows are what the outputs are made from."""
        urls = task_type.input_urls(params)
        objects: dict[str, tuple[ObjectRef, ...]] = {}
        resolved: list[ResolvedInput] = []
        if urls:
            async with self._looks.turn(user_id):
                for item in task_type.inputs:
                    look = self._resolver.model if item.kind == "model" else self._resolver.picture
                    # one after the other: a refusal of one leaves no look at another going on
                    found = [await look(url, user_id) for url in urls.get(item.key, ())]
                    objects[item.key] = tuple(one.ref for one in found)
                    resolved += found
        sources = resolved[0].sources if resolved else Sources()
        named = [draft for item in task_type.inputs if item.kind == "draft" for draft in item.values(params)]
        for draft in named:
            chosen = self._providers.offering(provider_of(params), Capability.TEXTURE_MODEL, wanted=task_type.name)
            sources = await self._source_of(draft, chosen.name, user_id)
        return Inputs(objects, sources), resolved

    async def _source_of(self, draft: str, provider: str, user_id: UUID) -> Sources:
        """The rows that a draft belongs to. Raises AppError: DRAFT_NOT_FOUND, DRAFT_NOT_REFINABLE."""
        found = await drafts.owned(self._database, provider=provider, provider_task_id=draft, user_id=user_id)
        if found is None:
            raise AppError(ErrorCode.DRAFT_NOT_FOUND)
        if not found.is_finished or not found.kind.endswith("-model"):
            raise AppError(ErrorCode.DRAFT_NOT_REFINABLE, "Only a finished model can be refined.")
        return await assets.source_of_draft(self._database, provider_task_id=draft, user_id=user_id)


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
