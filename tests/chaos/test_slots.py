"""Slots as the providers count them: never exceeded over several processes, whatever is killed and canceled.

The providers would take far more calls at a time than the gateway's settings allow, and say how many they had.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Generator

import asyncpg
import pytest

from tests.e2e.gateway import Gateway, User, gateway_in_new_home, wait_for

pytestmark = pytest.mark.chaos

H_SLOTS, OPENAI_SLOTS = 3, 4
SETTINGS = {
    "BFF_TRIPO_H_SLOTS": str(H_SLOTS),
    "BFF_OPENAI_SLOTS": str(OPENAI_SLOTS),
    "SANDBOX_WORK_SECONDS": "0.6",
    "SANDBOX_KNOBS": json.dumps({"pools": {"h": 50}, "drawing": "stock"}),
}


@pytest.fixture(scope="module")
def gateway() -> Generator[Gateway]:
    """The providers decline every piece of work, but only when it is done: cheap for them, and a slot all the same."""
    with gateway_in_new_home(**SETTINGS) as running:
        running.fault("tripo.task", "failed", count=None)
        running.fault("openai", "moderation_output", count=None)
        yield running


def is_under_way(user: User, task_id: str) -> bool:
    return user.status(task_id)["status"] == "processing"


def cancel_one_under_way(orders: list[tuple[User, str]]) -> str:
    """Cancel a task whose call is (most likely) open; its id."""

    def find() -> str | None:
        for user, task_id in orders:
            if is_under_way(user, task_id) and user.post(f"/tasks/{task_id}/cancel", {}).is_success:
                return task_id
        return None

    return wait_for(find)


def test_models_over_processes_that_die_and_tasks_that_are_canceled(gateway: Gateway) -> None:
    users = [gateway.new_user() for _ in range(3)]
    gateway.concurrency()
    before = len(gateway.paid())
    with gateway.more_workers(2) as workers:
        orders = [(users[number % 3], users[number % 3].ask("text-to-model")) for number in range(24)]
        canceled: set[str] = set()
        for worker in workers:
            paid = len(gateway.paid())
            wait_for(lambda paid=paid: True if len(gateway.paid()) > paid else None)
            canceled.add(cancel_one_under_way(orders))
            worker.send_signal(signal.SIGKILL)
        canceled.add(cancel_one_under_way(orders))
        for user, task_id in orders:
            assert user.finished(task_id)["status"] == ("canceled" if task_id in canceled else "failed")
    assert gateway.concurrency()["h"] == H_SLOTS
    # paid once each; a task that was canceled before its call was made cost nothing
    assert len(orders) - len(canceled) <= len(gateway.paid()) - before <= len(orders)


def test_pictures_whose_calls_outlive_their_tasks(gateway: Gateway) -> None:
    user = gateway.new_user()
    gateway.concurrency()
    with gateway.more_workers(1):
        orders = [(user, user.ask("text-to-image")) for _ in range(16)]
        canceled = {cancel_one_under_way(orders) for _ in range(3)}
        for _, task_id in orders:
            assert user.finished(task_id)["status"] == ("canceled" if task_id in canceled else "failed")
    assert gateway.concurrency()["openai"] == OPENAI_SLOTS


def test_pictures_whose_calls_outlive_their_process(gateway: Gateway) -> None:
    """Nobody can say what became of them before their deadline, and so they keep their slots."""
    user = gateway.new_user()
    gateway.concurrency()
    paid = len(gateway.paid())
    gateway.knobs(work_seconds=300)  # longer than all else here takes, or the provider would have fewer at a time
    held = [user.ask("text-to-image") for _ in range(2)]
    wait_for(lambda: True if len(gateway.paid()) == paid + len(held) else None)
    gateway.knobs(work_seconds=0.6)
    known = worker_pids(gateway)
    with gateway.more_workers(1):
        wait_for(lambda: worker_pids(gateway) - known or None)
        (served_by,) = gateway.pids("worker --lane normal")
        os.kill(served_by, signal.SIGKILL)
        for task_id in [user.ask("text-to-image") for _ in range(8)]:
            assert user.finished(task_id)["status"] == "failed"
        assert gateway.concurrency()["openai"] == OPENAI_SLOTS
        for task_id in held:
            user.post(f"/tasks/{task_id}/cancel", {}).raise_for_status()


def worker_pids(gateway: Gateway) -> set[int]:
    """The worker processes that have said they are there."""

    async def look() -> set[int]:
        connection = await asyncpg.connect(gateway.dsn())
        try:
            return {row["pid"] for row in await connection.fetch("select pid from makeit3d.workers")}
        finally:
            await connection.close()

    return asyncio.run(look())
