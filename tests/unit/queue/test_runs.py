"""The end of a run that cannot be written now is kept as JSON, whole."""

from __future__ import annotations

from uuid import UUID

import orjson
from app.domain.jobs import Claim, ClaimedJob, Completed, FollowUp, ItemEnd, Settlement
from app.domain.params import ObjectRef
from app.queue.runs import RunEnd

JOB = ClaimedJob(
    claim=Claim(UUID(int=1), UUID(int=2), 3),
    task_id="task-of-runs",
    request_id=UUID(int=4),
    user_id=UUID(int=5),
    step=1,
    type="polish",
    provider=None,
    pool="local",
    lane="normal",
    params={},
    failures=0,
    deferrals=0,
    crashes=0,
    alone=False,
    age_seconds=0.0,
    time_left_seconds=None,
)


def test_it_survives_its_row() -> None:
    pictures = {"picture": (ObjectRef("bucket", "key", etag="e", size=3),)}
    later = FollowUp("image-to-model", {"pbr": True}, key="one", task_id="task-of-others", inputs=pictures)
    outcome = Completed(
        items=(ItemEnd("a", "done"),), usage={"pebbles": 1}, follow_ups=(later, FollowUp("x", {}, "two"))
    )
    end = RunEnd.of(Settlement(JOB, outcome))
    assert RunEnd.from_json(orjson.loads(orjson.dumps(end.as_json()))) == end
    assert end.task_ids == ["task-of-runs", "task-of-others"]
