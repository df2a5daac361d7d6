"""No commit, send or transfer of the engine without a crash point on both sides, and no point without a case."""

from __future__ import annotations

from pathlib import Path

import app.db
import pytest
from app.db.sql import load
from app.domain.crash_points import POINTS, Boundary

from tests.chaos.crashes import matrix
from tests.unit.crash_points.survey import crossings, crossings_in, writers

# where: what and why it needs no point
EXCEPTIONS = {
    ("app/services/cancellation.py", "queue.cancel"): "one commit ends it all; tests/chaos/test_cancel.py",
    ("app/services/publisher.py", "maintenance.advance_dependents"): "its statement is a point by its name",
    ("app/services/retries.py", "queue.accept"): "an operator's command, which says when it is done",
    ("app/services/uploads.py", "storage.upload"): "a client's upload is no job; what breaks off is swept away",
    ("app/tasks/celery_app.py", "celery.send_task"): "runs in a thread, inside the bell's boundary in bells.py",
}


# statements that write: why they need no case
_UPLOAD = "a client's upload is no job; what breaks off is swept away"
_BREAKER = "lies within the boundary that says how the provider took a call"
_SLOT = "lies within the boundary of a slot that is lent"
_STARTING = "written again at the next start"
_END = "lies within the boundary of whatever ends or requeues the job"
_CALL = "lies within the boundary of what becomes of a paid call"
_PERMITS = "lies within the boundary of permits that came free"
_PROMOTION = "lies within the boundaries of promotion and of a sweep"
WITHOUT_CASE = {
    "accept_request": "lies within the boundary of accepting",
    "claim_jobs": "lies within the boundary of a claim",
    "finish_jobs": _END,
    "finish_outputs": _END,
    "advance_steps": _END,
    "refuse_jobs": _END,
    "roll_up": _END,
    "requeue_jobs": _END,
    "expire_deadlines": _END,
    "expire_leases": _END,
    "expire_stuck": _END,
    "expire_unstarted": _END,
    "add_dependencies": "lies within the boundary of accepting",
    "keep_end": "only after a defect; without it the lease is released, as when an answer was lost",
    "expire_stranded": _END,
    "cancel_jobs": "one commit ends it all; tests/chaos/test_cancel.py",
    "record_items": "what is lost is told when the job ends",
    "record_job_progress": "what is lost is told by the next progress, or when the job ends",
    "add_items": "by key, so the next run adds those that are not there",
    "remove_worker": "the last word of a process that ends; without it the row is buried",
    "ensure_providers": _STARTING,
    "ensure_pools": _STARTING,
    "insert_input_file": _UPLOAD,
    "store_input_file": _UPLOAD,
    "insert_input_asset": _UPLOAD,
    "tell_input_asset": _UPLOAD,
    "mark_file_removed": "lies within the boundary of the removal",
    "lend_slot": _SLOT,
    "take_slot": _SLOT,
    "renumber_outputs": "lies within the boundary of giving a call up",
    "count_failure": _BREAKER,
    "close_breaker": _BREAKER,
    "postpone_probe": _BREAKER,
    "intend_call": _CALL,
    "withdraw_call": _CALL,
    "submit_call": _CALL,
    "refuse_call": _CALL,
    "lose_call": _CALL,
    "take_call_back": _CALL,
    "settle_call": _CALL,
    "record_call_progress": _CALL,
    "adopt_calls": "lies within the boundary of adoption",
    "settle_abandoned": "lies within the boundary of giving a call up",
    "release_permits": _PERMITS,
    "release_ownerless": _PERMITS,
    "promote_due": _PROMOTION,
    "wake_for_reply": _PROMOTION,
    "move_kept_results": _PROMOTION,
    "record_migration": "no process runs while the database is migrated",
    "notify_oneself": "an echo to itself",
    "notify_doctor": "a notification that nobody needs: no job is near",
    "notify_events": "a hint that may be lost; readers look by themselves",
    "remove_old_events": "forgets what is weeks old, round by round",
}


def statements_that_write() -> dict[str, str]:
    """File by statement. A name stands for one statement only."""
    found: dict[str, str] = {}
    package = Path(app.db.__file__ or "").parent.parent
    for path in sorted(path for folder in ("db", "queue", "calls") for path in package.joinpath(folder).rglob("*.sql")):
        for statement in load(str(path)).values():
            if statement.writes:
                assert statement.name not in found
                found[statement.name] = path.name
    return found


def test_every_crossing_has_a_point_on_both_sides() -> None:
    bare = [c for c in crossings() if c.boundary is None and (c.path, c.call) not in EXCEPTIONS]
    assert [str(crossing) for crossing in bare] == []


def test_no_exception_outlives_its_reason() -> None:
    bare = {(crossing.path, crossing.call) for crossing in crossings() if crossing.boundary is None}
    assert set(EXCEPTIONS) == bare


def test_every_boundary_is_somewhere() -> None:
    there = {crossing.boundary for crossing in crossings()}
    # a bell is no call of the database or of a provider; the statements about slots have names
    without_call = {"RING", "NEXT_STEP", "SLOT"}
    assert {boundary.name for boundary in Boundary} - there <= without_call


@pytest.mark.parametrize("full", [False, True])
def test_every_point_has_a_case(full: bool) -> None:
    whole = [matrix.cases(some, full=full) for some in (matrix.IMAGES, matrix.MODELS, matrix.BOTH)]
    generated = {case.point for part in whole for case in part}
    generated |= set(matrix.all_points((*matrix.API, *matrix.PROCESS, *matrix.APART)))
    statements = set(statements_that_write())
    assert set(WITHOUT_CASE) <= statements
    assert {*POINTS, *matrix.all_points(statements - set(WITHOUT_CASE))} == generated
    assert not statements & {boundary.value for boundary in Boundary}


def test_the_survey_knows_who_writes() -> None:
    known = writers()
    assert {"maintenance.sweep", "journal.intend", "permits.release"} <= known
    assert not known & {"journal.calls_of", "tasks.get", "assets.outputs_of_step", "files.by_id"}


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("await journal.settled(database, call_id)", "journal.settled"),
        ("await self._queue.finish([])", "queue.finish"),
        ("await sweep(self._queue)", "maintenance.sweep"),
        ("await self._provider.send(prepared)", "provider.send"),
        ("await self._storage.upload(bucket, key, path)", "storage.upload"),
        ("await self._database.execute('delete from jobs')", "self._database.execute"),
    ],
)
def test_the_survey_sees_what_lies_bare(line: str, call: str) -> None:
    head = "from app.calls import journal\nfrom app.queue.maintenance import sweep\nasync def f(self):\n"
    [bare] = crossings_in(f"{head}    {line}", "f.py", writers())
    assert (bare.call, bare.boundary) == (call, None)
    [kept] = crossings_in(f"{head}    with boundary(Boundary.SEND):\n        {line}", "f.py", writers())
    assert (kept.call, kept.boundary) == (call, "SEND")
    late = f"{head}    with boundary(Boundary.SEND):\n        async def later():\n            {line}"
    assert [crossing.boundary for crossing in crossings_in(late, "f.py", writers())] == [None]
