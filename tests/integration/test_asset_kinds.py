"""Kinds of assets that the product does not know, beside its own: one that shares a table, and one with its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from app.config import Settings
from app.db import assets, jobs, tasks
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.asset_kinds import AssetKinds
from app.domain.jobs import AssetPlan, AssetSlot, ClaimedJob, Failed, Settlement
from app.domain.user_limits import NO_LIMITS
from app.errors import ErrorCode
from app.outputs.kinds import KINDS, MODEL
from app.queue.numbers import renumber
from app.queue.plans import RequestPlan
from app.services.audit import audit_rows
from app.services.doctor.schema import SCHEMA
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.retries import Retries

from tests import kernel
from tests.chaos.databases import run_script, run_sql
from tests.integration.doctor_world import REGISTRY, World, examined
from tests.integration.factories import image_plan, make_user, make_worker
from tests.integration.http_gateway import DeafBells
from tests.servers import PostgresServer
from tests.unit.extension.registry import VIDEOS
from tests.unit.extension.video import VIDEO

TOY = replace(
    MODEL, name="toy", key_template="models/{task_id}/toy{_number}.{extension}", result_field="toy_url", names_as=None
)
ALL = AssetKinds([*KINDS, TOY, VIDEO])
SHARED = """
alter table public.models drop constraint models_kind_check,
  add check (kind in ('model', 'refined_model', 'toy'));
"""


@pytest.fixture
async def db(settings: Settings) -> AsyncGenerator[Database]:
    opened = await Database.open(settings, ALL, application_name="makeit3d kinds test")
    await opened.execute(SHARED)
    await opened.execute(VIDEOS.read_text(encoding="utf-8"))
    await pool_rows.ensure(opened, {"openai": ("openai", 10)})
    yield opened
    await opened.close()


async def planned(db: Database, task_id: str) -> RequestPlan:
    """One job that makes two toys of a model, and a film."""
    plan = image_plan(await make_user(db), task_id)
    (job,) = plan.jobs
    model = AssetPlan(uuid4(), "model", job.id, "a fox", None)
    toys = [AssetPlan(uuid4(), "toy", job.id, "a fox", None, source_model_id=model.id) for _ in range(2)]
    return replace(plan, assets=[model, *toys, AssetPlan(uuid4(), "video", job.id, "a fox", None)])


async def claimed(db: Database) -> ClaimedJob:
    worker = await make_worker(db)
    (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
    return job


def numbers(slots: list[AssetSlot] | None) -> list[tuple[str, int]]:
    return sorted((slot.kind, slot.number) for slot in slots or [])


async def test_outputs_of_all_kinds_are_numbered_each_for_itself(db: Database, settings: Settings) -> None:
    plan = await planned(db, "task-kinds-1")
    await kernel.accept(db, plan)
    job = await claimed(db)
    slots = (await assets.slots_of(db, [job.claim.job_id]))[job.claim.job_id]
    assert numbers(slots) == [("model", 0), ("toy", 0), ("toy", 1), ("video", 0)]
    # a second paid call stores under fresh names
    renumbered = await renumber(db, job.claim)
    assert numbers(renumbered) == [("model", 1), ("toy", 2), ("toy", 3), ("video", 1)]
    assert await db.fetchval("select reserved from makeit3d.tasks") == {"model": 2, "toy": 4, "video": 2}
    assert await renumber(db, replace(job.claim, attempt=7)) is None
    assert plan.user_id is not None
    rows = await tasks.status(db, plan.task_id, plan.user_id)
    assert rows is not None
    assert sorted((row["kind"], row["status"]) for row in rows.assets) == [
        (kind, "processing") for kind in ("model", "toy", "toy", "video")
    ]
    record = await jobs.record(db, job.claim.job_id, events=9)
    assert record is not None
    assert [row["kind"] for row in record.assets] == ["model", "toy", "toy", "video"]
    found = await audit_rows(db, settings)
    assert found.differences == []
    await db.execute("update public.videos set status = 'complete', asset_url = 'http://x/film.mp4'")
    found = await audit_rows(db, settings)
    assert {item.invariant.name for item in found.differences} == {"asset_status", "asset_has_file", "asset_events"}


async def test_a_repeat_makes_the_same_rows_anew(db: Database) -> None:
    plan = await planned(db, "task-kinds-2")
    await kernel.accept(db, plan)
    await kernel.finish(db, [Settlement(await claimed(db), Failed(ErrorCode.PROVIDER_TASK_FAILED, "It broke."))])
    notifier = Notifier(db)
    publisher = Publisher(kernel.queue_of(db), DeafBells(), notifier, NO_LIMITS)
    try:
        retries = Retries(kernel.queue_of(db), publisher)
        await retries.retry(await retries.find(plan.task_id), may_pay_again=True)
    finally:
        await publisher.aclose()
        await notifier.aclose()
    made = "select id, kind, number, source_model_id from public.models where status = 'pending' order by kind, number"
    model, *toys = await db.fetch(made)
    assert [(row["kind"], row["number"]) for row in (model, *toys)] == [("model", 1), ("toy", 2), ("toy", 3)]
    assert [row["source_model_id"] for row in toys] == [model["id"]] * 2, "made from the new model"
    assert await db.fetchval("select number from public.videos where status = 'pending'") == 1


async def test_a_kind_that_nobody_registered_is_not_accepted(db: Database) -> None:
    plan = await planned(db, "task-kinds-3")
    assets_of_plan = [*plan.assets, replace(plan.assets[0], id=uuid4(), kind="hologram")]
    with pytest.raises(ValueError, match="hologram"):
        await kernel.accept(db, replace(plan, assets=assets_of_plan))
    assert await db.fetchval("select count(*) from makeit3d.tasks") == 0


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("drop table public.videos", "table_missing", ("public.videos",)),
        ("alter table public.videos drop column width", "columns_wrong", ("videos", "width")),
        ("alter table public.videos disable row level security", "row_security_off", ("videos",)),
        ("revoke select on public.videos from authenticated", "browsers_may_not_read", ("videos",)),
        ("grant insert on public.videos to authenticated", "browsers_may_write", ("videos",)),
    ],
)
def test_the_doctor_looks_at_the_tables_of_all_kinds(
    postgres18: PostgresServer, tmp_path: Path, sql: str, code: str, words: tuple[str, ...]
) -> None:
    with World.built(postgres18, tmp_path) as world:
        registry = replace(REGISTRY, asset_kinds=AssetKinds([*KINDS, VIDEO]))
        run_script(world.dsn, VIDEOS.read_text(encoding="utf-8"))
        assert [f.entry.code for f in examined(world.settings, [SCHEMA], registry)] == []
        run_sql(world.dsn, sql)
        (found,) = examined(world.settings, [SCHEMA], registry)
    assert found.entry.code == code
    assert [word for word in words if word not in found.seen] == []
