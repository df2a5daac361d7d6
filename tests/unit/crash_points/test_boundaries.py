"""No commit, send or transfer of the engine without a crash point on both sides, and no point without a case."""

from __future__ import annotations

import pytest
from app.domain.crash_points import POINTS, Boundary

from tests.chaos.crashes import matrix
from tests.unit.crash_points.survey import crossings, crossings_in, writers

# where: what and why it needs no point
EXCEPTIONS = {
    ("app/services/breaker.py", "breakers.failed"): "counted inside the boundary of its caller, a method further up",
    ("app/services/breaker.py", "breakers.postpone"): "counted inside the boundary of its caller, a method further up",
    ("app/services/breaker.py", "breakers.close"): "an operator's command, which says when it is done",
    ("app/services/cancellation.py", "tasks.cancel"): "one commit ends it all; tests/chaos/test_cancel.py",
    ("app/services/doctor/database.py", "doctor.hears"): "a notification that nobody needs: no job is near",
    ("app/services/event_stream.py", "listener.listen"): "an echo to itself, and hints that may be lost",
    ("app/services/notifier.py", "events.notify"): "a hint that may be lost; readers look by themselves",
    ("app/services/retries.py", "requests.accept"): "an operator's command, which says when it is done",
    ("app/services/sweeper.py", "events.remove_older_than"): "forgets what is weeks old, round by round",
    ("app/services/uploads.py", "files.insert_input"): "a client's upload is no job; what breaks off is swept away",
    ("app/services/uploads.py", "files.mark_removed"): "a client's upload is no job; what breaks off is swept away",
    ("app/services/uploads.py", "storage.upload"): "a client's upload is no job; what breaks off is swept away",
    ("app/services/uploads.py", "assets.store_upload"): "the last commit of an upload",
    ("app/tasks/celery_app.py", "celery.send_task"): "runs in a thread, inside the bell's boundary in bells.py",
}


def test_every_crossing_has_a_point_on_both_sides() -> None:
    bare = [c for c in crossings() if c.boundary is None and (c.path, c.call) not in EXCEPTIONS]
    assert [str(crossing) for crossing in bare] == []


def test_no_exception_outlives_its_reason() -> None:
    bare = {(crossing.path, crossing.call) for crossing in crossings() if crossing.boundary is None}
    assert set(EXCEPTIONS) == bare


def test_every_boundary_is_somewhere() -> None:
    there = {crossing.boundary for crossing in crossings()}
    without_call = {"RING", "NEXT_STEP"}  # a bell is no call of the database or of a provider
    assert {boundary.name for boundary in Boundary} - there <= without_call


@pytest.mark.parametrize("full", [False, True])
def test_every_point_has_a_case(full: bool) -> None:
    whole = [matrix.cases(some, full=full) for some in (matrix.IMAGES, matrix.MODELS, matrix.BOTH)]
    generated = {case.point for part in whole for case in part}
    generated |= set(matrix.all_points((*matrix.API, *matrix.PROCESS, *matrix.APART)))
    assert set(POINTS) == generated


def test_the_survey_knows_who_writes() -> None:
    known = writers()
    assert {"settle.settle", "claims.claim", "provider_calls.intend", "requests.accept", "workers.sweep"} <= known
    assert not known & {"provider_calls.calls_of", "tasks.get", "assets.output_of_step", "files.by_id"}


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("await provider_calls.settled(database, call_id)", "provider_calls.settled"),
        ("await settle(database, [])", "settle.settle"),
        ("await self._provider.submit(prepared)", "provider.submit"),
        ("await self._storage.upload(bucket, key, path)", "storage.upload"),
        ("await self._database.execute('delete from jobs')", "self._database.execute"),
    ],
)
def test_the_survey_sees_what_lies_bare(line: str, call: str) -> None:
    head = "from app.db import provider_calls\nfrom app.db.settle import settle\nasync def f(self):\n"
    [bare] = crossings_in(f"{head}    {line}", "f.py", writers())
    assert (bare.call, bare.boundary) == (call, None)
    [kept] = crossings_in(f"{head}    with boundary(Boundary.SEND):\n        {line}", "f.py", writers())
    assert (kept.call, kept.boundary) == (call, "SEND")
    late = f"{head}    with boundary(Boundary.SEND):\n        async def later():\n            {line}"
    assert [crossing.boundary for crossing in crossings_in(late, "f.py", writers())] == [None]
