"""Poison ends, stays visible, and an operator runs it again: nothing that was completed or paid is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
from app.ai_clients.errors import Advice, Refused
from app.container import user_limits
from app.db import assets, jobs, tasks, workers
from app.db.pool import Database
from app.domain.operations import Operation
from app.errors import ErrorCode
from app.services.audit import audit_rows
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.retries import NotRetried, Retries

from tests import kernel
from tests.chaos.gates import GatedImages, GatedModels, GatedStorage
from tests.integration.factories import accept, make_user, make_worker, sketch_plan
from tests.integration.workshop import RoomBells, Workshop, open_workshop, retry

pytestmark = pytest.mark.chaos

IMAGE, MODEL = 40_000, 200_000  # what the fakes charge, USD micros
DOWN = Refused(ErrorCode.PROVIDER_UNAVAILABLE, "not reached", advice=Advice.RETRY)
REFUSED = Refused(ErrorCode.PROVIDER_CONTENT_REFUSED, "no")


@pytest.fixture
async def shop(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Workshop]:
    async with open_workshop(
        db, database, tmp_path, images=GatedImages(), models=GatedModels(), storage=GatedStorage, max_attempts=3
    ) as opened:
        yield opened


async def fail(shop: Workshop, operation: Operation, task: str, **fields: Any) -> None:  # noqa: ANN401 - a command's
    status = await shop.finished(await shop.ask(operation, task, **fields))
    assert "failed" in {job["status"] for job in status.jobs}


async def assert_clean(shop: Workshop) -> None:
    findings = await audit_rows(shop.db, shop.settings)
    assert findings.clean, findings


async def test_poison_ends_is_listed_and_runs_again_when_the_cause_is_gone(shop: Workshop, retries: Retries) -> None:
    for _ in range(shop.settings.max_attempts):
        shop.images.ledger.refuse_next(DOWN)
    await fail(shop, Operation.TEXT_TO_IMAGE, "task-poison-1", n=2)
    (listed,) = await jobs.failed(shop.db, limit=10)
    assert (listed.task_id, listed.error_code, listed.failures) == ("task-poison-1", "provider_unavailable", 3)
    assert (listed.cost_micros, listed.paid_again_micros, listed.keeps_paid_work) == (0, 0, False)
    before = await shop.status("task-poison-1")
    await retry(retries, str(listed.job_id))
    status = await shop.finished("task-poison-1")
    assert status.retry_of == before.request_id
    record = await jobs.record(shop.db, status.job_id, events=1)
    assert record is not None
    assert record.job["trace_id"], "the retry's log lines would not meet"
    assert [asset["status"] for asset in status.assets] == ["complete"] * 2
    # names are never used twice, and what failed stays as it ended
    assert await shop.keys() == ["concepts/task-poison-1/2.png", "concepts/task-poison-1/3.png"]
    old = await tasks.status(shop.db, str(before.job_id), shop.user)
    assert old is not None
    assert [job["status"] for job in old.jobs] == ["failed"]
    assert [asset["status"] for asset in old.assets] == ["failed"] * 2
    assert await jobs.failed(shop.db, limit=10) == []
    assert shop.images.ledger.paid_calls == 1


async def test_a_job_that_kills_its_workers_ends_with_its_steps_and_is_listed(db: Database) -> None:
    user = await make_user(db)
    await accept(db, sketch_plan(user, "task-poison-2"))
    for _ in range(3):
        worker = await make_worker(db)
        found = await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)
        assert len(found.jobs) == 1
        await db.execute("update makeit3d.jobs set started_at = now() - interval '1 minute'")
        await workers.remove(db, worker.id)
        await kernel.sweep(db, ttl_seconds=10, max_crashes=3)
    rows = await db.fetch("select status, error_code from makeit3d.jobs")
    assert [tuple(row) for row in rows] == [("failed", "worker_crashed")] * 2
    (listed,) = await jobs.failed(db, limit=10)
    assert (listed.step, listed.crashes) == (1, 3)
    task = await tasks.get(db, "task-poison-2", user)
    assert task is not None
    assert task.status == "failed"


async def test_a_completed_step_is_kept(shop: Workshop, retries: Retries) -> None:
    shop.models.ledger.refuse_next(REFUSED)
    picture = await shop.put_picture()
    await fail(shop, Operation.SKETCH_TO_MODEL, "task-poison-3", pictures=[picture])
    (listed,) = await jobs.failed(shop.db, limit=10)
    assert listed.step == 2
    assert (listed.cost_micros, listed.paid_again_micros) == (IMAGE, 0)
    await retry(retries, "task-poison-3")
    status = await shop.finished("task-poison-3")
    assert [(job["step"], job["status"]) for job in status.jobs] == [(2, "completed")]
    assert (shop.images.ledger.paid_calls, shop.models.ledger.paid_calls) == (1, 1)
    assert "models/task-poison-3/model_1.glb" in await shop.keys()
    concept = await shop.db.fetchval("select id from concept_images")
    assert await shop.db.fetchval("select array_agg(source_concept_image_id) from models") == [concept] * 2
    await assert_clean(shop)


async def test_both_steps_run_again_when_the_first_failed(shop: Workshop, retries: Retries) -> None:
    shop.images.ledger.refuse_next(REFUSED)
    await fail(shop, Operation.SKETCH_TO_MODEL, "task-poison-4", pictures=[await shop.put_picture()])
    await retry(retries, "task-poison-4")
    status = await shop.finished("task-poison-4")
    assert [job["status"] for job in status.jobs] == ["completed"] * 2
    made = await shop.db.fetchrow("select * from models where status = 'complete'")
    assert made is not None
    (source,) = await assets.outputs_of_step(shop.db, status.request_id, 1)
    assert str(made["source_concept_image_id"]) == source["files"][0]["asset_id"]
    (asked,) = await shop.db.fetch("select params, count(*) from makeit3d.requests group by params")
    assert asked["count"] == 2
    assert asked["params"] == {"prompt": "a fox", "input_sketch_asset_url": "a lasting link"}
    await assert_clean(shop)


async def test_a_model_that_was_paid_and_could_not_be_stored_is_not_paid_again(
    shop: Workshop, retries: Retries
) -> None:
    models = cast("GatedModels", shop.models)
    models.corrupt = True
    await fail(shop, Operation.TEXT_TO_MODEL, "task-poison-5")
    (listed,) = await jobs.failed(shop.db, limit=10)
    assert (listed.error_code, listed.cost_micros) == ("provider_result_invalid", MODEL)
    assert (listed.keeps_paid_work, listed.paid_again_micros) == (True, 0)
    # again in vain, and a retry of the retry still knows
    await retry(retries, "task-poison-5")
    await shop.finished("task-poison-5")
    models.corrupt = False
    await retry(retries, "task-poison-5")
    status = await shop.finished("task-poison-5")
    assert status.jobs[0]["status"] == "completed"
    assert models.ledger.posts == 1
    assert await shop.calls() == [("settled", None, MODEL)]
    assert await shop.db.fetchval("select sum(cost_micros) from makeit3d.jobs") == MODEL
    await assert_clean(shop)


async def test_a_model_still_at_the_provider_is_waited_for(db: Database, database: str, tmp_path: Path) -> None:
    models = GatedModels(polls=10**9)
    async with open_workshop(
        db, database, tmp_path, models=models, time_limits={"generate_model": 1.5}, tripo_h_slots=1
    ) as shop:
        await fail(shop, Operation.TEXT_TO_MODEL, "task-poison-6")
        (listed,) = await jobs.failed(db, limit=10)
        assert (listed.error_code, listed.keeps_paid_work) == ("deadline_exceeded", True)
        await shop.workers.pop().aclose()
        shop.settings.time_limits = {}
        await shop.start()
        notifier = Notifier(db)
        publisher = Publisher(kernel.queue_of(db), RoomBells(shop.workers), notifier, user_limits(shop.settings))
        await retry(Retries(kernel.queue_of(db), publisher), "task-poison-6")
        await publisher.aclose()
        await notifier.aclose()
        await shop.until("task-poison-6", lambda s: s.jobs[0]["status"] == "running")
        models.finish_all()
        assert (await shop.finished("task-poison-6")).jobs[0]["status"] == "completed"
        assert models.ledger.posts == 1


async def test_what_may_be_paid_twice_needs_to_be_allowed(shop: Workshop, retries: Retries) -> None:
    shop.images.ledger.lose_next_reply()
    await fail(shop, Operation.TEXT_TO_IMAGE, "task-poison-7")
    (listed,) = await jobs.failed(shop.db, limit=10)
    assert (listed.error_code, listed.paid_again_micros) == ("provider_outcome_unknown", IMAGE)
    with pytest.raises(NotRetried, match="--may-pay-again"):
        await retry(retries, "task-poison-7")
    assert shop.images.ledger.posts == 1
    await retry(retries, "task-poison-7", may_pay_again=True)
    assert (await shop.finished("task-poison-7")).jobs[0]["status"] == "completed"
    assert shop.images.ledger.paid_calls == 2  # as allowed


async def test_a_request_is_retried_once_whoever_asks(shop: Workshop, retries: Retries) -> None:
    shop.models.ledger.refuse_next(REFUSED)
    await fail(shop, Operation.TEXT_TO_MODEL, "task-poison-8")
    failed = await retries.find("task-poison-8")
    answers = await asyncio.gather(
        *(retries.retry(failed, may_pay_again=False) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(answer, NotRetried) for answer in answers) == 4
    await shop.finished("task-poison-8")
    assert shop.models.ledger.paid_calls == 1
    with pytest.raises(NotRetried, match="already retried"):
        await retry(retries, str(failed.job_id))
    with pytest.raises(NotRetried, match="not failed"):
        await retry(retries, "task-poison-8")
    with pytest.raises(NotRetried, match="no such"):
        await retry(retries, "task-nobody-knows")


async def test_canceled_work_is_not_retried(shop: Workshop, retries: Retries) -> None:
    shop.models.polls = 10**9
    task = await shop.ask(Operation.TEXT_TO_MODEL, "task-poison-9")
    await kernel.cancel(shop.db, task, shop.user)
    with pytest.raises(NotRetried, match="not failed"):
        await retry(retries, task)
    cast("GatedModels", shop.models).finish_all()


async def test_the_list_can_be_narrowed(shop: Workshop) -> None:
    for number, error in enumerate((REFUSED, Refused(ErrorCode.PROVIDER_KEY_REJECTED, "no"))):
        shop.images.ledger.refuse_next(error)
        await fail(shop, Operation.TEXT_TO_IMAGE, f"task-narrow-{number}")

    async def listed(limit: int = 10, **choice: Any) -> list[str]:  # noqa: ANN401 - ways to choose
        return [item.task_id for item in await jobs.failed(shop.db, limit=limit, **choice)]

    assert await listed() == ["task-narrow-1", "task-narrow-0"]
    assert await listed(code="provider_key_rejected") == ["task-narrow-1"]
    assert await listed(user_id=shop.user, limit=1) == ["task-narrow-1"]
    assert await listed(user_id=await make_user(shop.db)) == []
    await shop.db.execute(
        "update makeit3d.jobs set finished_at = now() - interval '2 hours' where task_id = 'task-narrow-0'"
    )
    assert await listed(since_seconds=3600.0) == ["task-narrow-1"]


async def test_a_record_tells_the_story_without_secrets(shop: Workshop) -> None:
    task = await shop.ask(Operation.TEXT_TO_MODEL, "task-record-1", prompt="a very private fox")
    status = await shop.finished(task)
    found = await jobs.record(shop.db, status.job_id, events=10)
    assert found is not None
    assert [call["state"] for call in found.calls] == ["settled"]
    assert sorted(file["kind"] for file in found.files) == ["model", "preview"]
    assert [row["status"] for row in found.assets] == ["complete"]
    assert (found.events[0]["status"], found.events[-1]["status"]) == ("queued", "completed")
    text = repr(found)
    assert "private" not in text
    keys = await shop.db.fetch("select content_key from makeit3d.files")
    assert not any(row["content_key"] in text for row in keys)
