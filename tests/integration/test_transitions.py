"""Every way in which a job changes: each participant sees each job that ended once, or nothing happened at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from app.calls import journal
from app.domain.jobs import Completed, Deferred, Failed, HandedBack, ItemEnd, Outcome, Retry, Settlement
from app.domain.user_limits import NO_LIMITS
from app.errors import AppError, ErrorCode
from app.queue.accept import TaskOwnedByAnother
from app.queue.contracts import Tx
from app.queue.maintenance import advance_dependents, expire_stranded, sweep
from app.queue.runs import RunEnd
from app.queue.states import TRANSITIONS
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.settler import Settler, Written

from tests.integration.factories import (
    call_intent,
    image_plan,
    local_step,
    make_user,
    make_worker,
    model_plan,
    sketch_plan,
    stepped_plan,
)
from tests.integration.http_gateway import DeafBells
from tests.integration.ledger import TYPES, Harness, harness

__all__ = ["harness"]

# --- every path ------------------------------------------------------------------------------------------------------


async def finish_completed(h: Harness) -> None:
    job = await h.accept_and_claim(image_plan(h.user, "task-completed"))
    assert await h.finish(job, Completed())
    assert not await h.finish(job, Completed())


async def finish_failed_with_steps(h: Harness) -> None:
    job = await h.accept_and_claim(sketch_plan(h.user, "task-failed-01"))
    assert await h.finish(job, Failed(ErrorCode.INTERNAL_ERROR, "broken"))


async def cancel(h: Harness) -> None:
    await h.accept_and_claim(sketch_plan(h.user, "task-cancel-01"))
    for _ in range(2):
        await h.queue.cancel("task-cancel-01", h.user)


async def erase(h: Harness) -> None:
    await h.accept_and_claim(sketch_plan(h.user, "task-erased-01"))
    for _ in range(2):
        await h.queue.erase(h.user)


async def expire_lease(h: Harness) -> None:
    job = await h.accept_and_claim(image_plan(h.user, "task-crashes-1"))
    for expected in ("queued", "failed"):
        await h.lose_workers()
        await sweep(h.queue, ttl_seconds=60, max_crashes=2)
        assert await h.status(job.claim.job_id) == expected
        await h.claim()


async def expire_deadline(h: Harness) -> None:
    job = await h.accept_and_claim(sketch_plan(h.user, "task-overdue-1"))
    await h.db.execute("update makeit3d.jobs set deadline = now() - interval '1 hour' where id = $1", job.claim.job_id)
    for _ in range(2):
        await sweep(h.queue, ttl_seconds=60, max_crashes=3)


async def expire_stranded_jobs(h: Harness) -> None:
    await h.accept(model_plan(h.user, "task-stranded"))
    await h.db.execute("update makeit3d.jobs set created_at = created_at - interval '1 day'")
    await h.db.execute(
        "update makeit3d.providers set state = 'open', opened_at = now() - interval '1 day', tripped_at = now(),"
        " probe_at = now() + interval '1 hour', error_code = 'provider_unavailable' where name = 'tripo'"
    )
    for _ in range(2):
        await expire_stranded(h.queue, max_wait_seconds=60)


async def expire_unstarted(h: Harness) -> None:
    """One of two steps that was not begun in time, and not one that was."""
    begun = await h.accept_and_claim(replace(image_plan(h.user, "task-in-time-1"), expires_in=60))
    await h.accept(replace(sketch_plan(h.user, "task-unstarted"), expires_in=60))
    await h.db.execute("update makeit3d.jobs set expires_at = expires_at - interval '1 hour'")
    for _ in range(2):
        await sweep(h.queue, ttl_seconds=60, max_crashes=3)
    assert await h.status(begun.claim.job_id) == "running"


async def fail_dependents(h: Harness) -> None:
    """Of other tasks, level by level."""
    first = await h.accept_and_claim(image_plan(h.user, "task-level-01"))
    await h.accept(replace(sketch_plan(h.user, "task-level-02"), depends_on=("task-level-01",)))
    await h.accept(replace(image_plan(h.user, "task-level-03"), depends_on=("task-level-02",)))
    assert await h.finish(first, Failed(ErrorCode.INTERNAL_ERROR, "broken"))
    for _ in range(2):
        await advance_dependents(h.queue, limited=False)


async def finish_kept_end(h: Harness) -> None:
    job = await h.accept_and_claim(image_plan(h.user, "task-kept-end-1"))
    await h.queue.keep_end(Settlement(job, Completed()))
    for _ in range(2):
        await sweep(h.queue, ttl_seconds=60, max_crashes=3)


async def expire_stuck(h: Harness) -> None:
    job = await h.accept_and_claim(image_plan(h.user, "task-kept-end-2"))
    h.ledger.fails_on = {job.claim.job_id}
    await h.queue.keep_end(Settlement(job, Completed()))
    for _ in range(2):
        await sweep(h.queue, ttl_seconds=60, max_crashes=3)


async def requeue(h: Harness) -> None:
    """Nobody ended: retry, snooze, a process that stops, and a lease that its worker does not know."""
    job = await h.accept_and_claim(image_plan(h.user, "task-requeue-1"))
    for outcome in (
        Retry(ErrorCode.INTERNAL_ERROR, "again", 0),
        Deferred(None, None, 0),
        HandedBack(),
    ):
        assert await h.finish(job, outcome)
        (job,) = await h.claim()
    committed = await h.queue.requeue(job.claim.worker_id, [(job.claim.job_id, job.claim.attempt)])
    assert committed.lanes == {"normal"}
    assert await h.status(job.claim.job_id) == "queued"


@pytest.mark.parametrize(
    ("outcome", "freed"),
    [
        (Retry(ErrorCode.PROVIDER_UNAVAILABLE, "again", 60), {"openai"}),
        (Deferred(ErrorCode.PROVIDER_BUSY, "full", 60), {"openai"}),
        (HandedBack(), set[str]()),  # it needs its slot again at once
    ],
    ids=["retry", "snooze", "handed back"],
)
async def test_who_waits_for_a_slot_hears_of_one_that_came_free(
    harness: Harness, outcome: Outcome, freed: set[str]
) -> None:
    job = await harness.accept_and_claim(image_plan(harness.user, "task-gives-back"))
    assert (await harness.queue.finish([Settlement(job, outcome)])).committed.capacity == freed


async def test_a_snooze_whose_call_is_open_frees_no_slot(harness: Harness) -> None:
    job = await harness.accept_and_claim(image_plan(harness.user, "task-keeps-slot"))
    assert await journal.intend(harness.db, job.claim, call_intent())
    finished = await harness.queue.finish([Settlement(job, Deferred(None, None, 60))])
    assert finished.committed.capacity == set()


PATHS: dict[Callable[[Harness], Awaitable[None]], set[tuple[str, str, str]]] = {
    finish_completed: {("running", "completed", "finish")},
    finish_failed_with_steps: {("running", "failed", "finish"), ("queued", "failed", "fail_dependents")},
    cancel: {("running", "canceled", "cancel"), ("queued", "canceled", "cancel")},
    erase: {("running", "canceled", "erase"), ("queued", "canceled", "erase")},
    expire_lease: {("running", "failed", "expire")},
    expire_deadline: {("running", "failed", "expire"), ("queued", "failed", "fail_dependents")},
    expire_stranded_jobs: {("queued", "failed", "expire")},
    expire_unstarted: {("queued", "failed", "expire"), ("queued", "failed", "fail_dependents")},
    fail_dependents: {("running", "failed", "finish"), ("queued", "failed", "fail_dependents")},
    finish_kept_end: {("running", "completed", "finish")},
    expire_stuck: {("running", "failed", "expire")},
    requeue: set(),
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
async def test_each_participant_sees_each_ended_job_once(
    harness: Harness, path: Callable[[Harness], Awaitable[None]]
) -> None:
    await path(harness)
    await harness.assert_books_agree()
    assert await harness.changes() == PATHS[path]


def test_every_end_in_the_table_has_a_path() -> None:
    ends = {
        (old.value, new.value, by.value)
        for (old, new), who in TRANSITIONS.items()
        for by in who
        if old is not None and new.is_final
    }
    assert set().union(*PATHS.values()) == ends


# --- all or nothing --------------------------------------------------------------------------------------------------


async def test_a_refusal_leaves_nothing_and_becomes_the_problem(harness: Harness) -> None:
    harness.ledger.refuses = True
    with pytest.raises(AppError) as refused:
        await harness.accept(image_plan(harness.user, "task-refused-1"))
    assert (refused.value.error, refused.value.extra) == (ErrorCode.USER_BUDGET_EXCEEDED, {"missing": 5})
    for table in ("makeit3d.tasks", "makeit3d.jobs", "concept_images", "makeit3d.events", "ledger"):
        assert await harness.db.fetchval(f"select count(*) from {table}") == 0  # noqa: S608 - constants


async def test_nobody_takes_part_in_what_is_not_accepted(harness: Harness) -> None:
    await harness.accept(image_plan(harness.user, "task-owned-001"))
    with pytest.raises(TaskOwnedByAnother):
        await harness.accept(image_plan(await make_user(harness.db), "task-owned-001"))
    assert await harness.db.fetchval("select count(*) from ledger") == 1


async def test_an_end_that_a_participant_cannot_write_is_no_end(harness: Harness) -> None:
    job = await harness.accept_and_claim(image_plan(harness.user, "task-unwritten"))
    harness.ledger.fails_on = {job.claim.job_id}
    with pytest.raises(ValueError, match="cannot"):
        await harness.finish(job, Completed())
    assert await harness.status(job.claim.job_id) == "running"
    await harness.assert_books_agree()
    assert await harness.finish(job, Failed(ErrorCode.INTERNAL_ERROR, "not recorded"))
    await harness.assert_books_agree()


async def test_one_job_that_cannot_be_finished_holds_back_no_other(harness: Harness) -> None:
    await harness.accept(image_plan(harness.user, "task-poisoned"))
    await harness.accept(image_plan(harness.user, "task-healthy-1"))
    jobs = await harness.claim()
    poisoned = next(job for job in jobs if job.task_id == "task-poisoned")
    harness.ledger.fails_on = {poisoned.claim.job_id}
    notifier = Notifier(harness.db)
    publisher = Publisher(harness.queue, DeafBells(), notifier, NO_LIMITS)
    settler = Settler(harness.queue, publisher, window_seconds=0.05)
    assert await asyncio.gather(*(settler.settle(Settlement(job, Completed())) for job in jobs)) == [Written.DONE] * 2
    await settler.aclose()
    await publisher.aclose()
    await notifier.aclose()
    ends = await harness.db.fetch("select task_id, status, error_code from makeit3d.jobs order by task_id")
    assert [tuple(end) for end in ends] == [
        ("task-healthy-1", "completed", None),
        ("task-poisoned", "failed", "internal_error"),
    ]
    await harness.assert_books_agree()


async def test_a_kept_end_that_nobody_can_read_fails_its_own_job(harness: Harness) -> None:
    job = await harness.accept_and_claim(image_plan(harness.user, "task-unreadable"))
    other = await harness.accept_and_claim(image_plan(harness.user, "task-readable1"))
    await harness.queue.keep_end(Settlement(other, Completed()))
    await harness.db.execute(
        """update makeit3d.jobs set stuck = '{"columns": {"status": "completed"}}' where id = $1""", job.claim.job_id
    )
    swept = await sweep(harness.queue, ttl_seconds=60, max_crashes=3)
    assert swept is not None
    assert swept.unstuck == 2
    assert [await harness.status(one.claim.job_id) for one in (job, other)] == ["failed", "completed"]
    await harness.assert_books_agree()


async def test_a_connection_that_dies_before_the_commit_leaves_neither_side(harness: Harness) -> None:
    job = await harness.accept_and_claim(image_plan(harness.user, "task-cut-off-1"))

    async def cut_off(tx: Tx) -> None:
        await harness.queue.finish_within(tx, [RunEnd.of(Settlement(job, Completed()))])
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await harness.queue.in_transaction(cut_off)
    assert await harness.status(job.claim.job_id) == "running"
    await harness.assert_books_agree()


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_who_loses_a_deadlock_tries_again(harness: Harness, end: str) -> None:
    """A participant's rows are locked by somebody who then wants the job's task."""
    job = await harness.accept_and_claim(image_plan(harness.user, "task-deadlock1"))
    failed = Settlement(job, Failed(ErrorCode.INTERNAL_ERROR, "broken"))
    async with harness.db.transaction() as connection:
        await connection.execute("select from ledger for update")
        finish, cancel = harness.queue.finish, harness.queue.cancel
        ending = asyncio.ensure_future(finish([failed]) if end == "failed" else cancel(job.task_id, harness.user))
        async with asyncio.timeout(20):
            while not await harness.db.fetchval(
                "select exists (select from pg_stat_activity where wait_event_type = 'Lock')"
            ):
                await asyncio.sleep(0.01)
        await connection.execute("select from makeit3d.tasks where id = $1 for update", job.task_id)
    await ending
    assert await harness.status(job.claim.job_id) == end
    await harness.assert_books_agree()


@pytest.mark.parametrize("turn", range(6))
async def test_of_finish_cancel_and_expire_at_once_one_wins(harness: Harness, turn: int) -> None:
    job = await harness.accept_and_claim(sketch_plan(harness.user, "task-at-once-1"))
    await harness.db.execute("update makeit3d.jobs set deadline = now() - interval '1 hour' where status = 'running'")
    ways: list[Callable[[], Awaitable[Any]]] = [
        lambda: harness.finish(job, Failed(ErrorCode.INTERNAL_ERROR, "broken")),
        lambda: harness.queue.cancel(job.task_id, harness.user),
        lambda: sweep(harness.queue, ttl_seconds=60, max_crashes=3),
    ]
    await asyncio.gather(*(way() for way in (*ways[turn % 3 :], *ways[: turn % 3])))
    await harness.assert_books_agree()
    ends = await harness.db.fetch("select distinct new from ledger")
    assert len(ends) == 1
    statuses = await harness.db.fetchrow(
        "select (select status from makeit3d.tasks), (select status from makeit3d.requests),"
        " (select string_agg(distinct status, ',') from makeit3d.jobs)"
    )
    assert statuses is not None
    assert set(statuses) == {ends[0]["new"]}


@pytest.mark.parametrize("turn", range(6))
async def test_of_all_that_may_end_a_dependent_at_once_one_wins(harness: Harness, turn: int) -> None:
    first = await harness.accept_and_claim(image_plan(harness.user, "task-before-01"))
    await harness.accept(
        replace(sketch_plan(harness.user, "task-behind-01"), depends_on=(first.task_id,), expires_in=9)
    )
    await harness.db.execute("update makeit3d.jobs set expires_at = expires_at - interval '1 hour'")
    assert await harness.finish(first, Failed(ErrorCode.INTERNAL_ERROR, "broken"))
    ways: list[Callable[[], Awaitable[Any]]] = [
        lambda: advance_dependents(harness.queue, limited=False),
        lambda: harness.queue.cancel("task-behind-01", harness.user),
        lambda: sweep(harness.queue, ttl_seconds=60, max_crashes=3),
        lambda: advance_dependents(harness.queue, limited=False),
    ]
    await asyncio.gather(*(way() for way in (*ways[turn % 4 :], *ways[: turn % 4])))
    await harness.assert_books_agree()
    ends = await harness.db.fetch(
        "select distinct j.error_code from makeit3d.jobs j join ledger l on l.job_id = j.id"
        " where j.task_id = 'task-behind-01' and l.ended_at is not null"
    )
    assert [end["error_code"] for end in ends] in (["dependency_failed"], ["canceled"], ["expired"])
    assert await harness.db.fetchval("select count(*) from makeit3d.tasks where dependents_pending") == 0


@pytest.mark.parametrize("turn", range(12))
async def test_a_request_accepted_while_its_dependency_ends_misses_nothing(harness: Harness, turn: int) -> None:
    first = await harness.accept_and_claim(image_plan(harness.user, "task-before-02"))

    async def end() -> None:
        await harness.finish(first, Completed())
        await advance_dependents(harness.queue, limited=False)

    behind = replace(image_plan(harness.user, "task-behind-02"), depends_on=(first.task_id,))
    ways = [end(), harness.accept(behind)]
    await asyncio.gather(*(ways if turn % 2 else reversed(ways)))
    assert [job.task_id for job in await harness.claim()] == ["task-behind-02"]


# --- the cost --------------------------------------------------------------------------------------------------------


CLAIM = 2  # a worker's row, and the claim


class Counted:
    """Counts the round trips of one connection."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __call__(self, query: Any) -> None:  # noqa: ANN401 - the driver's record
        self.statements.append(query.query)


