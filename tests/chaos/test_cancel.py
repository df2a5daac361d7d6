"""Canceling at every moment of a job's life: it ends at once, what was paid stays visible, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

import pytest
from app.ai_clients.errors import Advice, Refused
from app.container import user_limits
from app.db.pool import Database
from app.domain.operations import Operation
from app.errors import AppError, ErrorCode
from app.services.cancellation import Cancellation
from app.services.notifier import Notifier
from app.services.publisher import Publisher

from tests import kernel
from tests.chaos.gates import GatedImages, GatedModels, GatedStorage
from tests.integration.workshop import PATIENCE, RoomBells, Workshop, open_workshop

pytestmark = pytest.mark.chaos

IMAGE, MODEL = 40_000, 200_000  # what the fakes charge, USD micros


@dataclass
class Stage:
    """One worker and its gates. Every pool has one slot, so that a slot that is not given back is noticed."""

    shop: Workshop
    images: GatedImages
    models: GatedModels
    storage: GatedStorage
    cancellation: Cancellation

    async def cancel(self, task: str) -> None:
        await self.cancellation.cancel(task, self.shop.user)

    async def until_calls(self, *states: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while [state for state, _, _ in await self.shop.calls()] != list(states):
                await asyncio.sleep(0.02)

    async def until_clean(self) -> None:
        """Every call has its final word, nothing runs, and no file is half there."""
        open_ = (
            "select (select count(*) from makeit3d.provider_calls where is_open)"
            " + (select count(*) from makeit3d.files where state = 'uploading')"
        )
        async with asyncio.timeout(PATIENCE):
            while await self.shop.db.fetchval(open_) or any(worker.engine.running for worker in self.shop.workers):
                await asyncio.sleep(0.02)

    async def assert_canceled(self, task: str, *, steps: int = 1) -> None:
        """The rows say so, all together, and said it once."""
        status = await self.shop.status(task)
        assert {job["status"] for job in status.jobs[-steps:]} == {"canceled"}
        assert {asset["status"] for asset in status.assets[-steps:]} == {"canceled"}
        assert {asset["asset_url"] for asset in status.assets[-steps:]} == {None}
        said = await self.shop.db.fetch(
            "select type, count(*) from makeit3d.events where payload->>'status' = 'canceled' group by type"
        )
        assert {row["type"]: row["count"] for row in said} == {
            "task_update": 1,
            "job_update": steps,
            "asset_update": steps,
        }

    async def assert_nothing_left(self) -> None:
        assert await self.shop.keys() == []
        states = await self.shop.db.fetch("select distinct state from makeit3d.files")
        assert [row["state"] for row in states] in ([], ["removed"])

    async def assert_slots_are_free(self) -> None:
        """Both pools of one slot do another job."""
        for operation in (Operation.TEXT_TO_IMAGE, Operation.TEXT_TO_MODEL):
            status = await self.shop.finished(await self.shop.ask(operation, f"task-after-{operation.value}"))
            assert status.jobs[0]["status"] == "completed"


@pytest.fixture
async def stage(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Stage]:
    images, models = GatedImages(), GatedModels()
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(
            open_workshop(
                db,
                database,
                tmp_path,
                images=images,
                models=models,
                storage=GatedStorage,
                workers=0,
                worker_ttl_seconds=1,
                supabase_timeout_seconds=0.5,
                openai_slots=1,
                tripo_h_slots=1,
            )
        )
        notifier = Notifier(db)
        stack.push_async_callback(notifier.aclose)
        publisher = Publisher(kernel.queue_of(db), RoomBells(shop.workers), notifier, user_limits(shop.settings))
        stack.push_async_callback(publisher.aclose)
        cancellation = Cancellation(kernel.queue_of(db), publisher)
        yield Stage(shop, images, models, cast("GatedStorage", shop.storage), cancellation)
        for gate in (images.post, models.preparing, models.post, models.downloading):
            gate.release()


# --- before anything was paid -----------------------------------------------------------------------------------


async def test_queued(stage: Stage) -> None:
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-queued")
    await stage.cancel(task)
    await stage.assert_canceled(task)
    await stage.shop.start()
    await stage.assert_slots_are_free()
    assert stage.shop.models.ledger.paid_calls == 1  # the one after it


async def test_waiting_to_be_tried_again(stage: Stage) -> None:
    stage.models.ledger.refuse_next(Refused(ErrorCode.PROVIDER_BUSY, "full", advice=Advice.DEFER, retry_after=600))
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-retry")
    await stage.shop.until(task, lambda s: s.jobs[0]["waiting_for"] == "retry")
    await stage.cancel(task)
    await stage.assert_canceled(task)
    assert await stage.shop.calls() == [("refused", "provider_busy", 0)]
    await stage.assert_slots_are_free()


async def test_running_before_the_paid_call(stage: Stage) -> None:
    stage.models.preparing.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-preparing")
    await stage.models.preparing.until_reached()
    await stage.cancel(task)
    stage.models.preparing.release()
    await stage.until_clean()
    await stage.assert_canceled(task)
    assert stage.models.ledger.posts == 0
    await stage.assert_slots_are_free()


# --- while money is in the air ----------------------------------------------------------------------------------


async def test_an_image_call_in_flight_is_paid_and_its_pictures_are_not_kept(stage: Stage) -> None:
    stage.images.post.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_IMAGE, "task-cancel-post", n=1)
    await stage.images.post.until_reached()
    await stage.cancel(task)
    await stage.assert_canceled(task)
    assert [state for state, _, _ in await stage.shop.calls()] == ["intent"]  # its slot is still the provider's
    stage.images.post.release()
    await stage.until_clean()
    await stage.assert_canceled(task)
    await stage.assert_nothing_left()
    assert await stage.shop.calls() == [("settled", None, IMAGE)]
    assert (await stage.shop.status(task)).jobs[0]["cost_micros"] == IMAGE
    assert not list((stage.shop.settings.home / "spool").iterdir())
    await stage.assert_slots_are_free()


async def test_a_model_call_in_flight_is_followed_to_its_end(stage: Stage) -> None:
    stage.models.post.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-submit")
    await stage.models.post.until_reached()
    await stage.cancel(task)
    await stage.assert_canceled(task)
    stage.models.post.release()
    await stage.until_clean()
    await stage.assert_canceled(task)
    await stage.assert_nothing_left()
    assert await stage.shop.calls() == [("settled", None, MODEL)]
    assert (await stage.shop.status(task)).jobs[0]["cost_micros"] == MODEL
    await stage.assert_slots_are_free()


async def test_a_model_call_whose_reply_is_lost_is_found_and_followed(stage: Stage) -> None:
    stage.models.post.hold()
    stage.models.polls = 5
    stage.models.loses_replies = True
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-lost")
    await stage.models.post.until_reached()
    await stage.cancel(task)
    stage.models.post.release()
    await stage.until_clean()
    await stage.assert_canceled(task)
    stage.models.loses_replies = False
    assert await stage.shop.calls() == [("settled", None, MODEL)]
    assert not await stage.shop.db.fetchval("select cost_is_estimate from makeit3d.provider_calls")
    await stage.assert_slots_are_free()


async def test_the_first_of_two_steps(stage: Stage) -> None:
    """The second step never starts."""
    stage.images.post.hold()
    await stage.shop.start()
    task = await stage.shop.ask(
        Operation.SKETCH_TO_MODEL, "task-cancel-sketch", pictures=[await stage.shop.put_picture()]
    )
    await stage.images.post.until_reached()
    await stage.cancel(task)
    await stage.assert_canceled(task, steps=2)
    stage.images.post.release()
    await stage.until_clean()
    await stage.assert_canceled(task, steps=2)
    await stage.assert_nothing_left()
    assert stage.models.ledger.posts == 0


# --- when the provider has it, or is done -----------------------------------------------------------------------


async def test_submitted(stage: Stage) -> None:
    stage.models.polls = 100_000
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-submitted")
    await stage.until_calls("submitted")
    await stage.cancel(task)
    await stage.assert_canceled(task)
    other = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-behind-it")
    await stage.shop.until(other, lambda s: s.jobs[0]["waiting_for"] == "slot")  # the provider still works
    stage.models.finish_all()
    stage.models.polls = 1
    await stage.until_calls("settled", "settled")
    assert (await stage.shop.finished(other)).jobs[0]["status"] == "completed"
    await stage.assert_canceled(task)
    assert await stage.shop.keys() == [f"models/{other}/model.glb", f"models/{other}/model.preview.webp"]
    assert (await stage.shop.status(task)).jobs[0]["cost_micros"] == MODEL


async def test_downloading(stage: Stage) -> None:
    stage.models.downloading.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-download")
    await stage.models.downloading.until_reached()
    await stage.cancel(task)
    assert (await stage.shop.status(task)).jobs[0]["cost_micros"] == MODEL  # the reply to the cancel says it
    await stage.until_clean()
    await stage.assert_canceled(task)
    await stage.assert_nothing_left()
    stage.models.downloading.release()
    await stage.assert_slots_are_free()


async def hang_before(storage: GatedStorage) -> None:
    storage.before.hold()


async def store_late(storage: GatedStorage) -> None:
    storage.before.hold()
    storage.stores_late = True


async def hang_after(storage: GatedStorage) -> None:
    storage.after.hold()


async def hang_at_the_preview(storage: GatedStorage) -> None:
    storage.only = ".webp"
    storage.before.hold()


@pytest.mark.parametrize("moment", [hang_before, store_late, hang_after, hang_at_the_preview])
async def test_uploading(stage: Stage, moment: Callable[[GatedStorage], Awaitable[None]]) -> None:
    await moment(stage.storage)
    gate = stage.storage.after if moment is hang_after else stage.storage.before
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-upload")
    await gate.until_reached()
    await stage.cancel(task)
    await stage.until_clean()
    gate.release()
    await stage.assert_canceled(task)
    await stage.assert_nothing_left()
    assert (await stage.shop.status(task)).jobs[0]["cost_micros"] == MODEL
    await stage.assert_slots_are_free()


async def test_uploading_the_second_of_two_pictures(stage: Stage) -> None:
    stage.storage.only = "1.png"
    stage.storage.before.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_IMAGE, "task-cancel-pictures", n=2)
    await stage.storage.before.until_reached()
    await stage.cancel(task)
    stage.storage.before.release()
    await stage.until_clean()
    assert {asset["status"] for asset in (await stage.shop.status(task)).assets} == {"canceled"}
    await stage.assert_nothing_left()
    assert await stage.shop.calls() == [("settled", None, 2 * IMAGE)]
    await stage.assert_slots_are_free()


async def test_storage_that_is_down_when_it_is_cleaned_is_cleaned_later(stage: Stage) -> None:
    stage.storage.after.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-down")
    await stage.storage.after.until_reached()
    stage.storage.down = True
    await stage.cancel(task)
    async with asyncio.timeout(PATIENCE):
        while stage.shop.workers[0].engine.running:
            await asyncio.sleep(0.02)
    assert await stage.shop.keys() != []
    stage.storage.down = False
    await stage.until_clean()
    await stage.assert_nothing_left()


async def test_a_process_that_was_held_up_takes_back_what_it_stored_too_late(stage: Stage) -> None:
    """The sweep has long called the file removed when the upload of a stopped process goes on."""
    stage.storage.before.hold()
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-held-up")
    await stage.storage.before.until_reached()
    await stage.cancel(task)
    await stage.shop.db.execute("update makeit3d.files set state = 'removed'")
    stage.storage.before.release()  # before the worker compares its claims
    async with asyncio.timeout(PATIENCE):
        while stage.shop.workers[0].engine.running:
            await asyncio.sleep(0.02)
    await stage.assert_nothing_left()


# --- when it is over --------------------------------------------------------------------------------------------


async def test_settled(stage: Stage) -> None:
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-settled")
    before = await stage.shop.finished(task)
    with pytest.raises(AppError) as refusal:
        await stage.cancel(task)
    assert refusal.value.error is ErrorCode.TASK_NOT_CANCELABLE
    assert await stage.shop.status(task) == before
    assert len(await stage.shop.keys()) == 2


async def test_canceling_again_changes_nothing(stage: Stage) -> None:
    task = await stage.shop.ask(Operation.TEXT_TO_MODEL, "task-cancel-twice")
    await stage.cancel(task)
    await stage.cancel(task)
    await stage.assert_canceled(task)


async def test_only_what_is_unfinished_is_canceled(stage: Stage) -> None:
    await stage.shop.start()
    task = await stage.shop.ask(Operation.TEXT_TO_IMAGE, "task-cancel-rest")
    await stage.shop.finished(task)
    stage.models.polls = 100_000
    await stage.shop.ask(Operation.TEXT_TO_MODEL, task)
    await stage.until_calls("settled", "submitted")
    await stage.cancel(task)
    assert await stage.shop.keys() == [f"concepts/{task}/0.png"]
    rows = await stage.shop.db.fetch("select status, asset_url is not null as there from concept_images")
    assert [tuple(row) for row in rows] == [("complete", True)]


async def test_canceling_races_with_everything_and_there_is_one_truth(stage: Stage) -> None:
    """Two workers, sixty tasks, each canceled at another moment of its life."""
    shop = stage.shop
    await shop.db.execute("update makeit3d.pools set slots = 20")
    await shop.start()
    await shop.start()
    stage.models.polls = 3
    moments = Random(7)

    async def live(number: int) -> tuple[str, bool]:
        operation = Operation.TEXT_TO_MODEL if number % 2 else Operation.TEXT_TO_IMAGE
        task = await shop.ask(operation, f"task-race-{number:02}")
        if number % 5 == 0:
            await shop.finished(task)
        else:
            await asyncio.sleep(moments.uniform(0, 0.5))
        try:
            await stage.cancel(task)
        except AppError as refusal:
            if refusal.error is not ErrorCode.TASK_NOT_CANCELABLE:
                raise
            return task, False
        return task, True

    lives = await asyncio.gather(*(live(number) for number in range(60)))
    await stage.until_clean()
    objects = set(await shop.keys())
    stored = {row["key"] for row in await shop.db.fetch("select key from makeit3d.files where state = 'stored'")}
    assert objects == stored
    for task, canceled in lives:
        status = await shop.status(task)
        word = "canceled" if canceled else "completed"
        assert status.jobs[0]["status"] == word
        assert any(task in key for key in objects) is not canceled
        final = await shop.db.fetch(
            "select type, payload->>'status' as word from makeit3d.events where task_id = $1"
            " and payload->>'status' in ('canceled', 'completed', 'complete', 'failed')",
            task,
        )
        assert sorted(row["type"] for row in final) == ["asset_update", "job_update", "task_update"], task
        booked = await shop.db.fetchval("select sum(cost_micros) from makeit3d.provider_calls where task_id = $1", task)
        assert status.jobs[0]["cost_micros"] == (booked or 0)
    paid = shop.images.ledger.paid_calls * IMAGE + shop.models.ledger.paid_calls * MODEL
    assert await shop.db.fetchval("select sum(cost_micros) from makeit3d.provider_calls") == paid
    assert {True, False} == {canceled for _, canceled in lives}
