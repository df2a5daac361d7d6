"""A gateway with plugins, from outside: a task of a type, a provider, a job type and a kind of assets that the product
does not know."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Generator
from typing import Any
from uuid import uuid4

import pytest
from app.config import child_environment
from app.embedded.valkey import EmbeddedValkey
from PIL import Image
from pydantic import SecretStr

from tests.chaos.stack import Stack, running_stack
from tests.e2e.easel_studio import KEY, Studio, running_studio
from tests.e2e.gateway import REPOSITORY, wait_for
from tests.loopback import loopback
from tests.servers import PostgresServer
from tests.unit.extension.gateway import PROGRAM
from tests.unit.extension.mp4 import pictures_of
from tests.unit.extension.registry import VIDEOS
from tests.unit.extension.video import MP4, VIDEO

pytestmark = pytest.mark.generate

SIDES = [f"side-{number}" for number in range(1, 6)]


@pytest.fixture
def studio() -> Generator[Studio]:
    with running_studio() as running:
        yield running


@pytest.fixture
def stack(postgres18: PostgresServer, valkey: EmbeddedValkey, studio: Studio) -> Generator[Stack]:
    with running_stack(
        postgres18,
        valkey,
        program=PROGRAM,
        tables=VIDEOS.read_text(encoding="utf-8"),
        easel_api_key=SecretStr(KEY),
        easel_base_url=studio.url,
        database_timeout_seconds=10.0,
        shutdown_grace_seconds=700.0,
        max_image_bytes=40_000_000,  # the project of the sandbox takes no more
        max_model_bytes=40_000_000,
    ) as running:
        yield running


def obelisk(stack: Stack, **params: object) -> str:
    """The task of an accepted request."""
    body = {
        "task_type": "monolith",
        "task_id": str(uuid4()),
        "params": {"prompt": "a fox", "provider": "easel", "sides": len(SIDES), **params},
    }
    answer = stack.http.post("/tasks", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["task_id"] == body["task_id"]
    return str(body["task_id"])


def command(stack: Stack, *arguments: str) -> dict[str, Any]:
    """What a command of this gateway's operator says, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM.module, *arguments, "--json"],
        cwd=REPOSITORY,
        env=child_environment(stack.settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of_task(events: list[dict[str, Any]], task_id: str, type_: str) -> list[dict[str, Any]]:
    return [event for event in list(events) if event["task_id"] == task_id and event["type"] == type_]


def test_a_task_of_four_plugins(stack: Stack, studio: Studio) -> None:
    assert "obelisk" in [found["name"] for found in stack.get("/task-types").json()["task_types"]]
    with stack.events() as events:
        task = obelisk(stack)
        status = stack.finished(task)
        wait_for(lambda: "completed" in [e["status"] for e in of_task(events, task, "task_update")] or None)
        told = list(events)

    # status: both steps, each link under the field of its kind
    assert status["status"] == "complete", status
    assert (status["operation"], status["progress"]) == ("obelisk", 100)
    assert [(job["step"], job["type"], job["status"]) for job in status["jobs"]] == [
        (1, "generate_images", "complete"),
        (2, "polish_pebbles", "complete"),
    ]
    assert [(job["items_done"], job["items_total"]) for job in status["jobs"]] == [(0, None), (5, 5)]
    result = status["result"]
    assert status["asset_url"] == result["video_url"]
    assert result["model_url"] is None
    assert result["image_urls"][0].endswith(f"/concepts/{task}/0.png")
    assert result["video_url"].endswith(f"/videos/{task}/film.mp4")

    # the provider was paid once, for what was asked
    assert [(body["prompt"], body["count"]) for body in studio.asked] == [("a fox It is smooth.", 1)]
    assert status["jobs"][0]["cost_micros"] == 20_000

    # storage: the bytes are a picture, and a film of as many pictures as there are sides
    picture = loopback.get(result["image_urls"][0])
    assert Image.open(io.BytesIO(picture.content)).size == (256, 256)
    film = loopback.get(result["video_url"])
    assert film.headers["content-type"] == MP4.name == VIDEO.sniff(film.content)
    frames = [Image.open(io.BytesIO(frame)) for frame in pictures_of(film.content)]
    assert [(frame.format, frame.size) for frame in frames] == [("JPEG", (64, 64))] * len(SIDES)

    # rows: what clients read and subscribe to
    (row,) = stack.rows("select * from public.videos where task_id = $1", task)
    assert (row["status"], row["asset_url"], row["width"], row["height"]) == ("complete", result["video_url"], 64, 64)
    assert row["source_concept_image_id"] == stack.value(
        "select id from public.concept_images where task_id = $1", task
    )
    assert row["metadata"] == '{"operation": "obelisk"}'

    # events: every item and every row, in order
    items = of_task(told, task, "item_update")
    assert [(event["key"], event["status"]) for event in items] == [(side, "done") for side in SIDES]
    rows = [event for event in of_task(told, task, "asset_update") if event["table"] == "videos"]
    assert [(event["asset_id"], event["status"]) for event in rows] == [
        (str(row["id"]), word) for word in ("pending", "processing", "complete")
    ]
    assert rows[-1]["asset_url"] == result["video_url"]

    # an operator finds nothing wrong
    assert command(stack, "audit", "--deep", "--grace", "1")["differences"] == []
    found = command(stack, "doctor", "--patience", "60")
    assert found["errors"] == 0, json.dumps(found["findings"])
    assert not {finding["group"] for finding in found["findings"]} & {"schema", "storage", "providers", "pebbles"}
    assert "easel: the account works" in found["facts"]["providers"]


def test_canceled_in_the_middle_it_ends_everywhere(stack: Stack) -> None:
    with stack.events() as events:
        task = obelisk(stack, seconds_each=1.0)
        wait_for(lambda: of_task(events, task, "item_update") or None)
        begun = stack.get(f"/tasks/{task}/status").json()["jobs"][1]
        assert 0 < begun["items_done"] < begun["items_total"] == len(SIDES)
        assert 0 < begun["progress"] < 100
        canceled = stack.http.post(f"/tasks/{task}/cancel")
        assert canceled.status_code == 200, canceled.text
        wait_for(lambda: "canceled" in [e["status"] for e in of_task(events, task, "task_update")] or None)
        # the worker goes on with others
        stack.complete(obelisk(stack))
        told = list(events)
    status = stack.finished(task)
    assert [job["status"] for job in status["jobs"]] == ["complete", "canceled"]
    assert (status["status"], status["result"]["video_url"]) == ("canceled", None)
    assert len(status["result"]["image_urls"]) == 1  # it was paid and is there
    assert 0 < len(of_task(told, task, "item_update")) < len(SIDES)
    rows = [event["status"] for event in of_task(told, task, "asset_update") if event["table"] == "videos"]
    assert rows == ["pending", "processing", "canceled"]
    assert [key for key in stack.objects() if key.startswith(f"videos/{task}/")] == []
    shown = stack.rows("select status, error_code from public.videos where task_id = $1", task)
    assert [tuple(row) for row in shown] == [("canceled", "canceled")]
    assert command(stack, "audit", "--grace", "1")["differences"] == []
