"""The broker dies in every way: requests are accepted, work goes on with the sweep, bells ring again afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from typing import cast

import pytest
import redis
from app.embedded.valkey import EmbeddedValkey
from app.tasks.celery_app import SWEEP_TASK

from tests.chaos.proxy import Proxy
from tests.chaos.stack import Stack, running_stack, valkey_socket
from tests.e2e.gateway import wait_for
from tests.servers import PostgresServer, running_valkey

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def broker() -> Generator[EmbeddedValkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def shared(postgres18: PostgresServer, broker: EmbeddedValkey) -> Generator[Stack]:
    with running_stack(postgres18, broker, openai_requests_per_minute=1000) as stack:
        yield stack


def bells_are_heard(stack: Stack, broker: EmbeddedValkey) -> None:
    """A bell of the API reaches the queue, and the worker takes it from there."""
    with redis.Redis(unix_socket_path=str(valkey_socket(broker))) as client:
        client.config_resetstat()
        task = stack.accepted("text-to-image")
        wait_for(lambda: True if "cmdstat_lpush" in client.info("commandstats") else None)
        wait_for(lambda: True if client.llen("normal") == 0 else None)
    stack.complete(task)


def beat_rings_for_sweeps(stack: Stack, broker: EmbeddedValkey) -> None:
    """While the worker stands still, so that what beat rings stays in the queue."""
    worker = stack.children["worker"].pid
    assert worker is not None
    with redis.Redis(unix_socket_path=str(valkey_socket(broker))) as client:
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: True if any(SWEEP_TASK.encode() in bell for bell in _queue(client)) else None)
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_for(lambda: True if not _queue(client) else None)


def _queue(client: redis.Redis) -> list[bytes]:
    return cast("list[bytes]", client.lrange("normal", 0, -1))


def test_a_flushed_broker_loses_bells_and_no_work(stack: Stack, broker: EmbeddedValkey) -> None:
    tasks = [stack.accepted("text-to-image") for _ in range(2)]
    with redis.Redis(unix_socket_path=str(valkey_socket(broker))) as client:
        client.flushall()
    stack.complete(*tasks)
    bells_are_heard(stack, broker)
    stack.nothing_is_left_over()


@pytest.mark.parametrize("away", [Proxy.refuse, Proxy.stall, Proxy.mute])
def test_without_a_broker_everything_goes_on(
    stack: Stack, broker: EmbeddedValkey, away: Callable[[Proxy], None]
) -> None:
    before = stack.accepted("text-to-image")
    away(stack.broker)
    during = stack.accepted("text-to-image")
    wait_for(lambda: True if stack.parts()["broker"] == "unreachable" else None)
    assert stack.get("/health/live").status_code == 200
    stack.complete(before, during)
    stack.broker.heal()
    wait_for(lambda: True if stack.parts()["broker"] == "ok" else None)
    bells_are_heard(stack, broker)
    stack.nothing_is_left_over()


def test_a_broker_that_was_killed_and_comes_back(stack: Stack, broker: EmbeddedValkey) -> None:
    task = stack.accepted("text-to-image")
    broker.kill()
    during = stack.accepted("text-to-image")
    stack.complete(task, during)
    broker.start()
    wait_for(lambda: True if stack.parts()["broker"] == "ok" else None)
    bells_are_heard(stack, broker)
    beat_rings_for_sweeps(stack, broker)
    assert all(child.exit_code() is None for child in stack.children.values())
    stack.nothing_is_left_over()
