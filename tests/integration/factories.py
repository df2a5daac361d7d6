"""Makes users, plans and settings for tests of services and SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from app.ai_clients.registry import ProviderRegistry, build_registry
from app.calls.journal import CallIntent
from app.config import Settings
from app.container import build_task_types
from app.db.pool import Database
from app.db.workers import WorkerIdentity, renew
from app.domain.jobs import AssetPlan, JobPlan, Lane
from app.domain.operations import Operation
from app.domain.params import ObjectRef
from app.queue.contracts import StepPlan
from app.queue.plans import RequestPlan, planned_jobs
from app.task_types.planner import Planner
from app.task_types.steps import Inputs
from pydantic import SecretStr

from tests import kernel


def settings_for(dsn: str, home: Path, **changes: Any) -> Settings:  # noqa: ANN401 - values of any field
    """Settings of a test gateway; ``changes`` by field name."""
    return settings_with(build_registry(), dsn, home, **changes)


def settings_with(providers: ProviderRegistry, dsn: str, home: Path, **changes: Any) -> Settings:  # noqa: ANN401
    """Settings of a test gateway with these providers."""
    values: dict[str, Any] = {
        "environment": "sandbox",
        "home": home,
        "supabase_url": "http://127.0.0.1:1/supabase",
        "supabase_service_key": SecretStr("sb_secret_test"),
        "database_url": SecretStr(dsn),
        "redis_url": SecretStr("redis://127.0.0.1:1/0"),
        "openai_api_key": SecretStr("sk-test"),
        "tripo_api_key": SecretStr("tsk_test"),
    }
    return providers.settings(**(values | changes))


async def make_user(database: Database) -> UUID:
    user_id = uuid4()
    await database.execute("insert into auth.users (id) values ($1)", user_id)
    return user_id


async def make_draft(database: Database, user_id: UUID, provider_task_id: str) -> None:
    """A finished model in the user's own journal."""
    await database.execute(
        "insert into makeit3d.provider_calls (id, user_id, attempt, worker_id, provider, pool, kind, state,"
        " request_hash, estimate_micros, price_version, deadline, provider_task_id)"
        " values ($1, $2, 1, $1, 'tripo', 'tripo_h', 'text-to-model', 'settled', 'h', 0, 'v', now(), $3)",
        uuid4(),
        user_id,
        provider_task_id,
    )


def image_plan(
    user_id: UUID, task_id: str, *, n: int = 1, key: str | None = None, lane: Lane = "normal"
) -> RequestPlan:
    """One image job with n rows."""
    job = JobPlan(uuid4(), 1, "generate_images", "openai", "openai", lane, 50, {})
    assets = [AssetPlan(uuid4(), "concept", job.id, "a fox", None) for _ in range(n)]
    return _plan(user_id, task_id, [job], assets, key)


def model_plan(user_id: UUID, task_id: str, *, key: str | None = None) -> RequestPlan:
    job = JobPlan(uuid4(), 1, "generate_model", "tripo", "tripo_h", "normal", 50, {})
    return _plan(user_id, task_id, [job], [AssetPlan(uuid4(), "model", job.id, "a fox", None)], key)


def sketch_plan(user_id: UUID, task_id: str, *, key: str | None = None) -> RequestPlan:
    """A concept, then a model from it."""
    first = JobPlan(uuid4(), 1, "generate_images", "openai", "openai", "normal", 50, {})
    second = JobPlan(uuid4(), 2, "generate_model", "tripo", "tripo_h", "normal", 50, {})
    concept = AssetPlan(uuid4(), "concept", first.id, "a fox", None)
    model = AssetPlan(uuid4(), "model", second.id, "a fox", None, source_concept_image_id=concept.id)
    return _plan(user_id, task_id, [first, second], [concept, model], key)


def local_step(step: int, **values: Any) -> StepPlan:  # noqa: ANN401 - fields of a step
    """A step of work that nobody pays, by the plugin of the tests."""
    fixed: dict[str, Any] = {"pool": "local", "lane": "normal", "priority": 50, "permit": "none"}
    return StepPlan(step=step, type="polish_pebbles", **fixed | values)


def stepped_plan(user_id: UUID, task_id: str, *steps: StepPlan) -> RequestPlan:
    """Jobs of the steps whose items are known."""
    jobs = [job for step in steps for job in planned_jobs(step)]
    return replace(_plan(user_id, task_id, jobs, [], None), steps=steps)


