"""Steps of a request: jobs with a barrier, jobs made of what an earlier step yielded, permits in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from app.config import Settings
from app.db import jobs as job_rows
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Failed, ItemEnd, Settlement
from app.domain.user_limits import UserLimits
from app.errors import ErrorCode
from app.queue import permits
from app.queue.contracts import StepPlan, Tx
from app.queue.runs import RunEnd
from app.queue.transitions import Finished

from tests.integration.factories import image_plan, local_step, stepped_plan
from tests.integration.ledger import Harness, harness, open_queue, retries

__all__ = ["harness"]

TASK = "task-of-steps"
BROKEN = Failed(ErrorCode.INPUT_NOT_IMAGE, "broken")


def step(number: int, **values: Any) -> StepPlan:  # noqa: ANN401 - fields of a step
    return local_step(number, **{"participants": ("ledger",), **values})


def paid(number: int, **values: Any) -> StepPlan:  # noqa: ANN401 - fields of a step
    return StepPlan(number, "generate_images", "openai", "normal", 50, "openai", **values)


async def accept(h: Harness, *steps: StepPlan) -> None:
    await h.queue.accept(stepped_plan(h.user, TASK, *steps))


async def claim(h: Harness) -> dict[tuple[int, int], ClaimedJob]:
    """Claim what can run; what of that is the task's, by step and chunk."""
    claimed = {job.claim.job_id: job for job in await h.claim()}
    rows = await h.db.fetch(
        "select id, step, chunk from makeit3d.jobs where id = any($1) and task_id = $2", list(claimed), TASK
    )
    return {(row["step"], row["chunk"]): claimed[row["id"]] for row in rows}


async def done(h: Harness, job: ClaimedJob, *, skip: Sequence[str] = (), **values: Any) -> Completed:  # noqa: ANN401
    """All items of a job are done, but for those that are skipped."""
    items = await h.queue.pending_items(job.claim.job_id, after=0, most=100)
    ends = tuple(ItemEnd(item.key, "skipped" if item.key in skip else "done") for item in items)
    return Completed(items=ends, **values)


async def finish_all(h: Harness) -> set[tuple[int, int]]:
    """Claim what can run and complete it; which jobs that were."""
    claimed = await claim(h)
    for job in claimed.values():
        assert await h.finish(job, await done(h, job))
    return set(claimed)


async def jobs(h: Harness) -> dict[tuple[int, int], tuple[str, str | None]]:
    rows = await h.db.fetch("select step, chunk, status, waiting_for from makeit3d.jobs where task_id = $1", TASK)
    return {(row["step"], row["chunk"]): (row["status"], row["waiting_for"]) for row in rows}


async def items_of(h: Harness, number: int) -> list[list[str]]:
    """Keys of each job of a step that was not finished before, in order."""
    rows = await h.db.fetch(
        "select array(select key from makeit3d.job_items i where i.job_id = j.id order by i.position) as keys"
        " from makeit3d.jobs j where step = $1 order by created_at, chunk",
        number,
    )
    return [row["keys"] for row in rows]


async def statuses(h: Harness) -> tuple[str, str]:
    row = await h.db.fetchrow("select t.status as task, r.status as request from makeit3d.tasks t, makeit3d.requests r")
    assert row is not None
    return row["task"], row["request"]


# --- jobs that are made of what an earlier step yielded --------------------------------------------------------------


async def test_a_step_is_made_of_what_the_one_before_did(harness: Harness) -> None:
    yielded = step(2, items_from=1, items_per_job=3, estimate_micros=9, price={"micros": 5, "pebble": 2})
    await accept(harness, step(1, items=tuple("abcde"), items_per_job=2), yielded, step(3))
    assert set(await jobs(harness)) == {(1, 0), (1, 1), (1, 2), (3, 0)}
    claimed = await claim(harness)
    for chunk in (1, 0):
        assert await harness.finish(claimed[1, chunk], await done(harness, claimed[1, chunk], skip=("b",)))
    assert set(await jobs(harness)) == {(1, 0), (1, 1), (1, 2), (3, 0)}
    assert await harness.finish(claimed[1, 2], await done(harness, claimed[1, 2]))
    assert await items_of(harness, 2) == [["a", "c", "d"], ["e"]]
    rows = await harness.db.fetch(
        "select j.status, waiting_for, has_next, items_total, estimate_micros, price, trace_id is null as untraced,"
        " l.accepted_at is not null as accepted from makeit3d.jobs j join ledger l on l.job_id = j.id"
        " where step = 2 order by chunk"
    )
    assert [tuple(row) for row in rows] == [
        ("queued", None, True, 3, 4, {"micros": 2, "pebble": 2}, True, True),
        ("queued", None, True, 1, 5, {"micros": 3, "pebble": 2}, True, True),
    ]
    assert await statuses(harness) == ("running", "running")
    told = await harness.db.fetch(
        "select payload from makeit3d.events where type = 'job_update' and payload->>'step' = '2'"
    )
    assert [event["payload"]["status"] for event in told] == ["queued", "queued"]
    assert await finish_all(harness) == {(2, 0), (2, 1)}
    assert await finish_all(harness) == {(3, 0)}
    assert await statuses(harness) == ("completed", "completed")
    await harness.assert_books_agree()


