"""Storage will not take a result: the job ends at once, says what to change, and what was paid is stored later."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
from app.db import jobs
from app.db.pool import Database
from app.domain.operations import Operation
from app.services.audit import audit_rows
from app.services.retries import NotRetried, Retries
from app.storage.memory import MemoryStorage

from tests.integration.workshop import BUCKET, Workshop, open_workshop, retry

pytestmark = pytest.mark.chaos

IMAGE, MODEL = 40_000, 200_000  # what the fakes charge, USD micros
SLOT = "select count(*) from makeit3d.provider_calls where is_open"
MODELS_ONLY = {BUCKET: ["model/gltf-binary", "image/webp"]}


class CountingStorage(MemoryStorage):
    """Counts what is sent to it. The object whose key ends with ``refuses`` is too large for the project."""

    def __init__(self, *args: Any, **rest: Any) -> None:  # noqa: ANN401 - the fake's own
        super().__init__(*args, **rest)
        self.sent: list[str] = []
        self.refuses: str | None = None

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        self.sent.append(key)
        self.max_bytes = 0 if self.refuses is not None and key.endswith(self.refuses) else None
        await super().upload(bucket, key, source, content_type=content_type)

    def limit(self, max_bytes: int | None = None, *, models_only: bool = False) -> None:
        """What the results bucket takes from now on."""
        self.limits = {} if max_bytes is None else {BUCKET: max_bytes}
        self.types = MODELS_ONLY if models_only else {}


@pytest.fixture
async def shop(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[Workshop]:
    async with open_workshop(db, database, tmp_path, storage=CountingStorage) as opened:
        yield opened


def storage_of(shop: Workshop) -> CountingStorage:
    return cast("CountingStorage", shop.storage)


async def ended(shop: Workshop, task: str) -> tuple[str, str | None, str]:
    """Status, code and message of the task's newest job."""
    status = await shop.finished(task)
    row = await shop.db.fetchrow(
        "select status, error_code, error_message from makeit3d.jobs where id = $1", status.job_id
    )
    assert row is not None
    return row["status"], row["error_code"], row["error_message"] or ""


async def assert_told(shop: Workshop, kept: int) -> None:
    """The audit finds nothing wrong, and says what waits for an operator."""
    findings = await audit_rows(shop.db, shop.settings)
    assert findings.clean, findings
    host = shop.workers[0].engine.identity.host
    assert [note for note in findings.notes if "refused" in note] == (
        [f"{kept} paid results that storage refused are kept for a retry ({host})"] if kept else []
    )


async def test_pictures_that_are_refused_are_settled_kept_and_stored_by_a_retry(
    shop: Workshop, retries: Retries
) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-1", n=2)
    status, code, message = await ended(shop, task)
    assert (status, code) == ("failed", "storage_refused_size")
    assert "100" in message
    assert "file size limit of the bucket" in message
    assert len(storage.sent) == 2  # each was tried once
    assert await shop.calls() == [("settled", None, 2 * IMAGE)]
    assert await shop.db.fetchval("select cost_is_estimate from makeit3d.provider_calls") is False
    assert await shop.db.fetchval(SLOT) == 0
    (listed,) = await jobs.failed(shop.db, limit=10)
    assert (listed.keeps_paid_work, listed.paid_again_micros, listed.cost_micros) == (True, 0, 2 * IMAGE)
    assert listed.kept is not None
    record = await jobs.record(shop.db, listed.job_id, events=1)
    assert record is not None
    assert record.job["kept_host"] == shop.workers[0].engine.identity.host
    await assert_told(shop, 1)
    # too early: nothing is paid, and nothing is lost
    await retry(retries, task)
    assert (await ended(shop, task))[:2] == ("failed", "storage_refused_size")
    storage.limit()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert [asset["status"] for asset in (await shop.status(task)).assets] == ["complete"] * 2
    assert shop.images.ledger.posts == 1
    assert await shop.calls() == [("settled", None, 2 * IMAGE)]
    await assert_told(shop, 0)


