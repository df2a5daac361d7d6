"""Every row of Tripo's error table on a create, on a free request, and as a task that failed."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
import respx
from app.ai_clients.base import Capability, PreparedCall, ProviderTaskState
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.tripo.client import TripoModels
from app.errors import ErrorCode as E

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import TRIPO_BASE, TRIPO_KEY, assert_no_secrets

PATH = "/generation/text-to-model"
CREATE = f"{TRIPO_BASE}{PATH}"
SECRET_PROMPT = "a very private prompt"


def call(kind: Capability = Capability.TEXT_TO_MODEL, model: str = "v3.1-20260211") -> PreparedCall:
    return PreparedCall(kind, PATH, {"prompt": SECRET_PROMPT, "model": model, "model_seed": 7}, {"model_seed": 7})


def envelope(code: int, **more: object) -> dict[str, object]:
    return {
        "code": code,
        "status": "error",
        "message": f"key {TRIPO_KEY} may not ask for {SECRET_PROMPT}: 2010 concurrency",
        "suggestion": "…",
        "request_id": "req_t1",
        **more,
    }


REFUSALS: list[tuple[int, int, E, Advice]] = [
    (401, 2, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (401, 1000, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (401, 1002, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (400, 1003, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (405, 1003, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (415, 1003, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 1004, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (403, 1005, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (403, 2013, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (429, 1007, E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, 2000, E.PROVIDER_BUSY, Advice.DEFER),
    (404, 2001, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 2002, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 2003, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, 2004, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, 2005, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 2006, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 2007, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, 2008, E.PROVIDER_CONTENT_REFUSED, Advice.FINAL),
    (400, 2009, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (403, 2010, E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
    (400, 2014, E.PROVIDER_UNAVAILABLE, Advice.RETRY),
    (400, 2015, E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (400, 2016, E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (400, 2017, E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (400, 2018, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, 2019, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (413, 2021, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, 2022, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (404, 4001, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (200, 2010, E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
    (200, 9999, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (503, 1234, E.PROVIDER_UNAVAILABLE, Advice.DEFER),
    (422, 9999, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
]


async def failure(tripo: TripoModels, prepared: PreparedCall | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await tripo.send(prepared or call(), before_first_byte=unwatched)
    assert_no_secrets(caught.value, SECRET_PROMPT)
    return caught.value


@respx.mock
@pytest.mark.parametrize(("status", "code", "error", "advice"), REFUSALS)
async def test_refusals(tripo: TripoModels, status: int, code: int, error: E, advice: Advice) -> None:
    route = respx.post(CREATE).respond(status, json=envelope(code), headers={"retry-after": "7"})
    refused = await failure(tripo)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice, refused.provider_code) == (error, advice, str(code))
    assert refused.http_status == status
    assert refused.provider_request_id == "req_t1"
    assert refused.retry_after == (7.0 if advice is Advice.DEFER else None)
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (400, E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
        (401, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
        (403, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
        (413, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
        (429, E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    ],
)
async def test_refusals_without_an_envelope(tripo: TripoModels, status: int, error: E, advice: Advice) -> None:
    respx.post(CREATE).respond(status, html="<html>no</html>")
    refused = await failure(tripo)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice) == (error, advice)


@respx.mock
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, json.dumps(envelope(1000))),
        (500, json.dumps(envelope(1001))),
        (500, "<html>"),
        (502, "<html>"),
        (502, json.dumps(envelope(2010))),
        (503, "<html>"),
        (503, "{}"),
        (504, ""),
        (408, json.dumps(envelope(1003))),
        (425, ""),
        (302, ""),
        (200, ""),
        (200, '{"code":0,"data":{"task'),
        (200, "[]"),
        (200, '{"code":0}'),
        (200, '{"code":0,"data":{}}'),
        (200, '{"code":0,"data":{"task_id":""}}'),
        (200, '{"code":0,"data":{"task_id":7}}'),
        (200, '{"code":0,"status":"error","data":{"task_id":"x"}}'),
        (200, '{"data":{"task_id":"x"}}'),
        (200, '{"code":true,"data":{"task_id":"x"}}'),
        (200, json.dumps(envelope(1000))),
        (200, '{"code":NaN}'),
        (200, "[" * 100_000),
    ],
)
async def test_unknown_outcomes(tripo: TripoModels, status: int, content: str) -> None:
    route = respx.post(CREATE).respond(status, content=content.encode())
    unknown = await failure(tripo)
    assert isinstance(unknown, OutcomeUnknown)
    assert unknown.http_status == status
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (httpx.ConnectError("dns"), Refused),
        (httpx.ConnectTimeout("slow"), Refused),
        (httpx.PoolTimeout("full"), Refused),
        (httpx.WriteError("reset"), OutcomeUnknown),
        (httpx.WriteTimeout("slow"), OutcomeUnknown),
        (httpx.ReadError("reset"), OutcomeUnknown),
        (httpx.ReadTimeout("slow"), OutcomeUnknown),
        (httpx.RemoteProtocolError("closed"), OutcomeUnknown),
    ],
)
async def test_transport(tripo: TripoModels, broken: Exception, expected: type[ProviderError]) -> None:
    route = respx.post(CREATE).mock(side_effect=broken)
    seen = await failure(tripo)
    assert type(seen) is expected
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (2001, E.DRAFT_NOT_FOUND),
        (2005, E.DRAFT_NOT_REFINABLE),
        (2006, E.DRAFT_NOT_REFINABLE),
        (2007, E.DRAFT_NOT_REFINABLE),
    ],
)
async def test_drafts(tripo: TripoModels, code: int, error: E) -> None:
    respx.post(CREATE).respond(400, json=envelope(code))
    refused = await failure(tripo, call(Capability.TEXTURE_MODEL, "v3.5-20260815"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice) == (error, Advice.FINAL)


@respx.mock
async def test_a_version_that_a_client_chose_is_not_our_configuration(tripo: TripoModels) -> None:
    respx.post(CREATE).respond(400, json=envelope(2017))
    refused = await failure(tripo, call(model="v9"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice) == (E.PROVIDER_REQUEST_REFUSED, Advice.FINAL)


@respx.mock
async def test_a_lost_import_may_be_repeated(tripo: TripoModels) -> None:
    respx.post(CREATE).mock(side_effect=httpx.ReadTimeout("slow"))
    refused = await failure(tripo, call(Capability.IMPORT_MODEL))
    assert isinstance(refused, Refused)
    assert refused.advice is Advice.RETRY


@respx.mock
@pytest.mark.parametrize(("reset", "seconds"), [("9", 9), ("soon", None)])
async def test_rate_limit_reset(tripo: TripoModels, reset: str, seconds: float | None) -> None:
    respx.post(CREATE).respond(429, json=envelope(1007), headers={"x-ratelimit-reset": reset})
    refused = await failure(tripo)
    assert isinstance(refused, Refused)
    assert refused.retry_after == seconds


@respx.mock
async def test_rate_limit_reset_as_a_moment(tripo: TripoModels) -> None:
    moment = str(int(time.time()) + 3600)  # of this run: the suite may have been collected long ago
    respx.post(CREATE).respond(429, json=envelope(1007), headers={"x-ratelimit-reset": moment})
    refused = await failure(tripo)
    assert isinstance(refused, Refused)
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 3600


@respx.mock
@pytest.mark.parametrize(
    ("status", "body", "tries"),
    [
        (500, envelope(1001), 3),
        (502, {}, 3),
        (503, envelope(5), 3),
        (504, {}, 3),
        (429, envelope(1007), 3),
        (200, {}, 1),
        (401, envelope(2), 1),
        (404, envelope(2001), 1),
    ],
)
async def test_free_requests_are_never_unknown(
    tripo: TripoModels, status: int, body: dict[str, object], tries: int
) -> None:
    route = respx.get(f"{TRIPO_BASE}/account/balance").respond(status, json=body)
    with pytest.raises(Refused) as caught:
        await tripo.balance()
    assert route.call_count == tries
    assert_no_secrets(caught.value, SECRET_PROMPT)


@respx.mock
@pytest.mark.parametrize(
    ("fields", "state", "error"),
    [
        ({"status": "failed", "error_code": 2008}, ProviderTaskState.FAILED, E.PROVIDER_CONTENT_REFUSED),
        ({"status": "failed", "error_code": 2018}, ProviderTaskState.FAILED, E.PROVIDER_TASK_EXPIRED),
        ({"status": "failed", "error_code": 1001}, ProviderTaskState.FAILED, E.PROVIDER_TASK_FAILED),
        ({"status": "failed"}, ProviderTaskState.FAILED, E.PROVIDER_TASK_FAILED),
        ({"status": "banned"}, ProviderTaskState.FAILED, E.PROVIDER_CONTENT_REFUSED),
        ({"status": "expired"}, ProviderTaskState.FAILED, E.PROVIDER_TASK_EXPIRED),
        ({"status": "cancelled"}, ProviderTaskState.CANCELED, None),
        ({"status": "unknown"}, ProviderTaskState.RUNNING, None),
        ({"status": "brand_new_word"}, ProviderTaskState.RUNNING, None),
        ({}, ProviderTaskState.RUNNING, None),
    ],
)
async def test_task_failures(
    tripo: TripoModels, fields: dict[str, Any], state: ProviderTaskState, error: E | None
) -> None:
    task = {"error_message": f"{SECRET_PROMPT}", "credits_consumed": 0, **fields}
    respx.post(f"{TRIPO_BASE}/tasks/list").respond(json={"code": 0, "data": {"tasks": {"a": task}}})
    seen = (await tripo.poll(["a"]))["a"]
    assert (seen.state, seen.error) == (state, error)
    assert SECRET_PROMPT not in (seen.error_detail or "")
    assert seen.output_url is None
    assert seen.cost_micros == (None if state is ProviderTaskState.RUNNING else 0)
