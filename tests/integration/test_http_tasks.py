"""Accepting, reading and canceling over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from app.config import Settings
from app.db import assets, files
from app.db.pool import Database
from app.domain.jobs import ClaimedJob, Completed, Failed, Outcome, Settlement, StoredFile
from app.errors import ErrorCode
from app.schemas.tasks import TaskDetail, TaskPage, TaskStatus

from tests import kernel
from tests.integration.factories import accept, image_plan, make_worker, model_plan, sketch_plan
from tests.integration.http_gateway import Gateway, gateway


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


async def complete(job: ClaimedJob, db: Database) -> Outcome:
    made: list[StoredFile] = []
    for slot in (await assets.slots_of(db, [job.claim.job_id]))[job.claim.job_id]:
        key = f"{slot.kind}/{job.task_id}/{slot.number}"
        announced = await files.announce(
            db, job.claim, file_id=uuid4(), bucket="b", key=key, kind="concept", content_type="x", content_key="k"
        )
        assert announced is not None
        made.append(StoredFile(announced[0], slot.id, slot.kind, "b", key, f"http://x/{key}", "image/png", 3, "00"))
    return Completed(tuple(made), "provider-task-1")


async def fail(_job: ClaimedJob, _db: Database) -> Outcome:
    return Failed(ErrorCode.PROVIDER_CONTENT_REFUSED, "It shows what may not be shown.")


async def work(gate: Gateway, outcome: Callable[[ClaimedJob, Database], Awaitable[Outcome]] = complete) -> None:
    """Do what is claimable, as a worker would."""
    worker = await make_worker(gate.db)
    claimed = await kernel.claim(gate.db, worker_id=worker.id, lanes=worker.lanes, limit=10)
    for job in claimed.jobs:
        settled = await kernel.finish(gate.db, [Settlement(job, await outcome(job, gate.db))])
        gate.services.notifier.changed(settled.committed.tasks)


async def status(gate: Gateway, name: object, **options: object) -> TaskStatus:
    answer = await gate.get(f"/tasks/{name}/status", **options)
    assert answer.status_code == 200, answer.text
    return TaskStatus.model_validate(answer.json(), extra="forbid")


def problem(answer: httpx.Response, code: str) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


async def test_a_request_is_accepted_once_per_key(gate: Gateway) -> None:
    body = {"task_id": "task-http-0001", "prompt": "a fox", "n": 2}
    first = await gate.post("/generate/text-to-image", json=body)
    assert first.status_code == 202
    accepted = first.json()
    assert accepted["celery_task_id"] == accepted["job_id"]
    assert (accepted["status"], accepted["deduplicated"]) == ("pending", False)
    assert first.headers["location"] == accepted["status_url"]
    assert accepted["status_url"].endswith("/tasks/task-http-0001/status")
    assert int(first.headers["retry-after"]) >= 1
    again = (await gate.post("/generate/text-to-image", json={**body, "background": None})).json()
    assert again == accepted | {"deduplicated": True}
    headers = {"Idempotency-Key": "mine"}
    other = (await gate.post("/generate/text-to-image", json=body, headers=headers)).json()
    assert other["job_id"] != accepted["job_id"]
    reused = await gate.post("/generate/text-to-image", json={**body, "n": 3}, headers=headers)
    assert reused.status_code == 422
    problem(reused, "idempotency_key_reused")
    assert await gate.db.fetchval("select count(*) from makeit3d.jobs") == 2
    assert await gate.db.fetchval("select count(*) from concept_images") == 4


async def test_every_operation_that_needs_no_input_object_reaches_the_queue(gate: Gateway) -> None:
    answer = await gate.post("/generate/text-to-model", json={"task_id": "task-http-0002", "prompt": "a boat"})
    assert answer.status_code == 202
    assert await gate.db.fetchval("select pool from makeit3d.jobs") == "tripo_h"
    foreign = {"task_id": "task-http-0003", "prompt": "p", "input_image_asset_url": "https://elsewhere.example/a.png"}
    problem(await gate.post("/generate/image-to-image", json=foreign), "input_url_foreign")
    draft = {"task_id": "task-http-0004", "draft_model_task_id": "0f1e2d3c"}
    problem(await gate.post("/generate/refine-model", json=draft), "draft_not_found")
    unknown = {"task_id": "task-http-0005", "prompt": "p", "provider": "nobody"}
    problem(await gate.post("/generate/text-to-model", json=unknown), "provider_not_available")


async def test_what_is_somebody_elses_is_absent(gate: Gateway) -> None:
    plan = await accept(gate.db, image_plan(gate.user_id, "task-http-0006"))
    stranger = gate.headers(await gate.another_user())
    for method, path in (
        ("GET", "/tasks/task-http-0006/status"),
        ("GET", f"/tasks/{plan.job_id}/status"),
        ("GET", "/tasks/task-http-0006"),
        ("POST", "/tasks/task-http-0006/cancel"),
        ("GET", "/tasks/no/status"),
        ("GET", f"/tasks/{uuid4()}/status"),
        ("GET", "/tasks/%00%ff-nothing/status"),
        ("GET", "/tasks/%00%00%00%00%00%00%00%00"),
        ("POST", "/tasks/%00%00%00%00%00%00%00%00/cancel"),
    ):
        answer = await gate.http.request(method, path, headers=stranger)
        assert answer.status_code == 404, path
        problem(answer, "task_not_found")
    body = {"task_id": "task-http-0006", "prompt": "a fox"}
    problem(await gate.http.post("/generate/text-to-image", json=body, headers=stranger), "task_not_found")
    problem(await gate.http.get("/tasks"), "unauthenticated")


async def test_the_status_of_a_two_step_request(gate: Gateway) -> None:
    plan = await accept(gate.db, sketch_plan(gate.user_id, "task-http-0007"))
    before = await status(gate, "task-http-0007", params={"service": "tripo"})
    assert (before.status, before.progress, before.waiting_for) == ("pending", 0, "worker")
    assert [job.waiting_for for job in before.jobs] == ["worker", "step"]
    await work(gate)
    half = await status(gate, "task-http-0007")
    assert (half.status, half.progress, half.asset_url) == ("processing", 50, None)
    assert half.result.root["image_urls"] == ["http://x/concept/task-http-0007/0"]
    await work(gate)
    done = await status(gate, "task-http-0007")
    assert (done.status, done.progress, done.job_id) == ("complete", 100, plan.job_id)
    assert done.result.root["model_url"] == done.asset_url == done.result_url == "http://x/model/task-http-0007/0"
    assert [job.provider_task_id for job in done.jobs] == ["provider-task-1"] * 2
    first = await status(gate, plan.jobs[0].id)
    assert (first.status, first.result.root["model_url"], len(first.jobs)) == ("complete", None, 1)
    assert [first.asset_url] == half.result.root["image_urls"]


async def test_a_failure_is_told_with_its_code(gate: Gateway) -> None:
    await accept(gate.db, sketch_plan(gate.user_id, "task-http-0008"))
    await work(gate, fail)
    found = await status(gate, "task-http-0008")
    assert (found.status, found.asset_url) == ("failed", None)
    assert found.error is not None
    assert found.error.code == "provider_content_refused"
    assert found.error.message == "It shows what may not be shown."
    assert found.progress < 100


async def test_a_task_shows_its_newest_request_and_a_job_its_own(gate: Gateway) -> None:
    first = await accept(gate.db, image_plan(gate.user_id, "task-http-0009"))
    await work(gate)
    second = await accept(gate.db, model_plan(gate.user_id, "task-http-0009"))
    newest = await status(gate, "task-http-0009")
    assert (newest.job_id, newest.status) == (second.job_id, "pending")
    old = await status(gate, first.job_id)
    assert (old.job_id, old.status) == (first.job_id, "complete")


async def test_an_etag_changes_with_the_document(gate: Gateway) -> None:
    await accept(gate.db, model_plan(gate.user_id, "task-http-0010"))
    path = "/tasks/task-http-0010/status"
    first = await gate.get(path)
    assert first.headers["retry-after"] == "3"  # the pace of the pool's provider
    etag = first.headers["etag"]
    for sent in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        unchanged = await gate.get(path, headers={"If-None-Match": sent})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    await work(gate)
    changed = await gate.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert "retry-after" not in changed.headers


async def waiting(gate: Gateway, count: int) -> None:
    """Until so many requests wait for changes of tasks: what they answer then can not be luck."""
    async with asyncio.timeout(10):
        while gate.services.events.waiting_for_tasks < count:
            await asyncio.sleep(0.01)


async def test_a_long_poll_ends_with_the_change(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-http-0011"))
    path = "/tasks/task-http-0011/status"
    etag = (await gate.get(path)).headers["etag"]
    polls = [
        asyncio.create_task(gate.get(path, params={"wait": 30}, headers={"If-None-Match": etag})),
        asyncio.create_task(gate.get(path, params={"wait": 30})),
    ]
    await waiting(gate, 2)
    await work(gate)
    for poll in polls:
        answer = await poll
        assert answer.status_code == 200
        assert answer.json()["status"] in ("processing", "complete")
    # what is final or already differs is answered at once, though the client would wait
    assert (await status(gate, "task-http-0011", params={"wait": 30})).status == "complete"
    late = await gate.get(path, params={"wait": 30}, headers={"If-None-Match": etag})
    assert late.status_code == 200


async def test_a_long_poll_without_a_change_is_not_modified(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-http-0012"))
    path = "/tasks/task-http-0012/status"
    etag = (await gate.get(path)).headers["etag"]
    answer = await gate.get(path, params={"wait": 0.05}, headers={"If-None-Match": etag})
    assert answer.status_code == 304
    assert (await gate.get(path, params={"wait": 0.05})).status_code == 200
    for wrong in (31, -1, "nan", "x"):
        faults = problem(await gate.get(path, params={"wait": wrong}), "validation_error")["errors"]
        assert isinstance(faults, list)
        assert faults[0]["field"] == "wait"


async def test_a_flood_of_long_polls_is_not_waited_for(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-http-0021"))
    path = "/tasks/task-http-0021/status"
    flood = {asyncio.create_task(gate.get(path, params={"wait": 30})) for _ in range(64)}
    await waiting(gate, 64)
    answer = await gate.get(path, params={"wait": 30})
    assert (answer.status_code, answer.headers["retry-after"]) == (200, "2")
    assert not any(poll.done() for poll in flood)
    other = await gate.another_user()
    await accept(gate.db, image_plan(other, "task-http-0022"))
    options: dict[str, Any] = {"params": {"wait": 30}, "headers": gate.headers(other)}
    theirs = asyncio.create_task(gate.get("/tasks/task-http-0022/status", **options))
    await waiting(gate, 65)
    gate.services.events.stop()
    await asyncio.gather(theirs, *flood)


async def test_long_polls_end_when_shutdown_begins(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-http-0013"))
    poll = asyncio.create_task(gate.get("/tasks/task-http-0013/status", params={"wait": 30}))
    await waiting(gate, 1)
    gate.services.events.stop()
    assert (await poll).json()["status"] == "pending"


async def test_canceling_is_idempotent_and_truthful(gate: Gateway) -> None:
    await accept(gate.db, sketch_plan(gate.user_id, "task-http-0014"))
    await work(gate)
    for _ in range(2):
        answer = await gate.post("/tasks/task-http-0014/cancel")
        assert answer.status_code == 200
        found = TaskStatus.model_validate(answer.json())
        assert (found.status, found.error and found.error.code) == ("canceled", "canceled")
        assert [job.status for job in found.jobs] == ["complete", "canceled"]
        assert found.result.root["image_urls"] == ["http://x/concept/task-http-0014/0"]
    await accept(gate.db, image_plan(gate.user_id, "task-http-0015"))
    await work(gate)
    answer = await gate.post("/tasks/task-http-0015/cancel")
    assert answer.status_code == 409
    problem(answer, "task_not_cancelable")


async def test_tasks_come_in_pages_newest_first(gate: Gateway) -> None:
    names = [f"task-page-{number:03}" for number in range(5)]
    for name in names:
        await accept(gate.db, image_plan(gate.user_id, name))
    await accept(gate.db, image_plan(await gate.another_user(), "task-page-other"))
    # all in one moment: the id decides then, and nothing is shown twice or left out
    await gate.db.execute("update makeit3d.tasks set created_at = now()")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = TaskPage.model_validate((await gate.get("/tasks", params=query)).json(), extra="forbid")
        seen += [task.id for task in page.tasks]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == names[::-1]
    await work(gate)
    done = (await gate.get("/tasks", params={"status": "completed"})).json()["tasks"]
    assert len(done) == 5
    assert (await gate.get("/tasks", params={"status": "failed"})).json() == {"tasks": [], "next_cursor": None}
    for query in ({"cursor": "x"}, {"cursor": "AAAA"}, {"cursor": "\x00"}, {"status": "complete"}, {"limit": 0}):
        problem(await gate.get("/tasks", params=query), "validation_error")


async def test_a_task_tells_all_that_was_asked_for(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, "task-http-0016"))
    await accept(gate.db, model_plan(gate.user_id, "task-http-0016"))
    answer = await gate.get("/tasks/task-http-0016")
    detail = TaskDetail.model_validate(answer.json(), extra="forbid")
    assert [len(request.jobs) for request in detail.requests] == [1, 1]
    assert detail.status == "queued"


async def test_a_service_needs_to_say_for_whom(gate: Gateway) -> None:
    headers = gate.headers()
    problem(await gate.http.get("/tasks", headers={**headers, "X-User-Id": "me"}), "validation_error")
    headers = {"apikey": headers["Authorization"].removeprefix("Bearer "), "X-User-Id": headers["X-User-Id"]}
    assert (await gate.http.get("/tasks", headers=headers)).status_code == 200
    nobody = gate.headers(UUID(int=7))
    body = {"task_id": "task-http-0017", "prompt": "a fox"}
    problem(await gate.http.post("/generate/text-to-image", json=body, headers=nobody), "unauthenticated")


async def test_a_request_during_an_outage_is_accepted_and_says_why_it_waits(gate: Gateway) -> None:
    await gate.db.execute(
        "update makeit3d.providers"
        " set state = 'open', failures = 1, trips = 1, error_code = 'provider_credits_exhausted',"
        " opened_at = now(), tripped_at = now(), probe_at = now() + interval '1 hour' where name = 'tripo'"
    )
    answer = await gate.post("/generate/text-to-model", json={"task_id": "task-outage-1", "prompt": "a fox"})
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert int(answer.headers["retry-after"]) <= 5  # for a first look
    seen = await gate.get("/tasks/task-outage-1/status", params={"wait": 0})  # as it is now
    document = TaskStatus.model_validate(seen.json(), extra="forbid")
    assert (document.status, document.waiting_for, document.error) == ("pending", "breaker", None)
    assert document.jobs[0].error is not None
    assert document.jobs[0].error.code == "provider_credits_exhausted"
    assert int(seen.headers["retry-after"]) == 30
    await gate.db.execute(
        "update makeit3d.providers set state = 'closed', failures = 0, trips = 0, error_code = null, opened_at = null,"
        " tripped_at = null, probe_at = null"
    )
    seen = await gate.get("/tasks/task-outage-1/status", params={"wait": 0})  # as it is now
    document = TaskStatus.model_validate(seen.json(), extra="forbid")
    assert (document.waiting_for, document.jobs[0].error) == ("worker", None)
    assert int(seen.headers["retry-after"]) == 3
