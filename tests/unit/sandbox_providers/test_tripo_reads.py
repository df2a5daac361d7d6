"""Polls, listings, usage: their dialects and their faults."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.loopback import loopback
from tests.unit.sandbox_providers.served import BARE, TRIPO_KEY, Back, Tripo, picture, tripo_at, wait_for

TEXT, IMAGE = "/generation/text-to-model", "/generation/image-to-model"
BODY = {"prompt": "a boat", **BARE}


@pytest.fixture(autouse=True)
def stock(back: Back) -> None:
    """What a result shows is not asked here."""
    back.turn(drawing="stock")


def test_a_task_moves_from_queue_to_end(tripo: Tripo, back: Back) -> None:
    back.turn(work_seconds=1)
    task_id = tripo.created(IMAGE, {"input": tripo.upload(picture()), **BARE})
    seen: list[tuple[str, int]] = []

    def look() -> bool | None:
        task = tripo.task(task_id)
        seen.append((task["status"], task["progress"]))
        assert ("output" in task) is (task["status"] == "success")
        return task["status"] == "success" or None

    wait_for(look)
    assert seen[-1] == ("success", 100)
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)
    assert {status for status, _ in seen} <= {"queued", "running", "success"}


def test_listing(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.task", "failed", count=2)
    ids = [tripo.created(TEXT, BODY) for _ in range(2)]
    unknown = str(uuid4())
    data = tripo.post("/tasks/list", {"task_ids": [*ids, unknown]}).json()["data"]
    assert (set(data["tasks"]), data["missed"]) == (set(ids), [unknown])
    assert data["tasks"][ids[0]]["task_id"] == ids[0]
    back.turn(list_shape="list")
    assert {task["task_id"] for task in tripo.post("/tasks/list", {"task_ids": ids}).json()["data"]["tasks"]} == set(
        ids
    )
    for wrong in ([], ["x"] * 101, "x", [1]):
        assert tripo.post("/tasks/list", {"task_ids": wrong}).json()["code"] == 1004
    back.arm("tripo.poll", "missed")
    assert tripo.post("/tasks/list", {"task_ids": ids}).json()["data"]["missed"] == ids
    back.arm("tripo.poll", "null_progress")
    assert {task["progress"] for task in tripo.post("/tasks/list", {"task_ids": ids}).json()["data"]["tasks"]} == {None}


def test_polls_that_fail(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.task", "failed")
    task_id = tripo.created(TEXT, BODY)
    for kind, status, code in (
        ("not_found", 404, 2001),
        ("code_200", 200, 1001),
        ("rate", 429, 1007),
        ("bad_key", 401, 2),
    ):
        back.arm("tripo.poll", kind)
        answer = tripo.http.get(f"/tasks/{task_id}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    back.arm("tripo.poll", "status", status=502)
    assert tripo.http.get(f"/tasks/{task_id}").status_code == 502
    back.arm("tripo.poll", "reset")
    with pytest.raises(httpx.TransportError):
        tripo.http.get(f"/tasks/{task_id}")
    assert tripo.ended(task_id)["status"] == "failed"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("failed", "failed", 2008),
        ("failed_2018", "failed", 2018),
        ("failed_1001", "failed", 1001),
        ("banned", "banned", 2008),
        ("expired", "expired", 2018),
        ("cancelled", "cancelled", None),
    ],
)
def test_ends_without_a_result(tripo: Tripo, back: Back, kind: str, status: str, code: int | None) -> None:
    back.arm("tripo.task", kind)
    task = tripo.ended(tripo.created(TEXT, BODY))
    assert (task["status"], task.get("error_code"), task["credits_consumed"]) == (status, code, 0)
    assert "output" not in task


@pytest.mark.parametrize(
    ("kind", "status", "progress"),
    [
        ("stays_queued", "queued", 0),
        ("stays_at_99", "running", 99),
        ("unknown", "unknown", 99),
        ("new_word", "finalizing", 99),
        ("null_progress", "running", None),
    ],
)
def test_tasks_that_hang(tripo: Tripo, back: Back, kind: str, status: str, progress: int | None) -> None:
    back.turn(work_seconds=60 if kind == "null_progress" else 0)
    back.arm("tripo.task", kind)
    task_id = tripo.created(IMAGE, {"input": tripo.upload(picture()), **BARE})

    def look() -> bool | None:
        task = tripo.task(task_id)
        return (task["status"], task["progress"]) == (status, progress) or None

    wait_for(look)
    assert back.http.post(f"/tasks/{task_id}/end", json={"status": "failed"}).json() == {"ended": True}
    assert back.http.post(f"/tasks/{task_id}/end", json={"status": "failed"}).json() == {"ended": False}


def test_results_that_are_none(tripo: Tripo, back: Back) -> None:
    body = {"input": tripo.upload(picture()), **BARE}
    back.arm("tripo.task", "no_output")
    task = tripo.ended(tripo.created(IMAGE, body))
    assert task["status"] == "success"
    assert "output" not in task
    back.arm("tripo.task", "wrong_format")
    task = tripo.ended(tripo.created(IMAGE, body))
    assert loopback.get(task["output"]["model_url"]).content.startswith(b"Kaydara FBX")


def test_usage(served: str, back: Back) -> None:
    key = f"{TRIPO_KEY}-usage"
    with tripo_at(served, key) as client:
        _usage(client, back, key)


def _usage(client: Tripo, back: Back, key: str) -> None:
    back.arm("tripo.task", "failed", count=3, key=key)
    ids = [client.created(TEXT, BODY) for _ in range(3)]
    for task_id in ids:
        client.ended(task_id)

    def listed(**query: int) -> list[str]:
        data = client.http.get("/account/usage", params=query).json()["data"]
        return [row["task_id"] for row in (data if isinstance(data, list) else data["items"])]

    assert listed() == ids[::-1]
    assert listed(limit=1, offset=1) == [ids[1]]
    back.turn(usage_shape="list")
    assert listed() == ids[::-1]
    back.arm("tripo.account", "empty_usage", endpoint="usage")
    assert client.money()[1] == 0
    assert listed() == []
    back.arm("tripo.account", "unordered_usage")
    assert listed() == [ids[1], ids[2], ids[0]]
    back.arm("tripo.account", "foreign_usage")
    foreign = listed()
    assert (foreign[1::2], len(set(foreign))) == (ids[::-1], 6)
    back.arm("tripo.task", "stays_queued", key=key)
    running = client.created(TEXT, BODY)
    assert listed()[0] == running
    back.turn(usage_lists_running=False)
    assert running not in listed()
    back.turn(usage_delay_seconds=600)
    assert listed() == []
    assert client.http.get("/account/usage", params={"limit": 201}).json()["code"] == 1004


def test_dialects(tripo: Tripo, back: Back) -> None:
    back.turn(envelope_status=False, time_shape="epoch", presign_word="upload_url", model_word="pbr_model_url")
    assert set(tripo.http.get("/account/balance").json()) == {"code", "data"}
    assert "upload_url" in tripo.post("/files/presign", {"format": "glb"}).json()["data"]
    task = tripo.made(IMAGE, {"input": tripo.upload(picture()), **BARE})
    assert isinstance(task["created_at"], int)
    assert "pbr_model_url" in task["output"]


def test_a_wrong_clock(tripo: Tripo, back: Back) -> None:
    back.turn(clock_skew_seconds=-300, time_shape="epoch")
    answer = tripo.http.get("/account/balance")
    assert len(answer.headers.get_list("date")) == 1
    back.arm("tripo.task", "failed")
    task = tripo.task(tripo.created(TEXT, BODY))
    row = back.ledger()[-1]
    assert -301 < task["created_at"] - row["accepted_at"] < -299


def test_a_key_revoked_while_a_task_runs(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.task", "stays_queued", seconds=600)
    task_id = tripo.created(TEXT, BODY)
    back.arm("tripo", "bad_key", count=None)
    assert tripo.http.get(f"/tasks/{task_id}").status_code == 401
    assert tripo.post(TEXT, BODY).json()["code"] == 2
    back.http.delete("/faults")
    assert tripo.task(task_id)["status"] == "queued"
    back.http.post(f"/tasks/{task_id}/end", json={"status": "cancelled"})
