"""Tripo exchanges: uploads, one create, polling by listing, finding a lost create, the balance."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from app.ai_clients.base import Capability, FileInput, ModelRequest, PolledProvider, PreparedCall, ProviderTaskState
from app.ai_clients.errors import Advice, Refused
from app.ai_clients.tripo.client import TripoModels
from app.domain.operations import ModelOptions, View
from app.errors import ErrorCode

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import TRIPO_BASE, TRIPO_KEY, assert_no_secrets, file_input, picture_bytes

FILES = f"{TRIPO_BASE}/files"
LIST = f"{TRIPO_BASE}/tasks/list"
USAGE = f"{TRIPO_BASE}/account/usage"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


def ok(data: object) -> httpx.Response:
    return httpx.Response(200, json={"code": 0, "status": "success", "data": data})


def test_it_is_a_polled_provider(tripo: TripoModels) -> None:
    assert isinstance(tripo, PolledProvider)
    assert tripo.poll_seconds == 3
    assert tripo.timeout_seconds == 120


@respx.mock
async def test_prepare_uploads_and_submit_posts_once(tripo: TripoModels, tmp_path: Path) -> None:
    upload = respx.post(FILES).mock(return_value=ok({"file_token": "file_5b0c"}))
    create = respx.post(f"{TRIPO_BASE}/generation/image-to-model").mock(
        return_value=ok({"task_id": "0f1e", "type": "image_to_model", "status": "queued"})
    )
    views: dict[View, FileInput] = {"front": file_input(tmp_path / "a.png")}
    call = await tripo.prepare(ModelRequest(Capability.IMAGE_TO_MODEL, views=views))
    assert upload.call_count == 1
    sent = upload.calls.last.request
    assert b'name="file"; filename="a.png"' in sent.content
    assert b"Content-Type: image/png" in sent.content
    assert picture_bytes() in sent.content
    assert create.call_count == 0
    assert await tripo.send(call, before_first_byte=unwatched) == "0f1e"
    assert create.call_count == 1
    request = create.calls.last.request
    assert json.loads(request.content) == dict(call.body)
    assert call.body["input"] == "file_5b0c"
    assert request.headers["authorization"] == f"Bearer {TRIPO_KEY}"
    assert request.headers["connection"] == "close"
    assert len(request.headers["x-tripo-trace-id"]) == 36


@respx.mock
async def test_every_attempt_uploads_afresh(tripo: TripoModels, tmp_path: Path) -> None:
    respx.post(FILES).mock(side_effect=[ok({"file_token": "file_1"}), ok({"file_token": "file_2"})])
    spec = ModelRequest(Capability.SKETCH_TO_IMAGE, prompt="x", views={"front": file_input(tmp_path / "a.png")})
    first, second = await tripo.prepare(spec), await tripo.prepare(spec)
    assert (first.fingerprint["tokens"], second.fingerprint["tokens"]) == (["file_1"], ["file_2"])


@respx.mock
async def test_an_upload_is_repeated_with_its_whole_body(tripo: TripoModels, tmp_path: Path) -> None:
    route = respx.post(FILES).mock(
        side_effect=[httpx.ReadTimeout("slow"), httpx.Response(502), ok({"file_token": "file_3"})]
    )
    spec = ModelRequest(Capability.IMAGE_TO_MODEL, views={"front": file_input(tmp_path / "a.png")})
    assert (await tripo.prepare(spec)).body["input"] == "file_3"
    assert route.call_count == 3
    assert picture_bytes() in route.calls.last.request.content


@respx.mock
async def test_an_upload_over_its_rate_waits_in_the_queue(tripo: TripoModels, tmp_path: Path) -> None:
    route = respx.post(FILES).respond(429, json={"code": 1007}, headers={"retry-after": "40"})
    with pytest.raises(Refused) as caught:
        await tripo.prepare(ModelRequest(Capability.IMAGE_TO_MODEL, views={"front": file_input(tmp_path / "a.png")}))
    assert route.call_count == 1
    assert (caught.value.advice, caught.value.retry_after) == (Advice.DEFER, 40)
    assert_no_secrets(caught.value)


@respx.mock
@pytest.mark.parametrize("link_name", ["presigned_url", "upload_url"])
async def test_large_models_go_by_signed_link_without_the_key(
    tripo: TripoModels, tmp_path: Path, link_name: str
) -> None:
    mesh = tmp_path / "mesh.glb"
    with mesh.open("wb") as file:
        file.truncate(50 * 1024 * 1024 + 1)
    link = "https://bucket.s3.us-west-2.amazonaws.com/key?sig=1"
    presign = respx.post(f"{FILES}/presign").mock(
        return_value=ok({link_name: link, "file_token": "file_m", "expires_in": 1800})
    )
    put = respx.put(link).respond(200)
    call = await tripo.prepare(
        ModelRequest(Capability.IMPORT_MODEL, model_file=FileInput(mesh, "model/gltf-binary", "mesh.glb"))
    )
    assert call.body == {"input": "file_m"}
    assert json.loads(presign.calls.last.request.content) == {"format": "glb"}
    headers = put.calls.last.request.headers
    assert "authorization" not in headers
    assert headers["content-length"] == str(50 * 1024 * 1024 + 1)
    assert "transfer-encoding" not in headers
    assert headers["content-type"] == "model/gltf-binary"


@respx.mock
@pytest.mark.parametrize(
    "link",
    [
        "http://bucket.s3.amazonaws.com/x",
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://10.0.0.7/x",
        "https://[::1]/x",
        "https://localhost/x",
        "https://user:pw@bucket.s3.amazonaws.com/x",
        "file:///etc/passwd",
    ],
)
async def test_an_upload_link_never_leads_inside(tripo: TripoModels, tmp_path: Path, link: str) -> None:
    mesh = tmp_path / "mesh.glb"
    with mesh.open("wb") as file:
        file.truncate(50 * 1024 * 1024 + 1)
    respx.post(f"{FILES}/presign").mock(return_value=ok({"presigned_url": link, "file_token": "file_m"}))
    anywhere = respx.put(url__regex=".*").respond(200)
    with pytest.raises(Refused):
        await tripo.prepare(
            ModelRequest(Capability.IMPORT_MODEL, model_file=FileInput(mesh, "model/gltf-binary", "mesh.glb"))
        )
    assert anywhere.call_count == 0


@respx.mock
async def test_files_over_the_limit_or_gone_are_not_sent(tripo: TripoModels, tmp_path: Path) -> None:
    route = respx.post(FILES).mock(return_value=ok({"file_token": "x"}))
    huge = file_input(tmp_path / "huge.png")
    with huge.path.open("r+b") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    with pytest.raises(Refused) as caught:
        await tripo.prepare(ModelRequest(Capability.IMAGE_TO_MODEL, views={"front": huge}))
    assert caught.value.code is ErrorCode.PROVIDER_INPUT_REFUSED
    huge.path.unlink()
    with pytest.raises(Refused) as gone:
        await tripo.prepare(ModelRequest(Capability.IMAGE_TO_MODEL, views={"front": huge}))
    assert gone.value.advice is Advice.RETRY
    assert route.call_count == 0


# --- polling ----------------------------------------------------------------------------------------------------

SUCCESS: dict[str, Any] = {
    "task_id": "a",
    "type": "image_to_model",
    "status": "success",
    "progress": 100,
    "input": {"input": "file_5b0c", "model_seed": -88213407},
    "output": {
        "model_url": "https://tripo-data.rg1.data.tripo3d.com/x/model.glb?sig",
        "rendered_image_url": "https://tripo-data.rg1.data.tripo3d.com/x/preview.webp",
        "generated_image_url": "https://tripo-data.rg1.data.tripo3d.com/x/g.png",
    },
    "credits_consumed": 30.25,
    "created_at": "2026-11-21T03:00:00Z",
    "completed_at": "2026-11-21T03:01:30Z",
}


@respx.mock
@pytest.mark.parametrize("as_list", [False, True])
async def test_polling_reads_both_forms(tripo: TripoModels, as_list: bool) -> None:
    running = {"task_id": "b", "status": "running", "progress": None, "created_at": 1_795_200_000}
    tasks: object = [SUCCESS, running] if as_list else {"a": SUCCESS, "b": running}
    route = respx.post(LIST).mock(return_value=ok({"tasks": tasks, "missed": ["c"]}))
    seen = await tripo.poll(["a", "b", "c"])
    assert json.loads(route.calls.last.request.content) == {"task_ids": ["a", "b", "c"]}
    assert [seen[key].state for key in "abc"] == [
        ProviderTaskState.SUCCEEDED,
        ProviderTaskState.RUNNING,
        ProviderTaskState.MISSING,
    ]
    assert seen["a"].output_url == "https://tripo-data.rg1.data.tripo3d.com/x/model.glb?sig"
    assert seen["a"].preview_url == "https://tripo-data.rg1.data.tripo3d.com/x/preview.webp"
    assert (seen["a"].credits, seen["a"].cost_micros) == (Decimal("30.25"), 302_500)
    assert seen["a"].created_at == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    assert seen["a"].echoed_input["model_seed"] == -88213407
    assert (seen["b"].progress, seen["b"].cost_micros) == (None, None)
    assert seen["b"].created_at == datetime.fromtimestamp(1_795_200_000, UTC)


@respx.mock
@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"pbr_model_url": "https://x/1"}, "https://x/1"),
        ({"model": "https://x/2"}, "https://x/2"),
        ({"pbr_model": "https://x/3"}, "https://x/3"),
        ({"base_model": "https://x/4"}, "https://x/4"),
        ({"generated_image_url": "https://x/5"}, "https://x/5"),
        ({"model_url": None, "base_model": "https://x/6"}, "https://x/6"),
        ({"model_url": ""}, None),
        ({}, None),
        (None, None),
        ("odd", None),
    ],
)
async def test_output_keys(tripo: TripoModels, output: object, expected: str | None) -> None:
    respx.post(LIST).mock(return_value=ok({"tasks": {"a": {"status": "success", "output": output}}}))
    task = (await tripo.poll(["a"]))["a"]
    assert (task.state, task.output_url) == (ProviderTaskState.SUCCEEDED, expected)


@respx.mock
async def test_a_picture_is_no_model(tripo: TripoModels) -> None:
    task = {**SUCCESS, "output": {"generated_image_url": "https://cdn.tripo3d.ai/g.png"}}
    respx.post(LIST).mock(return_value=ok({"tasks": {"a": task, "b": {**task, "input": {"sketch_to_render": True}}}}))
    seen = await tripo.poll(["a", "b"])
    assert (seen["a"].output_url, seen["b"].output_url) == (None, "https://cdn.tripo3d.ai/g.png")


@respx.mock
async def test_output_is_believed_only_after_success(tripo: TripoModels) -> None:
    respx.post(LIST).mock(return_value=ok({"tasks": {"a": {**SUCCESS, "status": "running", "progress": 250.5}}}))
    task = (await tripo.poll(["a"]))["a"]
    assert (task.output_url, task.cost_micros, task.progress) == (None, None, 100)


@respx.mock
@pytest.mark.parametrize(
    "number", ["1e999999999", "-1e999999999", "1e-999999999", "-5", '"many"', "true", "null", "{}"]
)
async def test_absurd_numbers_do_no_harm(tripo: TripoModels, number: str) -> None:
    task = f'{{"status":"success","progress":{number},"credits_consumed":{number},"created_at":{number}}}'
    respx.post(LIST).respond(200, content=f'{{"code":0,"data":{{"tasks":{{"a":{task}}}}}}}'.encode())
    seen = (await tripo.poll(["a"]))["a"]
    assert seen.progress in (None, 0, 100)
    assert seen.cost_micros in (None, 0)


@respx.mock
async def test_polling_lists_a_hundred_at_a_time(tripo: TripoModels) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        ids: list[str] = json.loads(request.content)["task_ids"]
        assert len(ids) <= 100
        return ok({"tasks": {task_id: {"status": "queued"} for task_id in ids}, "missed": []})

    route = respx.post(LIST).mock(side_effect=answer)
    ids = [f"t{number}" for number in range(250)]
    seen = await tripo.poll([*ids, "t0"])
    assert route.call_count == 3
    assert set(seen) == set(ids)
    assert await tripo.poll([]) == {}
    assert route.call_count == 3


@respx.mock
async def test_polling_survives_a_stumble(tripo: TripoModels) -> None:
    route = respx.post(LIST).mock(
        side_effect=[
            httpx.ConnectError("x"),
            httpx.Response(429, json={"code": 1007}, headers={"retry-after": "9"}),
            ok({"tasks": {}, "missed": ["a"]}),
        ]
    )
    assert (await tripo.poll(["a"]))["a"].state is ProviderTaskState.MISSING
    assert route.call_count == 3


# --- finding what was lost --------------------------------------------------------------------------------------


def usage_row(task_id: str, created_at: datetime) -> dict[str, object]:
    return {
        "task_id": task_id,
        "type": "whatever",
        "status": "running",
        "created_at": created_at.isoformat().replace("+00:00", "Z"),
        "credits_consumed": 0,
    }


def listing(tasks: Mapping[str, Mapping[str, object]]) -> None:
    respx.post(LIST).mock(
        side_effect=lambda request: ok(
            {
                "tasks": {
                    task_id: {"status": "running", "input": tasks[task_id]}
                    for task_id in json.loads(request.content)["task_ids"]
                    if task_id in tasks
                },
                "missed": [],
            }
        )
    )


@respx.mock
@pytest.mark.parametrize("as_items", [False, True])
async def test_a_lost_create_is_found_by_its_seed(tripo: TripoModels, as_items: bool) -> None:
    rows = [usage_row(task_id, NOW) for task_id in ("known", "other", "ours", "seedless")]
    rows.append(usage_row("old", NOW - timedelta(minutes=3)))
    usage = respx.get(USAGE).mock(return_value=ok({"items": rows} if as_items else rows))
    listing({"other": {"model_seed": 6}, "ours": {"model_seed": 7}, "seedless": {}, "old": {"model_seed": 7}})
    found = await tripo.find_submitted(
        {"kind": "text-to-model", "tokens": [], "model_seed": 7}, since=NOW, known_ids=frozenset({"known"})
    )
    assert found == ["ours"]
    assert dict(usage.calls.last.request.url.params) == {"limit": "200", "offset": "0"}


@respx.mock
async def test_a_lost_create_without_seed_is_found_by_its_token(tripo: TripoModels) -> None:
    respx.get(USAGE).mock(return_value=ok([usage_row("a", NOW), usage_row("b", NOW), usage_row("c", NOW)]))
    listing({"a": {"input": "file_x"}, "b": {"inputs": [{"front": "file_1"}, {"back": "file_2"}]}, "c": {"n": 1}})
    fingerprint = {"kind": "multiview-to-model", "tokens": ["file_1", "file_2"]}
    assert await tripo.find_submitted(fingerprint, since=NOW, known_ids=frozenset()) == ["b"]
    assert await tripo.find_submitted({"kind": "x", "tokens": []}, since=NOW, known_ids=frozenset()) == []


@respx.mock
async def test_all_matches_are_told(tripo: TripoModels) -> None:
    respx.get(USAGE).mock(return_value=ok([usage_row("a", NOW), usage_row("b", NOW), usage_row("a", NOW)]))
    listing({"a": {"model_seed": "7"}, "b": {"model_seed": 7}})
    assert await tripo.find_submitted({"model_seed": 7}, since=NOW, known_ids=frozenset()) == ["a", "b"]


@respx.mock
@pytest.mark.parametrize("order", ["descending", "ascending", "shuffled"])
async def test_the_listing_is_paged_as_far_as_needed(tripo: TripoModels, order: str) -> None:
    # rows every 30 s back from now: the call lies within the first pages of a descending listing
    rows = [usage_row(f"t{number}", NOW - timedelta(seconds=30 * number)) for number in range(900)]
    rows[1] = usage_row("ours", NOW - timedelta(seconds=30))
    if order == "ascending":
        rows.reverse()
    elif order == "shuffled":
        random.Random(7).shuffle(rows)

    def page(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        return ok(rows[offset : offset + 200])

    usage = respx.get(USAGE).mock(side_effect=page)
    listing({"ours": {"model_seed": 7}})
    assert await tripo.find_submitted({"model_seed": 7}, since=NOW, known_ids=frozenset()) == ["ours"]
    assert usage.call_count == (2 if order == "descending" else 5)


@respx.mock
async def test_nothing_is_concluded_from_a_broken_listing(tripo: TripoModels) -> None:
    respx.get(USAGE).mock(side_effect=httpx.ReadTimeout("slow"))
    with pytest.raises(Refused):
        await tripo.find_submitted({"model_seed": 7}, since=NOW, known_ids=frozenset())


@respx.mock
async def test_nothing_is_concluded_from_an_endless_listing(tripo: TripoModels) -> None:
    rows = [usage_row(f"t{number}", NOW) for number in range(200)]
    respx.get(USAGE).mock(return_value=ok(rows))
    with pytest.raises(Refused):
        await tripo.find_submitted({"model_seed": 7}, since=NOW, known_ids=frozenset())


# --- money ------------------------------------------------------------------------------------------------------


@respx.mock
async def test_balance(tripo: TripoModels) -> None:
    respx.get(f"{TRIPO_BASE}/account/balance").respond(
        content=b'{"code":0,"data":{"balance":1234.10,"frozen":30}}', headers={"content-type": "application/json"}
    )
    balance = await tripo.balance()
    assert (balance.available, balance.frozen, balance.unit) == (Decimal("1234.10"), Decimal(30), "credits")


def test_pool_and_estimate_follow_the_spec(tripo: TripoModels) -> None:
    spec = ModelRequest(Capability.TEXT_TO_MODEL, prompt="x", options=ModelOptions(model_version="P1-20260311"))
    assert tripo.pool(spec) == "tripo_p"
    assert tripo.estimate(spec).micros == 400_000


@respx.mock
async def test_a_prepared_call_survives_the_journal(tripo: TripoModels) -> None:
    call = await tripo.prepare(ModelRequest(Capability.TEXT_TO_MODEL, prompt="x"))
    kept = json.loads(json.dumps({"body": dict(call.body), "fingerprint": dict(call.fingerprint)}))
    assert PreparedCall(call.capability, call.path, kept["body"], kept["fingerprint"]) == call