@pytest.fixture
async def counted(harness: Harness) -> Counted:
    """Of everything that goes over the pool's connections, which are prepared by then."""
    counted = Counted()
    users = [await make_user(harness.db) for _ in range(3)]
    await harness.accept(sketch_plan(users[0], "task-warm-0001"))
    await harness.queue.accept(sketch_plan(users[1], "task-warm-0002"))
    await harness.queue.finish([Settlement(job, Completed()) for job in await harness.claim()])
    await harness.queue.finish([Settlement(j, Failed(ErrorCode.CANCELED, "")) for j in await harness.claim()])
    async with harness.db.transaction() as connection:
        connection.driver.add_query_logger(counted)
    counted.statements.clear()
    return counted


def statements(counted: Counted) -> int:
    found, counted.statements = counted.statements, []
    return len(found)


@pytest.mark.parametrize("participants", [(), ("ledger",)])
async def test_a_batch_takes_few_round_trips(harness: Harness, counted: Counted, participants: tuple[str, ...]) -> None:
    """Completed and failed runs of one and of two steps, with outputs, in one batch."""
    most = 9 if participants else 8
    for number in range(6):
        plan = (sketch_plan if number % 2 else image_plan)(harness.user, f"task-batch-00{number}")
        plan = replace(plan, jobs=[replace(job, participants=participants) for job in plan.jobs])
        await harness.queue.accept(plan)
        assert statements(counted) == (4 if participants else 1)
    worker = await make_worker(harness.db)
    statements(counted)
    claimed = await harness.queue.claim(worker_id=worker.id, lanes=worker.lanes, limit=100, types=TYPES)
    assert statements(counted) == 1
    assert len(claimed.jobs) == 6
    outcomes = [Completed(), Completed(), Failed(ErrorCode.INTERNAL_ERROR, "broken")]
    runs = [Settlement(job, outcomes[number % 3]) for number, job in enumerate(claimed.jobs)]
    assert len((await harness.queue.finish(runs)).jobs) == 6
    assert statements(counted) <= most
    await harness.queue.cancel(claimed.jobs[1].task_id, harness.user)
    assert statements(counted) <= most