def planned(
    planner: Planner,
    settings: Settings,
    operation: Operation,
    task_id: str,
    user_id: UUID,
    pictures: Sequence[ObjectRef] = (),
    **fields: Any,  # noqa: ANN401 - parameters of the type
) -> RequestPlan:
    """What accepting a client's request would write; the pictures are its inputs."""
    task_type = build_task_types(sketch_renderer=settings.sketch_renderer).named(operation.value)
    links: dict[str, Any] = {}
    if pictures:
        [item] = task_type.inputs
        links[item.fields[0]] = ["a link"] * len(pictures) if item.most > 1 else "a link"
        inputs = Inputs({item.key: tuple(pictures)})
    else:
        inputs = Inputs()
    params = task_type.params.model_validate(links | fields)
    plan = planner.plan(task_type, params, inputs, user_id)
    request = _plan(user_id, task_id, plan.jobs, plan.assets, f"key:{uuid4()}")
    kept = task_type.kept(params, {"a link": "a lasting link"})
    return replace(request, operation=task_type.name, params=kept, job_id=plan.main_job_id, steps=plan.steps)


def _plan(
    user_id: UUID, task_id: str, jobs: Sequence[JobPlan], assets: Sequence[AssetPlan], key: str | None
) -> RequestPlan:
    return RequestPlan(
        id=uuid4(),
        task_id=task_id,
        user_id=user_id,
        operation="test",
        scope=task_id,
        idempotency_key=key or f"key:{uuid4()}",
        explicit_key=key is not None and key.startswith("key:"),
        body_hash="hash",
        job_id=jobs[-1].id,
        jobs=jobs,
        assets=assets,
    )


async def accept(database: Database, plan: RequestPlan) -> RequestPlan:
    await kernel.accept(database, plan)
    return plan


async def multiply(database: Database, plan: RequestPlan, jobs: int) -> None:
    """As many claimable jobs as accepting the plan's one job so often would leave, without their rows of assets."""
    await database.execute(
        "with copies as ("
        "   insert into makeit3d.requests (id, task_id, user_id, operation, scope, idempotency_key, explicit_key,"
        "     body_hash, job_id)"
        "   select gen_random_uuid(), $1, $2, 'test', 'copies', n::text, true, 'hash', gen_random_uuid()"
        "   from generate_series(1, $3) as n returning id, job_id, idempotency_key::bigint as n"
        " ), added as ("
        "   insert into makeit3d.jobs (id, task_id, request_id, user_id, step, type, provider, pool, lane, priority,"
        "     fair_tag, status, params)"
        "   select c.job_id, $1, c.id, $2, 1, j.type, j.provider, j.pool, j.lane, j.priority, j.fair_tag + c.n,"
        "     'queued', j.params from copies c, makeit3d.jobs j where j.id = $4"
        " )"
        " update makeit3d.user_tags set tag = tag + $3 where user_id = $2",
        plan.task_id,
        plan.user_id,
        jobs - 1,
        plan.job_id,
    )


_BLOCK = """
insert into makeit3d.jobs (id, task_id, request_id, user_id, step, chunk, type, provider, pool, lane, priority,
  fair_tag, status,
  waiting_for, run_after, resume, params)
select gen_random_uuid(), j.task_id, j.request_id, j.user_id, 1, n, j.type, j.provider,
  case when b.reason is null then 'tripo_h' else (array['openai', 'tripo_h', 'tripo_p'])[1 + n % 3] end,
  (array['normal', 'priority'])[1 + n % 2], 50, n, 'queued', b.reason,
  case when b.reason = 'retry' then now() + interval '1 hour' end,
  coalesce(b.reason = 'retry', false) and n % 2 = 0, '{}'
from makeit3d.jobs j, generate_series($1::integer, $2::integer) as n, lateral (
  select (array['retry', 'user_limit', 'step', 'dependency', 'breaker', null, null])[1 + n % 7] as reason) as b
where j.id = $3
"""
_AT_A_TIME = 5000  # well within the time of a statement


async def multiply_blocked(database: Database, plan: RequestPlan, jobs: int) -> None:
    """Copies of the plan's one job that can not run: they wait for anything there is, or for a slot of ``tripo_h``."""
    for first in range(0, jobs, _AT_A_TIME):
        await database.execute(_BLOCK, first + 1, min(first + _AT_A_TIME, jobs), plan.job_id)


async def make_worker(
    database: Database, *, lanes: tuple[Lane, ...] = ("priority", "normal"), slots: int = 50
) -> WorkerIdentity:
    worker = WorkerIdentity(uuid4(), "test", "localhost", 1, lanes, slots)
    await renew(database, worker, stopping=False)
    return worker


def call_intent(provider: str = "openai", pool: str = "openai", kind: str = "text-to-image") -> CallIntent:
    """A paid call about to be made, estimated at 0.04 USD."""
    return CallIntent(uuid4(), provider, pool, kind, "hash", {}, 40_000, "test", 60.0)
