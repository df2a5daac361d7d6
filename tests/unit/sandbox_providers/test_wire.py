"""The documented examples in ``tests/fixtures/wire``, each beside what the stand-ins really send or accept."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.sandbox_providers.served import BARE, OPENAI_KEY, Back, Tripo, mask, picture, tripo_at

WIRE = Path(__file__).parents[2] / "fixtures" / "wire"
TEXT, IMAGE = "/generation/text-to-model", "/generation/image-to-model"
BODY = {"prompt": "a boat", **BARE}
ECHOED = ("input",)  # what a task echoes is the caller's own
IDS = ("tasks",)  # keyed by task ids
CHOSEN = ("output",)  # some of the documented keys, by the kind of task


def example(name: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((WIRE / f"{name}.json").read_bytes())
    return kept


def same_shape(shown: object, sent: object, where: str = "body") -> None:
    """Equal keys and equal JSON types, all the way down."""
    last = where.rpartition(".")[2]
    if last in ECHOED:
        assert isinstance(sent, dict)
    elif isinstance(shown, dict) and isinstance(sent, dict):
        if last in IDS:
            shown, sent = {"*": next(iter(shown.values()))}, {"*": next(iter(sent.values()))}
        elif last in CHOSEN:
            assert "model_url" in sent
            shown = {key: value for key, value in shown.items() if key in sent}
            sent = {key: value for key, value in sent.items() if key in shown}
        assert set(shown) == set(sent), where
        for key in shown:
            same_shape(shown[key], sent[key], f"{where}.{key}")
    elif isinstance(shown, list) and isinstance(sent, list):
        if shown and sent:
            same_shape(shown[0], sent[0], f"{where}[]")
    else:
        assert json_type(shown) == json_type(sent), where


def json_type(value: object) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def check(name: str, answer: httpx.Response) -> None:
    kept = example(name)
    assert answer.status_code == kept["status"]
    assert {key.lower() for key in kept["headers"]} <= set(answer.headers)
    same_shape(kept["body"], answer.json())
    if isinstance(code := kept["body"].get("code"), int):
        assert answer.json()["code"] == code
    if "error" in kept["body"]:
        for key in ("type", "code", "param"):
            assert answer.json()["error"][key] == kept["body"]["error"][key]


# --- OpenAI ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def openai(served: str) -> Generator[httpx.Client]:
    headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
    with httpx.Client(base_url=f"{served}/openai/v1", headers=headers, trust_env=False, timeout=60) as client:
        yield client


def edit(openai: httpx.Client, **fields: str) -> httpx.Response:
    files = {"image": ("a.png", picture(), "image/png"), "mask": ("m.png", mask(), "image/png")}
    data = {"model": "gpt-image-2", "prompt": "clay", "size": "816x816", **fields}
    return openai.post("/images/edits", data=data, files=files)


def test_pictures(openai: httpx.Client) -> None:
    check("openai/images", edit(openai))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("moderation_blocked", "moderation_output"),
        ("credit_balance_exhausted", "quota"),
        ("server_error", "server_error"),
        ("invalid_api_key", "bad_key"),
    ],
)
def test_openai_errors(openai: httpx.Client, back: Back, name: str, fault: str) -> None:
    back.arm("openai", fault)
    check(f"openai/{name}", edit(openai))


def test_the_rate_limit_differs_only_in_what_is_limited(openai: httpx.Client, back: Back) -> None:
    back.arm("openai", "rate_limit")
    answer = edit(openai)
    kept = example("openai/rate_limit_exceeded")
    assert answer.status_code == kept["status"]
    same_shape(kept["body"], answer.json())
    assert answer.json()["error"]["code"] == kept["body"]["error"]["code"]
    assert answer.headers["retry-after"]


def test_the_documented_request_is_accepted(openai: httpx.Client, back: Back) -> None:
    kept = example("openai/create_generation")
    back.arm("openai", "empty_after")
    assert openai.post(kept["path"], json=kept["body"]).status_code == 200
    assert int(back.ledger()[-1]["charged"]) >= 3512 * 30


def test_the_stream(openai: httpx.Client) -> None:
    def events(text: str) -> list[tuple[str, dict[str, Any]]]:
        blocks = [block.split("\n") for block in text.strip().split("\n\n")]
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]

    answer = edit(openai, stream="true", partial_images="1")
    assert answer.headers["content-type"].startswith("text/event-stream")
    for shown, sent in zip(events((WIRE / "openai/stream.sse").read_text("utf-8")), events(answer.text), strict=True):
        assert shown[0].replace("image_generation", "image_edit") == sent[0] == sent[1]["type"]
        same_shape(shown[1], sent[1])


# --- Tripo ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(served: str) -> str:
    with tripo_at(served) as tripo:
        task_id: str = tripo.made(IMAGE, {"input": tripo.upload(picture()), **BARE})["task_id"]
        return task_id


def failed(tripo: Tripo, back: Back) -> str:
    back.arm("tripo.task", "failed")
    task_id = tripo.created(TEXT, BODY)
    tripo.ended(task_id)
    return task_id


def test_creation_and_upload(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.task", "failed")
    check("tripo/created", tripo.post(TEXT, BODY))
    check("tripo/uploaded", tripo.http.post("/files", files={"file": ("a.png", picture(), "image/png")}))
    check("tripo/presigned", tripo.post("/files/presign", {"format": "glb"}))
    back.turn(presign_word="upload_url")
    check("tripo/presigned_upload_url", tripo.post("/files/presign", {"format": "glb"}))


def test_tasks(tripo: Tripo, back: Back, made: str) -> None:
    back.arm("tripo.task", "stays_at_99", seconds=600)
    running = tripo.created(IMAGE, {"input": tripo.upload(picture()), **BARE})
    for task_id, word in ((running, "running"), (made, "success"), (failed(tripo, back), "failed")):
        check(f"tripo/task_{word}", tripo.http.get(f"/tasks/{task_id}"))
        if word != "failed":  # the example of the listing shows less than is sent
            check(f"tripo/list_{word}", tripo.post("/tasks/list", {"task_ids": [task_id]}))
    back.turn(list_shape="list")
    check("tripo/list_as_list", tripo.post("/tasks/list", {"task_ids": [running]}))
    back.http.post(f"/tasks/{running}/end", json={"status": "cancelled"})


def test_the_account(tripo: Tripo, back: Back, made: str) -> None:
    assert made
    check("tripo/balance", tripo.http.get("/account/balance"))
    check("tripo/usage_items", tripo.http.get("/account/usage"))
    back.turn(usage_shape="list")
    check("tripo/usage_list", tripo.http.get("/account/usage"))
    back.turn(envelope_status=False)
    check("tripo/balance_without_status", tripo.http.get("/account/balance"))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("no_credits", "credits"),
        ("concurrency_full", "busy"),
        ("request_rate", "rate"),
        ("content_policy", "moderation"),
        ("bad_key", "bad_key"),
    ],
)
def test_tripo_errors(tripo: Tripo, back: Back, name: str, fault: str) -> None:
    back.arm("tripo.submit", fault)
    check(f"tripo/{name}", tripo.post(TEXT, BODY))


def test_an_unknown_task(tripo: Tripo) -> None:
    check("tripo/task_not_found", tripo.http.get("/tasks/0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"))


@pytest.mark.parametrize("name", sorted(path.stem for path in WIRE.glob("tripo/create_*.json")))
def test_documented_requests_are_accepted_and_echoed(tripo: Tripo, back: Back, made: str, name: str) -> None:
    kept = example(f"tripo/{name}")
    text = json.dumps(kept["body"]).replace("0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9", made)
    for token in ("file_5b0c", "file_a", "file_b", "file_c"):
        text = text.replace(f'"{token}"', f'"{tripo.upload(picture())}"')
    body = json.loads(text)
    back.arm("tripo.task", "failed")
    task = tripo.ended(tripo.created(kept["path"], body))
    assert task["input"] == body


def test_every_example_is_met_here_or_with_the_webhooks() -> None:
    source = "".join((Path(__file__).parent / name).read_text("utf-8") for name in ("test_wire.py", "test_webhooks.py"))
    built = ("create_", "task_", "list_")  # names that are put together
    assert [path.stem for path in WIRE.glob("*/*") if not path.stem.startswith(built) and path.stem not in source] == []