@pytest.mark.parametrize("participants", [(), ("ledger",)])
async def test_making_later_steps_takes_no_more_round_trips(
    harness: Harness, counted: Counted, participants: tuple[str, ...]
) -> None:
    """Where a participant is told of the new jobs of a request, that is three more."""
    chunks = local_step(1, items=("a", "b"), items_per_job=1, participants=participants)
    later = local_step(2, items_from=1, items_per_job=1, participants=participants)
    await harness.queue.accept(stepped_plan(harness.user, "task-yielding", chunks, later))
    first, second = [Settlement(job, Completed(output={"items": ["a", "b"]})) for job in await harness.claim()]
    await harness.queue.finish([first])
    statements(counted)
    await harness.queue.finish([second])
    assert len(await harness.claim()) == 2
    assert statements(counted) - CLAIM <= (9 + 3 if participants else 8)


async def test_a_batch_of_single_steps_takes_one_round_trip_less(harness: Harness, counted: Counted) -> None:
    await harness.queue.accept(image_plan(harness.user, f"task-{uuid4()}"))
    claimed = await harness.claim()
    statements(counted)
    await harness.queue.finish([Settlement(job, Completed()) for job in claimed])
    assert statements(counted) <= 6


# --- what a job works through ----------------------------------------------------------------------------------------


