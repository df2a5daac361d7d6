"""The engine with fakes at its far ends and a real database: paid once, settled truly, whatever goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from app.ai_clients.errors import Advice, Refused
from app.db.pool import Database
from app.domain.operations import Operation
from app.errors import ErrorCode
from prometheus_client import REGISTRY

from tests import kernel
from tests.chaos.gates import GatedStorage
from tests.integration.workshop import PATIENCE, Workshop, open_workshop, workshop

__all__ = ["Workshop", "workshop"]


async def test_images_become_files_rows_and_a_booked_call(workshop: Workshop) -> None:
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-1", n=3)
    status = await workshop.finished(task)
    assert [asset["status"] for asset in status.assets] == ["complete"] * 3
    assert await workshop.keys() == [f"concepts/{task}/{number}.png" for number in range(3)]
    assert await workshop.calls() == [("settled", None, 120_000)]
    assert workshop.images.ledger.paid_calls == 1
    assert not list((workshop.settings.home / "spool").iterdir())
    states = await workshop.db.fetch("select distinct state from makeit3d.files")
    assert [row["state"] for row in states] == ["stored"]


async def test_a_model_is_polled_and_stored_with_its_preview(workshop: Workshop) -> None:
    task = await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-2")
    status = await workshop.finished(task)
    assert [asset["status"] for asset in status.assets] == ["complete"]
    assert await workshop.keys() == [f"models/{task}/model.glb", f"models/{task}/model.preview.webp"]
    assert await workshop.calls() == [("settled", None, 200_000)]


async def test_a_model_and_its_preview_are_stored_at_once(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, storage=GatedStorage) as shop:
        assert isinstance(shop.storage, GatedStorage)
        shop.storage.only = ".glb"
        shop.storage.before.hold()
        task = await shop.ask(Operation.TEXT_TO_MODEL, "task-engine-18")
        await shop.storage.before.until_reached()
        async with asyncio.timeout(PATIENCE):
            while await shop.keys() != [f"models/{task}/model.preview.webp"]:
                await asyncio.sleep(0.02)
        shop.storage.before.release()
        assert (await shop.finished(task)).jobs[0]["status"] == "completed"
        assert await shop.keys() == [f"models/{task}/model.glb", f"models/{task}/model.preview.webp"]


async def test_a_job_of_an_unknown_type_keeps_no_other_job_back(workshop: Workshop) -> None:
    plan = workshop.plan(Operation.TEXT_TO_IMAGE, "task-future-1")
    await kernel.accept(workshop.db, plan)
    await workshop.db.execute("update makeit3d.jobs set type = 'of_the_future'")
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_IMAGE, "task-today-1"))
    assert status.jobs[0]["status"] == "completed"
    assert [(job["status"], job["progress"]) for job in (await workshop.status("task-future-1")).jobs] == [
        ("queued", 0)
    ]
    assert await workshop.db.fetchval("select attempt from makeit3d.jobs where type = 'of_the_future'") == 0
    handled = await workshop.db.fetchval("select job_types from makeit3d.workers")
    assert handled == ["generate_images", "generate_model", "refine_model", "render_sketch"]


async def test_a_final_refusal_ends_the_job_with_its_code_and_costs_nothing(workshop: Workshop) -> None:
    workshop.images.ledger.refuse_next(Refused(ErrorCode.PROVIDER_CONTENT_REFUSED, "no"))
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-3"))
    assert (status.jobs[0]["error_code"], status.assets[0]["error_code"]) == ("provider_content_refused",) * 2
    assert await workshop.calls() == [("refused", "provider_content_refused", 0)]


async def test_a_full_provider_only_delays(workshop: Workshop) -> None:
    busy = Refused(ErrorCode.PROVIDER_BUSY, "full", advice=Advice.DEFER, retry_after=0.05)
    for _ in range(3):
        workshop.models.ledger.refuse_next(busy)
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-4"))
    assert status.jobs[0]["status"] == "completed"
    assert await workshop.db.fetchval("select failures from makeit3d.jobs") == 0
    assert workshop.models.ledger.paid_calls == 1


async def test_repeated_failures_end_after_the_allowed_attempts(workshop: Workshop) -> None:
    for _ in range(10):
        workshop.images.ledger.refuse_next(Refused(ErrorCode.PROVIDER_UNAVAILABLE, "not reached", advice=Advice.RETRY))
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-5"))
    assert status.jobs[0]["error_code"] == "provider_unavailable"
    assert workshop.images.ledger.posts == workshop.settings.max_attempts
    assert workshop.images.ledger.paid_calls == 0


async def test_a_lost_image_reply_is_never_sent_again(workshop: Workshop) -> None:
    workshop.images.ledger.lose_next_reply()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-6"))
    assert status.jobs[0]["error_code"] == "provider_outcome_unknown"
    assert workshop.images.ledger.posts == 1
    # the slot is free again and the possible cost is booked
    assert await workshop.calls() == [("settled", "provider_outcome_unknown", 40_000)]
    assert await workshop.db.fetchval("select cost_is_estimate from makeit3d.provider_calls")


async def test_a_lost_model_reply_is_found_in_the_listing_and_adopted(workshop: Workshop) -> None:
    workshop.models.ledger.lose_next_reply()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-7"))
    assert status.jobs[0]["status"] == "completed"
    assert (workshop.models.ledger.posts, workshop.models.ledger.paid_calls) == (1, 1)


async def test_a_model_request_that_never_arrived_is_proven_absent_and_sent_once_more(workshop: Workshop) -> None:
    workshop.models.ledger.lose_next_request()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-8"))
    assert status.jobs[0]["status"] == "completed"
    assert (workshop.models.ledger.posts, workshop.models.ledger.paid_calls) == (2, 1)
    assert [state for state, _, _ in await workshop.calls()] == ["refused", "settled"]


async def test_a_second_absence_is_no_longer_believed(workshop: Workshop) -> None:
    """A listing that shows none of our calls may be one in which they can not be recognized."""
    for _ in range(2):
        workshop.models.ledger.lose_next_request()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-15"))
    assert status.jobs[0]["error_code"] == "provider_outcome_unknown"
    assert workshop.models.ledger.posts == 2
    assert [state for state, _, _ in await workshop.calls()] == ["refused", "settled"]


async def test_a_dead_link_is_asked_for_again(workshop: Workshop) -> None:
    workshop.models.links_expired = True
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-9"))
    assert status.jobs[0]["status"] == "completed"
    assert workshop.models.ledger.paid_calls == 1


async def test_a_failed_provider_task_fails_the_row_and_is_not_charged(workshop: Workshop) -> None:
    workshop.models.fail_next_task = ErrorCode.PROVIDER_CONTENT_REFUSED
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-10"))
    assert status.assets[0]["error_code"] == "provider_content_refused"
    assert await workshop.calls() == [("settled", "provider_content_refused", 0)]


async def test_cancel_while_the_provider_works_books_the_cost_and_leaves_no_file(workshop: Workshop) -> None:
    workshop.models.polls = 50
    task = await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-11")
    async with asyncio.timeout(PATIENCE):
        while [state for state, _, _ in await workshop.calls()] != ["submitted"]:
            await asyncio.sleep(0.02)
    await kernel.cancel(workshop.db, task, workshop.user)
    assert [asset["status"] for asset in (await workshop.status(task)).assets] == ["canceled"]
    async with asyncio.timeout(PATIENCE):
        while [state for state, _, _ in await workshop.calls()] != ["settled"]:
            await asyncio.sleep(0.02)
    assert await workshop.calls() == [("settled", None, 200_000)]
    assert await workshop.keys() == []
    assert (await workshop.status(task)).jobs[0]["cost_micros"] == 200_000


async def test_a_warm_shutdown_hands_back_what_waits_and_another_goes_on(workshop: Workshop) -> None:
    workshop.models.polls = 200
    task = await workshop.ask(Operation.TEXT_TO_MODEL, "task-engine-12")
    async with asyncio.timeout(PATIENCE):
        while [state for state, _, _ in await workshop.calls()] != ["submitted"]:
            await asyncio.sleep(0.02)
    await workshop.workers.pop().aclose()
    assert (await workshop.status(task)).jobs[0]["status"] == "queued"
    assert await workshop.db.fetchval("select count(*) from makeit3d.workers") == 0
    # closing a worker empties the fake storage; what was asked for is still to come
    await workshop.start()
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"
    assert workshop.models.ledger.paid_calls == 1
    assert await workshop.db.fetchval("select crashes from makeit3d.jobs") == 0


async def test_what_a_claim_under_way_brings_during_a_warm_shutdown_is_handed_back(workshop: Workshop) -> None:
    worker = workshop.workers.pop()
    async with workshop.db.transaction() as connection:
        await connection.execute("select from makeit3d.pools for no key update")  # a claim waits for them
        task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-13")
        worker.engine.wake()
        async with asyncio.timeout(PATIENCE):
            while not await workshop.db.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                await asyncio.sleep(0.02)
        leaving = asyncio.create_task(worker.aclose())
        while not worker.engine.stopping:
            await asyncio.sleep(0.01)
    await leaving
    assert await workshop.db.fetchval("select count(*) from makeit3d.workers") == 0
    job = await workshop.db.fetchrow("select status, attempt, crashes, failures from makeit3d.jobs")
    assert job is not None
    assert tuple(job) == ("queued", 1, 0, 0)
    assert workshop.images.ledger.posts == 0
    await workshop.start()
    assert (await workshop.finished(task)).jobs[0]["status"] == "completed"
    assert await workshop.db.fetchval("select crashes from makeit3d.jobs") == 0


async def test_a_warm_shutdown_gives_back_claims_that_the_process_never_heard_of(workshop: Workshop) -> None:
    """The claim was committed and its answer lost; nobody died, so no crash is counted."""
    worker = workshop.workers.pop()
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-engine-14")
    await workshop.db.execute(
        "update makeit3d.jobs set status = 'running', worker_id = $1, attempt = 1, started_at = now()",
        worker.engine.identity.id,
    )
    await worker.aclose()
    job = await workshop.db.fetchrow("select status, attempt, crashes, failures from makeit3d.jobs")
    assert job is not None
    assert tuple(job) == ("queued", 1, 0, 0)
    await workshop.start()
    assert (await workshop.finished(task)).jobs[0]["status"] == "completed"


async def test_two_workers_share_a_flood_and_pay_each_job_once(workshop: Workshop) -> None:
    await workshop.start()
    names = [await workshop.ask(Operation.TEXT_TO_MODEL, f"task-flood-{number:02}") for number in range(25)]
    for name in names:
        assert (await workshop.finished(name)).jobs[0]["status"] == "completed"
    assert workshop.models.ledger.paid_calls == 25
    workers = await workshop.db.fetch("select distinct worker_id from makeit3d.provider_calls")
    assert len(workers) >= 1


async def test_a_process_whose_slots_are_taken_asks_for_no_work(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, workers=0) as shop:
        worker = await shop.start(slots=1)
        shop.models.polls = 1_000_000
        first = await shop.ask(Operation.TEXT_TO_MODEL, "task-engine-16")
        await shop.until(first, lambda status: status.jobs[0]["status"] == "running")
        asked = REGISTRY.get_sample_value("makeit3d_claims_total")
        second = await shop.ask(Operation.TEXT_TO_IMAGE, "task-engine-17")
        for _ in range(20):
            worker.engine.wake()
            await asyncio.sleep(0.01)
        assert REGISTRY.get_sample_value("makeit3d_claims_total") == asked
        assert (await shop.status(second)).jobs[0]["status"] == "queued"
        for task_id, task in shop.models.tasks.items():
            shop.models.tasks[task_id] = replace(task, polls_left=0)
        # nobody rings: the end of the run takes what waits
        for task in (first, second):
            assert (await shop.finished(task)).jobs[0]["status"] == "completed"