async def test_pictures_that_were_taken_stay_and_a_retry_stores_the_others(shop: Workshop, retries: Retries) -> None:
    storage = storage_of(shop)
    storage.refuses = "/1.png"
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-2", n=3)
    assert (await ended(shop, task))[0] == "completed"
    rows = await shop.db.fetch("select number, status, error_code from concept_images order by number")
    assert [tuple(row) for row in rows] == [
        (0, "complete", None),
        (1, "failed", "storage_refused_size"),
        (2, "complete", None),
    ]
    (listed,) = await jobs.failed(shop.db, code="storage_refused_size", limit=10)
    assert (listed.keeps_paid_work, listed.paid_again_micros) == (True, 0)
    await assert_told(shop, 1)
    storage.refuses = None
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert [asset["number"] for asset in (await shop.status(task)).assets] == [3]
    assert await shop.keys() == [f"concepts/{task}/{number}.png" for number in (0, 2, 3)]
    digests = await shop.db.fetch("select sha256 from makeit3d.files where state = 'stored' order by key")
    assert len({row["sha256"] for row in digests}) == 3  # the one that was missing, not another once more
    assert shop.images.ledger.posts == 1
    await assert_told(shop, 0)


@pytest.mark.parametrize("operation", [Operation.TEXT_TO_MODEL, Operation.TEXT_TO_IMAGE])
async def test_a_type_that_the_bucket_does_not_take(shop: Workshop, retries: Retries, operation: Operation) -> None:
    storage = storage_of(shop)
    storage.types = {BUCKET: ["image/webp"]}
    task = await shop.ask(operation, "task-refused-3")
    status, code, message = await ended(shop, task)
    assert (status, code) == ("failed", "storage_refused_type")
    assert "allowed MIME types" in message
    assert len(storage.sent) == len(set(storage.sent))  # each was tried once
    storage.limit()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert shop.images.ledger.posts + shop.models.ledger.posts == 1
    await assert_told(shop, 0)


async def test_a_model_is_stored_from_the_disk_although_its_provider_has_it_no_more(
    shop: Workshop, retries: Retries
) -> None:
    storage = storage_of(shop)
    storage.max_bytes = None
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_MODEL, "task-refused-4")
    assert (await ended(shop, task))[:2] == ("failed", "storage_refused_size")
    assert await shop.calls() == [("settled", None, MODEL)]
    await assert_told(shop, 1)
    shop.models.tasks.clear()
    storage.limit()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert sorted(await shop.keys()) == [f"models/{task}/model_1.glb", f"models/{task}/model_1.preview.webp"]
    assert shop.models.ledger.posts == 1
    await assert_told(shop, 0)


async def test_a_preview_that_is_refused_costs_no_model(shop: Workshop) -> None:
    storage_of(shop).types = {BUCKET: ["model/gltf-binary"]}
    task = await shop.ask(Operation.TEXT_TO_MODEL, "task-refused-5")
    assert (await ended(shop, task))[0] == "completed"
    assert await shop.keys() == [f"models/{task}/model.glb"]


async def test_a_retry_runs_where_the_picture_is(shop: Workshop, retries: Retries, tmp_path: Path) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-6")
    assert (await ended(shop, task))[0] == "failed"
    storage.limit()
    has_it = shop.workers.pop()
    await has_it.aclose()
    await shop.start(home=tmp_path / "elsewhere")
    with pytest.raises(NotRetried, match="no worker runs"):
        await retry(retries, task)
    # the first machine is back
    await shop.start()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert await shop.db.fetchval("select attempt from makeit3d.jobs where retry_of is not null") == 1
    assert shop.images.ledger.posts == 1


async def test_another_machine_of_the_same_name_is_another_machine(
    shop: Workshop, retries: Retries, tmp_path: Path
) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-13")
    assert (await ended(shop, task))[0] == "failed"
    storage.limit()
    await shop.workers.pop().aclose()
    await shop.start(home=tmp_path / "elsewhere" / "localhost")
    with pytest.raises(NotRetried, match="no worker runs"):
        await retry(retries, task)
    await shop.start()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert shop.images.ledger.posts == 1


async def test_a_model_whose_machine_is_away_is_asked_for_again(
    shop: Workshop, retries: Retries, tmp_path: Path
) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_MODEL, "task-refused-7")
    assert (await ended(shop, task))[0] == "failed"
    storage.limit()
    await shop.workers.pop().aclose()
    await shop.start(home=tmp_path / "elsewhere")
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"
    assert shop.models.ledger.posts == 1


