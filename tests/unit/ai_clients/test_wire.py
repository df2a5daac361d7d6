"""The documented example replies, read by the clients. One file per example in ``tests/fixtures/wire``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import respx
from app.ai_clients.base import Capability, FileInput, ImageRequest, ModelRequest, PreparedCall, ProviderTaskState
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.openai.client import OpenAIImages
from app.ai_clients.tripo.client import TripoModels
from app.errors import ErrorCode as E

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import OPENAI_BASE, TRIPO_BASE, file_input

WIRE = Path(__file__).parents[2] / "fixtures" / "wire"
TASK = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
CREATE = PreparedCall(Capability.TEXT_TO_MODEL, "/generation/text-to-model", {"prompt": "x"}, {})


def example(name: str) -> httpx.Response:
    kept = json.loads((WIRE / f"{name}.json").read_bytes())
    return httpx.Response(kept["status"], headers=kept["headers"], json=kept["body"])


@respx.mock
async def test_pictures(openai: OpenAIImages, tmp_path: Path) -> None:
    respx.post(f"{OPENAI_BASE}/images/generations").mock(return_value=example("openai/images"))
    request = ImageRequest("a red fox, plain background", n=2)
    receipt = await openai.send(request, reply=tmp_path / "reply", before_first_byte=unwatched)
    result = await openai.decode(receipt.path, request, directory=tmp_path / "out")
    assert [image and (image.width, image.height) for image in result.files] == [(1, 1), (1, 1)]
    assert result.cost_micros == 21 * 5 + 3512 * 30
    assert receipt.provider_request_id == "req_5f3c"


@respx.mock
@pytest.mark.parametrize(
    ("name", "kind", "code", "advice"),
    [
        ("moderation_blocked", Refused, E.PROVIDER_CONTENT_REFUSED, Advice.FINAL),
        ("rate_limit_exceeded", Refused, E.PROVIDER_RATE_LIMITED, Advice.DEFER),
        ("credit_balance_exhausted", Refused, E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
        ("invalid_api_key", Refused, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
        ("server_error", OutcomeUnknown, E.PROVIDER_OUTCOME_UNKNOWN, None),
    ],
)
async def test_openai_errors(
    openai: OpenAIImages, tmp_path: Path, name: str, kind: type[ProviderError], code: E, advice: Advice | None
) -> None:
    respx.post(f"{OPENAI_BASE}/images/generations").mock(return_value=example(f"openai/{name}"))
    with pytest.raises(kind) as caught:
        await openai.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert caught.value.code is code
    assert getattr(caught.value, "advice", None) is advice


@respx.mock
async def test_a_created_task(tripo: TripoModels) -> None:
    respx.post(f"{TRIPO_BASE}{CREATE.path}").mock(return_value=example("tripo/created"))
    assert await tripo.send(CREATE, before_first_byte=unwatched) == TASK


@respx.mock
@pytest.mark.parametrize(
    ("name", "state", "progress", "micros"),
    [
        ("list_running", ProviderTaskState.RUNNING, 42, None),
        ("list_as_list", ProviderTaskState.RUNNING, 42, None),
        ("list_success", ProviderTaskState.SUCCEEDED, 100, 300_000),
        ("list_failed", ProviderTaskState.FAILED, 100, 0),
    ],
)
async def test_listed_tasks(
    tripo: TripoModels, name: str, state: ProviderTaskState, progress: int, micros: int | None
) -> None:
    respx.post(f"{TRIPO_BASE}/tasks/list").mock(return_value=example(f"tripo/{name}"))
    task = (await tripo.poll([TASK]))[TASK]
    assert (task.state, task.progress, task.cost_micros) == (state, progress, micros)
    assert (task.output_url is not None) is (state is ProviderTaskState.SUCCEEDED)
    assert task.error is (E.PROVIDER_CONTENT_REFUSED if state is ProviderTaskState.FAILED else None)


@respx.mock
@pytest.mark.parametrize("name", ["usage_items", "usage_list"])
async def test_usage(tripo: TripoModels, name: str) -> None:
    respx.get(f"{TRIPO_BASE}/account/usage").mock(return_value=example(f"tripo/{name}"))
    respx.post(f"{TRIPO_BASE}/tasks/list").mock(return_value=example("tripo/list_running"))
    since = datetime(2026, 11, 21, 3, 0, 30, tzinfo=UTC)
    found = await tripo.find_submitted({"model_seed": -88213407}, since=since, known_ids=frozenset())
    assert found == [TASK]


@respx.mock
async def test_balance_and_uploads(tripo: TripoModels, tmp_path: Path) -> None:
    respx.get(f"{TRIPO_BASE}/account/balance").mock(return_value=example("tripo/balance"))
    balance = await tripo.balance()
    assert (balance.available, balance.frozen) == (Decimal("1234.5"), Decimal(30))
    respx.post(f"{TRIPO_BASE}/files").mock(return_value=example("tripo/uploaded"))
    spec = ModelRequest(Capability.IMAGE_TO_MODEL, views={"front": file_input(tmp_path / "a.png")})
    assert (await tripo.prepare(spec)).body["input"] == "file_5b0c"
    respx.post(f"{TRIPO_BASE}/files/presign").mock(return_value=example("tripo/presigned"))
    respx.put(host="bucket.s3.us-west-2.amazonaws.com").respond(200)
    mesh = tmp_path / "mesh.glb"
    with mesh.open("wb") as file:
        file.truncate(51 * 1024 * 1024)
    spec = ModelRequest(Capability.IMPORT_MODEL, model_file=FileInput(mesh, "model/gltf-binary", "mesh.glb"))
    assert (await tripo.prepare(spec)).body == {"input": "file_9d1a"}


@respx.mock
@pytest.mark.parametrize(
    ("name", "code", "advice", "seconds"),
    [
        ("no_credits", E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION, None),
        ("concurrency_full", E.PROVIDER_BUSY, Advice.DEFER, 5),
        ("request_rate", E.PROVIDER_RATE_LIMITED, Advice.DEFER, 30),
        ("bad_key", E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION, None),
        ("content_policy", E.PROVIDER_CONTENT_REFUSED, Advice.FINAL, None),
        ("task_not_found", E.PROVIDER_REQUEST_REFUSED, Advice.FINAL, None),
    ],
)
async def test_tripo_errors(tripo: TripoModels, name: str, code: E, advice: Advice, seconds: float | None) -> None:
    respx.post(f"{TRIPO_BASE}{CREATE.path}").mock(return_value=example(f"tripo/{name}"))
    with pytest.raises(Refused) as caught:
        await tripo.send(CREATE, before_first_byte=unwatched)
    assert (caught.value.code, caught.value.advice, caught.value.retry_after) == (code, advice, seconds)
    assert caught.value.provider_request_id == "req_71aa"