async def test_an_output_may_say_what_comes_next(harness: Harness) -> None:
    await accept(harness, step(1, items=("a",)), step(2, items_from=1), step(3, items_from=1))
    claimed = await claim(harness)
    output = {"items": ["x", "y", "x"]}
    assert await harness.finish(claimed[1, 0], await done(harness, claimed[1, 0], output=output))
    assert await items_of(harness, 2) == [["x", "y"]]
    assert set(await jobs(harness)) == {(1, 0), (2, 0)}
    await finish_all(harness)
    assert await items_of(harness, 3) == [["x", "y"]]


async def test_where_nothing_was_yielded_one_job_says_so(harness: Harness) -> None:
    await accept(harness, step(1), step(2, items_from=1), step(3))
    assert await finish_all(harness) == {(1, 0)}
    assert await items_of(harness, 2) == [[]]
    assert await finish_all(harness) == {(2, 0)}
    assert await finish_all(harness) == {(3, 0)}
    assert await statuses(harness) == ("completed", "completed")


# --- the barrier -----------------------------------------------------------------------------------------------------


async def blocked(db: Database) -> None:
    async with asyncio.timeout(20):
        while not await db.fetchval("select exists (select from pg_stat_activity where wait_event_type = 'Lock')"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("known", [True, False])
async def test_the_last_two_chunks_at_once_start_the_next_step_once(harness: Harness, known: bool) -> None:
    await accept(harness, step(1, items=tuple("ab"), items_per_job=1), step(2, items_from=None if known else 1))
    claimed = await claim(harness)
    first, second = [Settlement(job, await done(harness, job)) for job in claimed.values()]

    async def finish_slowly(tx: Tx) -> asyncio.Task[Finished]:
        await harness.queue.finish_within(tx, [RunEnd.of(first)])
        other = asyncio.create_task(harness.queue.finish([second]))
        await blocked(harness.db)
        return other

    other, committed = await harness.queue.in_transaction(finish_slowly)
    finished = await other
    assert finished.committed.lanes == {"normal"}
    assert committed.lanes == set()
    assert await finish_all(harness) == {(2, 0)}
    assert await statuses(harness) == ("completed", "completed")
    await harness.assert_books_agree()


async def test_two_chunks_of_one_batch_start_the_next_step_once(harness: Harness) -> None:
    await accept(harness, step(1, items=tuple("ab"), items_per_job=1), step(2, items_from=1))
    runs = [Settlement(job, await done(harness, job)) for job in (await claim(harness)).values()]
    await harness.queue.finish(runs)
    assert await items_of(harness, 2) == [["a", "b"]]
    await harness.assert_books_agree()


async def test_when_a_chunk_fails_what_follows_fails_and_the_others_go_on(harness: Harness) -> None:
    await accept(
        harness, step(1, items=tuple("abc"), items_per_job=1), step(2), step(3, items_from=1), step(4, items=("z",))
    )
    claimed = await claim(harness)
    assert await harness.finish(claimed[1, 0], await done(harness, claimed[1, 0]))
    assert await harness.finish(claimed[1, 1], BROKEN)
    assert await statuses(harness) == ("running", "running")
    assert await harness.finish(claimed[1, 2], await done(harness, claimed[1, 2]))
    rows = await harness.db.fetch("select step, chunk, status, error_code from makeit3d.jobs order by step, chunk")
    assert [tuple(row) for row in rows] == [
        (1, 0, "completed", None),
        (1, 1, "failed", "input_not_image"),
        (1, 2, "completed", None),
        (2, 0, "failed", "input_not_image"),
        (4, 0, "failed", "input_not_image"),
    ]
    ends = await harness.db.fetch("select key, status from makeit3d.job_items order by key")
    assert [tuple(end) for end in ends] == [("a", "done"), ("b", "pending"), ("c", "done"), ("z", "pending")]
    assert await statuses(harness) == ("failed", "failed")
    await harness.assert_books_agree()


async def test_a_cancel_keeps_what_was_done_and_makes_no_further_step(harness: Harness) -> None:
    await accept(harness, step(1, items=tuple("abc"), items_per_job=2), step(2, items_from=1))
    claimed = await claim(harness)
    assert await harness.queue.record_items(claimed[1, 0].claim, [ItemEnd("a", "done")])
    assert await harness.finish(claimed[1, 1], await done(harness, claimed[1, 1]))
    await harness.queue.cancel(TASK, harness.user)
    assert await harness.queue.record_items(claimed[1, 0].claim, [ItemEnd("b", "done")]) is None
    assert not await harness.finish(claimed[1, 0], Completed())
    assert await jobs(harness) == {(1, 0): ("canceled", None), (1, 1): ("completed", None)}
    ends = await harness.db.fetch("select key, status from makeit3d.job_items order by key")
    assert [tuple(end) for end in ends] == [("a", "done"), ("b", "pending"), ("c", "done")]
    await harness.assert_books_agree()


async def test_a_rollback_leaves_no_step_and_no_entry(harness: Harness) -> None:
    await accept(harness, step(1, items=("a",)), step(2, items_from=1))
    claimed = await claim(harness)

    async def cut_off(tx: Tx) -> None:
        await harness.queue.finish_within(
            tx, [RunEnd.of(Settlement(claimed[1, 0], await done(harness, claimed[1, 0])))]
        )
        assert await tx.connection.fetchval("select count(*) from ledger") == 2
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await harness.queue.in_transaction(cut_off)
    assert await jobs(harness) == {(1, 0): ("running", None)}
    assert await harness.db.fetchval("select count(*) from ledger") == 1
    await harness.assert_books_agree()


async def test_a_participant_that_refuses_a_later_step_fails_it_and_no_more(harness: Harness) -> None:
    await accept(harness, step(1, items=tuple("ab")), step(2, items_from=1, items_per_job=1), step(3))
    harness.ledger.refuses = True
    assert await finish_all(harness) == {(1, 0)}
    rows = await harness.db.fetch(
        "select step, chunk, j.status, error_code, error_message, l.by from makeit3d.jobs j"
        " left join ledger l on l.job_id = j.id order by step, chunk"
    )
    assert [tuple(row) for row in rows] == [
        (1, 0, "completed", None, None, "finish"),
        (2, 0, "failed", "user_budget_exceeded", "Not enough.", None),
        (2, 1, "failed", "user_budget_exceeded", "Not enough.", None),
        (3, 0, "failed", "user_budget_exceeded", "Not enough.", "fail_dependents"),
    ]
    assert await statuses(harness) == ("failed", "failed")


# --- permits ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(harness: Harness, settings: Settings) -> Harness:
    """At most two jobs of each class at a time."""
    queue = open_queue(harness.db, harness.ledger, settings, limits=UserLimits(in_flight=2))
    return Harness(harness.db, harness.ledger, queue, harness.user)


async def test_the_next_step_takes_the_permits_that_were_held_and_waits_for_more(limited: Harness) -> None:
    await accept(limited, paid(1), paid(2, items=tuple("abc"), items_per_job=1))
    assert await finish_all(limited) == {(1, 0)}
    waits = [(await jobs(limited))[2, chunk] for chunk in range(3)]
    assert waits == [("queued", None), ("queued", "user_limit"), ("queued", "user_limit")]
    await permits.release(limited.db, limited.user, in_flight=2)
    started = set(await claim(limited))
    assert (2, 0) in started
    assert len(started) == 2


async def test_a_step_of_another_class_takes_no_permit_unasked(limited: Harness) -> None:
    await accept(limited, step(1, participants=()), paid(2))
    for task in ("task-other-001", "task-other-002"):
        await limited.queue.accept(image_plan(limited.user, task), UserLimits(in_flight=2))
    claimed = await claim(limited)
    assert await limited.finish(claimed[1, 0], Completed())
    assert (await jobs(limited))[2, 0] == ("queued", "user_limit")


async def test_local_work_waits_for_no_permit(limited: Harness) -> None:
    await accept(limited, paid(1), step(2, participants=(), items=tuple("abc"), items_per_job=1))
    assert await finish_all(limited) == {(1, 0)}
    assert await finish_all(limited) == {(2, 0), (2, 1), (2, 2)}


# --- an operator's retry ---------------------------------------------------------------------------------------------


async def test_a_retry_goes_on_with_what_the_other_chunks_did(harness: Harness) -> None:
    await accept(harness, step(1, items=tuple("abcd"), items_per_job=2), step(2, items_from=1))
    claimed = await claim(harness)
    await harness.queue.record_items(claimed[1, 0].claim, [ItemEnd("a", "done")])
    assert await harness.finish(claimed[1, 0], BROKEN)
    assert await harness.finish(claimed[1, 1], await done(harness, claimed[1, 1]))
    async with retries(harness) as operator:
        again = await operator.retry(await operator.find(TASK), may_pay_again=True)
    assert len(await job_rows.jobs_of(harness.db, again)) == 1
    assert await items_of(harness, 1) == [["a", "b"], ["c", "d"], ["b"]]
    assert await finish_all(harness) == {(1, 0)}
    assert await items_of(harness, 2) == [["a", "b", "c", "d"]]
    assert await finish_all(harness) == {(2, 0)}
    assert await harness.db.fetchval("select status from makeit3d.tasks") == "completed"
    await harness.assert_books_agree()