async def test_a_spool_is_its_workers_own_whatever_their_host_is_called(shop: Workshop, retries: Retries) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-8")
    assert (await ended(shop, task))[0] == "failed"
    await shop.db.execute("update makeit3d.jobs set kept_host = 'a-container-of-yesterday'")
    await shop.workers[0].sweeper.round()
    storage.limit()
    await retry(retries, task)
    assert (await ended(shop, task))[0] == "completed"


async def test_what_is_no_longer_kept_is_told_and_paid_again_only_when_allowed(
    shop: Workshop, retries: Retries
) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-9")
    assert (await ended(shop, task))[0] == "failed"
    storage.limit()
    await shop.db.execute("update makeit3d.jobs set kept_until = now() - interval '1 minute'")
    with pytest.raises(NotRetried, match=r"is gone.*--may-pay-again"):
        await retry(retries, task)
    await retry(retries, task, may_pay_again=True)
    assert (await ended(shop, task))[0] == "completed"
    assert shop.images.ledger.posts == 2


async def test_of_some_pictures_that_are_no_longer_kept_those_alone_are_paid_again(
    shop: Workshop, retries: Retries
) -> None:
    storage = storage_of(shop)
    storage.refuses = "/1.png"
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-12", n=3)
    assert (await ended(shop, task))[0] == "completed"
    storage.refuses = None
    await shop.db.execute("update makeit3d.jobs set kept_until = now() - interval '1 minute'")
    with pytest.raises(NotRetried, match=r"is gone.*--may-pay-again"):
        await retry(retries, task)
    await retry(retries, task, may_pay_again=True)
    assert (await ended(shop, task))[0] == "completed"
    assert await shop.calls() == [("settled", None, 3 * IMAGE), ("settled", None, IMAGE)]
    assert await shop.db.fetchval("select estimate_micros from makeit3d.jobs where retry_of is not null") == IMAGE
    await assert_told(shop, 0)


async def test_a_retry_that_finds_its_file_gone_says_so(shop: Workshop, retries: Retries) -> None:
    storage = storage_of(shop)
    storage.limit(100)
    task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-10")
    assert (await ended(shop, task))[0] == "failed"
    storage.limit()
    for path in shop.settings.spool_directory.glob("*.kept/reply"):
        path.unlink()
    await retry(retries, task)
    status, code, message = await ended(shop, task)
    assert (status, code) == ("failed", "paid_result_gone")
    assert "localhost" in message
    with pytest.raises(NotRetried, match="--may-pay-again"):
        await retry(retries, task)
    assert shop.images.ledger.posts == 1


async def test_a_sweep_removes_what_was_kept_for_long_enough(db: Database, database: str, tmp_path: Path) -> None:
    """The setting is in hours; a retry that began in the last moment has one more."""
    async with open_workshop(db, database, tmp_path, storage=CountingStorage, spool_keep_hours=1) as shop:
        storage_of(shop).limit(100)
        task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-12")
        assert (await ended(shop, task))[0] == "failed"
        [kept] = shop.settings.spool_directory.glob("*.kept")
        for hours, is_there in ((1.9, True), (2.1, False)):
            then = time.time() - hours * 3600
            os.utime(kept, (then, then))
            await shop.workers[0].sweeper.round()
            assert kept.exists() is is_there
        await shop.db.execute("update makeit3d.jobs set kept_until = now() - interval '1 minute'")
        await assert_told(shop, 0)


async def test_without_hours_nothing_is_kept(db: Database, database: str, tmp_path: Path) -> None:
    async with open_workshop(db, database, tmp_path, storage=CountingStorage, spool_keep_hours=0) as shop:
        storage_of(shop).limit(100)
        task = await shop.ask(Operation.TEXT_TO_IMAGE, "task-refused-11")
        assert (await ended(shop, task))[0] == "failed"
        assert await shop.calls() == [("settled", None, IMAGE)]
        assert not [*shop.settings.spool_directory.iterdir()]
        await assert_told(shop, 0)
