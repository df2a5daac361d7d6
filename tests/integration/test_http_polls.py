"""Polls that are answered before the framework, and from the cache, are answered as the route answers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from app.db.pool import Database
from app.queue.plans import RequestPlan
from app.services.notifier import Notifier
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests import kernel
from tests.integration.factories import accept, image_plan, make_worker, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.identities import project
from tests.integration.test_http_tasks import work

APP, ELSEWHERE = "https://app.example", "https://elsewhere.example"
TASK = "task-polls-01"


@pytest.fixture
async def gate(database: str, tmp_path: Path) -> AsyncGenerator[Gateway]:
    async with project() as signer:
        settings = settings_for(database, tmp_path, supabase_url=signer.supabase_url, cors_origins=[APP])
        async with gateway(settings) as opened:
            await heard(opened)
            opened.http.headers.update(signer.bearer(opened.user_id))
            yield opened


async def heard(gate: Gateway) -> None:
    """Until the cache takes something: the listener was confirmed."""
    polls = gate.services.polls
    async with asyncio.timeout(20):
        while not polls.store(polls.begin(), uuid4(), "probe", task_id="probe", answer=ANSWER, size=1):
            await asyncio.sleep(0.02)
    polls.changed("probe")
    polls.confirmed(time.monotonic() + 3600)  # how often the real one is, is not for these tests


ANSWER: Any = object()


def polls(source: str) -> float:
    return REGISTRY.get_sample_value("makeit3d_polls_total", {"source": source}) or 0.0


async def sent(gate: Gateway, method: str, path: str, **headers: str) -> tuple[httpx.Response, str]:
    """The answer, and who gave it."""
    before = {source: polls(source) for source in ("cache", "database")}
    answer = await gate.http.request(method, path, headers=headers)
    gave = [source for source, count in before.items() if polls(source) > count]
    return answer, gave[0] if gave else "route"


def shown(answer: httpx.Response) -> dict[str, Any]:
    """All of it but the moment and the id of the request."""
    headers = [(name.lower(), value) for name, value in answer.headers.raw]
    assert answer.headers["x-request-id"]
    kept = [(name, value) for name, value in headers if name not in (b"date", b"x-request-id")]
    return {
        "status": answer.status_code,
        "headers": kept,
        "names": [name for name, _ in headers],
        "body": answer.content,
    }


@pytest.mark.parametrize(("method", "origin"), [("GET", None), ("GET", ELSEWHERE), ("HEAD", APP)])
async def test_whoever_answers_a_poll_says_the_same(gate: Gateway, method: str, origin: str | None) -> None:
    plan = await accept(gate.db, image_plan(gate.user_id, TASK))
    etag = (await gate.http.get(f"/tasks/{TASK}/status", params={"wait": 0})).headers["etag"]
    key = gate.headers()["Authorization"].removeprefix("Bearer ")
    service = {"Authorization": "", "apikey": key, "X-User-Id": str(gate.user_id)}
    cases: list[dict[str, str]] = [
        {},
        service,
        *({"If-None-Match": tag} for tag in (etag, f"W/{etag}", f'"x", {etag}', f'W/"x" , W/{etag}', "*", '"x"', "")),
    ]
    common = {} if origin is None else {"Origin": origin}
    served: list[str] = []
    for name in (TASK, str(plan.job_id), str(plan.job_id).upper()):
        path = f"/tasks/{name}/status"
        for case in cases:
            route, by = await sent(gate, method, f"{path}?wait=0", **common, **case)
            assert by == "route"
            gate.services.polls.changed(TASK)
            for asked, expected in (
                (path, "database"),
                (path, "cache"),
                (f"{path}/", "cache"),
                (f"{path}?service=tripo", "cache"),
                (f"{path}/?service=", "cache"),
            ):
                answer, by = await sent(gate, method, asked, **common, **case)
                assert by in (expected, "database"), (asked, case)  # an entry may end meanwhile
                served.append(by)
                assert shown(answer) == shown(route), (asked, case)
    assert served.count("cache") > len(served) / 2


async def test_what_is_no_plain_poll_goes_to_the_route(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, TASK))
    path = f"/tasks/{TASK}/status"
    await gate.http.get(path)
    for method, asked, headers in (
        ("GET", f"{path}?wait=0", {}),
        ("GET", f"{path}?service=a&wait=0", {}),
        ("GET", f"{path}?x=1", {}),
        ("GET", path, {"Prefer": "wait=0"}),
        ("GET", f"/tasks/{TASK}", {}),
        ("GET", f"/tasks/%74ask/{TASK}/status", {}),
        ("GET", f"{path}//", {}),
        ("POST", path, {}),
        ("OPTIONS", path, {"Origin": APP, "Access-Control-Request-Method": "GET"}),
        ("GET", path, {"Authorization": "Bearer nonsense"}),
        ("GET", path, {"Authorization": "", "apikey": "nonsense"}),
    ):
        _, by = await sent(gate, method, asked, **headers)
        assert by == "route", (method, asked)
    whole = await gate.http.request("GET", path, content=b"a body")
    assert whole.status_code == 200
    assert (await gate.http.get(path, headers={"X-Request-Id": "mine.1"})).headers["x-request-id"] == "mine.1"
    forged = await gate.http.get(path, headers={"X-Request-Id": "a b"})
    assert forged.headers["x-request-id"] != "a b"


async def test_refusals_are_the_same_with_and_without_the_cache(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, TASK))
    await gate.http.get(f"/tasks/{TASK}/status")
    stranger = gate.headers(await gate.another_user())
    for path in (f"/tasks/{TASK}/status", f"/tasks/{uuid4()}/status", "/tasks/no/status"):
        answers = [await gate.http.get(path, headers=stranger, params=query) for query in ({}, {"wait": 0})]
        bodies = [{**answer.json(), "request_id": None} for answer in answers]
        assert bodies[0] == bodies[1]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert list(answers[0].headers) == list(answers[1].headers)
    assert not gate.services.polls.find(gate.user_id, "no")


async def finished(gate: Gateway, task: str, path: str) -> httpx.Response:
    await accept(gate.db, image_plan(gate.user_id, task))
    await gate.http.get(path)
    await work(gate)
    return await gate.http.get(path)


async def test_a_final_status_is_never_kept(gate: Gateway) -> None:
    path = f"/tasks/{TASK}/status"
    assert (await finished(gate, TASK, path)).json()["status"] == "complete"
    assert len(gate.services.polls) == 0
    # another process accepts more for the task, and its hint is still on its way
    await accept(gate.db, image_plan(gate.user_id, TASK))
    assert (await gate.http.get(path)).json()["status"] == "pending"


async def test_accepting_and_canceling_take_the_answer_away_before_they_answer(gate: Gateway) -> None:
    path = f"/tasks/{TASK}/status"
    first = await gate.http.post("/generate/text-to-model", json={"task_id": TASK, "prompt": "a fox"})
    assert (await gate.http.get(path)).json()["job_id"] == first.json()["job_id"]
    second = await gate.http.post("/generate/text-to-model", json={"task_id": TASK, "prompt": "another fox"})
    assert (await gate.http.get(path)).json()["job_id"] == second.json()["job_id"]
    await gate.http.post(f"/tasks/{TASK}/cancel")
    assert (await gate.http.get(path)).json()["status"] == "canceled"


async def claimed_elsewhere(gate: Gateway, plan: RequestPlan) -> None:
    worker = await make_worker(gate.db)
    found = await kernel.claim(gate.db, worker_id=worker.id, lanes=worker.lanes, limit=1)
    assert [job.claim.job_id for job in found.jobs] == [plan.job_id]


async def test_a_change_in_another_process_is_seen_when_it_is_heard(gate: Gateway, settings: Any) -> None:  # noqa: ANN401
    path = f"/tasks/{TASK}/status"
    plan = await accept(gate.db, image_plan(gate.user_id, TASK))
    assert (await gate.http.get(path)).json()["status"] == "pending"
    await claimed_elsewhere(gate, plan)
    other = await Database.open(settings, kernel.ASSET_KINDS, application_name="makeit3d another")
    notifier = Notifier(other)
    try:
        notifier.changed([(TASK, gate.user_id)])
        await notifier.aclose()
    finally:
        await other.close()
    async with asyncio.timeout(20):
        while gate.services.polls.find(gate.user_id, TASK) is not None:
            await asyncio.sleep(0.01)
    assert (await gate.http.get(path)).json()["status"] == "processing"


async def test_one_line_stands_for_many_polls(gate: Gateway) -> None:
    await accept(gate.db, image_plan(gate.user_id, TASK))
    path = f"/tasks/{TASK}/status"
    await gate.http.get(path)
    counted = {"method": "GET", "route": "/tasks/{id}/status", "status": "200"}
    before = REGISTRY.get_sample_value("makeit3d_http_requests_total", counted) or 0.0
    with capture_logs() as logs:
        for _ in range(250):
            await gate.http.get(path)
    lines = [line for line in logs if line["event"] == "request" and "polls" in line and line["duration_ms"] < 1000]
    assert 2 <= len(lines) <= 3
    assert lines[0]["path"] == path
    assert lines[0]["user_id"] == str(gate.user_id)
    assert REGISTRY.get_sample_value("makeit3d_http_requests_total", counted) == before + 250
