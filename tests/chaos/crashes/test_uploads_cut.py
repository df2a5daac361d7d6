"""A worker is killed right after its upload, before the upload is recorded, or in the middle of it.

The file is in the bucket, or half of it is under way, and no row says so. The next run uploads it again, once. A run
that first tried to create the file was refused with 409; storage left the body unread, and the overwrite that followed
on the same connection got no answer. It ended by its timeout, as ``storage_unavailable``, and so did each further run.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from uuid import uuid4

import pytest
from app.domain.crash_points import Boundary, CrashPoint, Side
from app.domain.operations import Operation
from app.embedded.valkey import EmbeddedValkey
from app.sandbox.providers.stock import stock_model

from tests.chaos.crashes.town import Town, running_town
from tests.e2e.gateway import wait_for
from tests.servers import PostgresServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

SMALLEST = len(stock_model())  # under 2 kB; the sandbox makes no smaller model
LARGEST = 60_000_000
SIZES = [SMALLEST, 400_000, 5_000_000, LARGEST]
SLOW = 4_000_000  # bytes a second: the largest is under way for longer than it takes to kill its sender
AFTER_UPLOAD = CrashPoint(Side.AFTER, Boundary.UPLOAD)


@pytest.fixture(scope="module")
def town(postgres18: PostgresServer, valkey_server: EmbeddedValkey) -> Generator[Town]:
    with running_town(postgres18, valkey_server, storage_bytes=100_000_000) as found:
        yield found


def key_of(task_id: str) -> str:
    return f"models/{task_id}/model.glb"


def uploads(town: Town, task_id: str) -> list[dict[str, Any]]:
    """Of the model, as storage saw them."""
    return [call for call in town.storage_calls(key_of(task_id)) if call["method"] in ("POST", "PUT")]


def completes_at_once(town: Town, task_id: str, size: int) -> None:
    """One crash and no other trouble; the whole result is stored, and it was paid once."""

    def over_or_in_trouble() -> dict[str, Any] | None:
        [job] = town.rows("select status, crashes, failures, deferrals from makeit3d.jobs where task_id = $1", task_id)
        is_over = job["status"] in ("completed", "failed", "canceled")
        return dict(job) if is_over or job["failures"] + job["deferrals"] else None

    job = wait_for(over_or_in_trouble, seconds=200)
    assert job == {"status": "completed", "crashes": 1, "failures": 0, "deferrals": 0}
    town.complete_once(task_id, Operation.TEXT_TO_MODEL)
    [stored] = town.rows(
        "select (metadata->>'size')::bigint as size from storage.objects where name = $1", key_of(task_id)
    )
    assert stored["size"] == size
    town.nothing_is_left_over()


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_dies_right_after_its_upload(town: Town, size: int) -> None:
    task_id, paid = str(uuid4()), len(town.ledger())
    town.knobs(model_bytes=size)
    town.plan("worker").condemn(task_id, AFTER_UPLOAD, 1)
    town.ask(Operation.TEXT_TO_MODEL, task_id)
    completes_at_once(town, task_id, size)
    assert town.plan("worker").deaths(task_id) == 1
    assert len(town.ledger()) == paid + 1
    seen = uploads(town, task_id)
    assert [call["status"] for call in seen] == [200, 200]
    assert all(call["received"] > size for call in seen)


def test_a_worker_dies_in_the_middle_of_its_upload(town: Town) -> None:
    task_id, paid = str(uuid4()), len(town.ledger())
    town.knobs(model_bytes=LARGEST)
    town.storage_fault("slow_upload", count=1, path_contains=key_of(task_id), bytes_per_second=SLOW)
    town.ask(Operation.TEXT_TO_MODEL, task_id)
    wait_for(lambda: any(call["received"] for call in uploads(town, task_id)) or None)
    town.kill_workers_of(task_id)
    completes_at_once(town, task_id, LARGEST)
    assert len(town.ledger()) == paid + 1
    wait_for(lambda: all(call["is_over"] for call in uploads(town, task_id)) or None)
    cut, whole = uploads(town, task_id)
    assert cut["received"] < LARGEST
    assert (whole["status"], whole["received"] > LARGEST) == (200, True)
    town.nothing_is_left_over()


def test_and_the_audit_agrees(town: Town) -> None:
    town.audit()