async def test_items_are_told_as_they_end_and_fail_no_job(harness: Harness) -> None:
    plan = image_plan(harness.user, "task-items-001")
    await harness.accept(replace(plan, jobs=[replace(job, items=("a", "b", "c")) for job in plan.jobs]))
    (job,) = await harness.claim()
    recorded = await harness.queue.record_items(job.claim, [ItemEnd("a", "done", output={"width": 3})])
    assert recorded is not None
    assert recorded.tasks == {(job.task_id, harness.user)}
    row = await harness.db.fetchrow("select items_total, items_done, progress from makeit3d.jobs")
    assert row is not None
    assert tuple(row) == (3, 1, 33)
    stale = replace(job.claim, attempt=job.claim.attempt + 1)
    assert await harness.queue.record_items(stale, [ItemEnd("b", "done")]) is None
    ends = (ItemEnd("a", "done", output={"width": 3}), ItemEnd("b", "skipped"))
    broken = ItemEnd("c", "failed", ErrorCode.INPUT_NOT_IMAGE, "not an image")
    assert await harness.finish(job, Completed(items=(*ends, broken)))
    items = await harness.db.fetch("select key, status, error_code from makeit3d.job_items order by position")
    assert [tuple(item) for item in items] == [
        ("a", "done", None),
        ("b", "skipped", None),
        ("c", "failed", "input_not_image"),
    ]
    told = await harness.db.fetch("select payload from makeit3d.events where type = 'item_update' order by id")
    assert [(event["payload"]["key"], event["payload"]["status"]) for event in told] == [
        ("a", "done"),
        ("b", "skipped"),
        ("c", "failed"),
    ]
    row = await harness.db.fetchrow("select status, items_total, items_done, progress from makeit3d.jobs")
    assert row is not None
    assert tuple(row) == ("completed", 3, 3, 100)
