"""Every row of OpenAI's error table, and every way a connection can break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from app.ai_clients.base import ImageRequest
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.openai.client import OpenAIImages
from app.errors import ErrorCode as E

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import OPENAI_BASE, OPENAI_KEY, assert_no_secrets

GENERATIONS = f"{OPENAI_BASE}/images/generations"
SECRET_PROMPT = "a very private prompt"


def error(kind: str | None, code: str | None, param: str | None = None, **more: object) -> dict[str, Any]:
    message = f"Incorrect API key provided: {OPENAI_KEY}. You asked for: {SECRET_PROMPT}. rate limit insufficient_quota"
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


INVALID = "invalid_request_error"
USER = "image_generation_user_error"

REFUSALS = [
    (400, error(INVALID, "invalid_value", "size"), E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, error(INVALID, "unknown_parameter", "response_format"), E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, error(INVALID, "invalid_type", "n"), E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (400, error(INVALID, "invalid_value", "image[0]"), E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, error(USER, "invalid_image_file"), E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (400, error(INVALID, "unsupported_file_mimetype"), E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (
        400,
        error(USER, "moderation_blocked", moderation_details={"moderation_stage": "input", "categories": ["violence"]}),
        E.PROVIDER_CONTENT_REFUSED,
        Advice.FINAL,
    ),
    (400, error(INVALID, "model_not_found"), E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (400, error(INVALID, None), E.PROVIDER_REQUEST_REFUSED, Advice.FINAL),
    (401, error(INVALID, "invalid_api_key"), E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (401, {}, E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (403, error(INVALID, None), E.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION),
    (403, error(INVALID, "unsupported_model"), E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (404, error(INVALID, "model_not_found"), E.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION),
    (413, {}, E.PROVIDER_INPUT_REFUSED, Advice.FINAL),
    (429, error("requests", "rate_limit_exceeded"), E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, error("tokens", "rate_limit_exceeded"), E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, error("input-images", "rate_limit_exceeded"), E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, error("rate_limit_error", "slow_down"), E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, {}, E.PROVIDER_RATE_LIMITED, Advice.DEFER),
    (429, error("insufficient_quota", "insufficient_quota"), E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
    (429, error("insufficient_quota", "credit_balance_exhausted"), E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
    (
        429,
        error("insufficient_quota", "organization_spend_limit_exceeded"),
        E.PROVIDER_CREDITS_EXHAUSTED,
        Advice.CONFIGURATION,
    ),
    (
        429,
        error("insufficient_quota", "project_spend_limit_exceeded"),
        E.PROVIDER_CREDITS_EXHAUSTED,
        Advice.CONFIGURATION,
    ),
    (429, error("insufficient_quota", None), E.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION),
    (503, error("service_unavailable_error", "server_is_overloaded"), E.PROVIDER_BUSY, Advice.DEFER),
]


async def failure(openai: OpenAIImages, reply: Path, request: ImageRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await openai.send(request or ImageRequest(SECRET_PROMPT), reply=reply, before_first_byte=unwatched)
    assert not reply.exists()
    assert_no_secrets(caught.value, SECRET_PROMPT)
    return caught.value


@respx.mock
@pytest.mark.parametrize(("status", "body", "code", "advice"), REFUSALS)
async def test_refusals(
    openai: OpenAIImages, tmp_path: Path, status: int, body: dict[str, Any], code: E, advice: Advice
) -> None:
    route = respx.post(GENERATIONS).respond(
        status, json=body, headers={"x-request-id": "req_7", "retry-after": "12", "x-should-retry": "true"}
    )
    refused = await failure(openai, tmp_path / "reply")
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice) == (code, advice)
    assert refused.http_status == status
    assert refused.provider_request_id == "req_7"
    assert refused.retry_after == (12.0 if advice is Advice.DEFER else None)
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (408, b"{}"),
        (409, b"{}"),
        (500, b'{"error":{"message":"m","type":"server_error","param":null,"code":null}}'),
        (500, b'{"error":{"message":"m","type":"requests","param":null,"code":"rate_limit_exceeded"}}'),
        (502, b"<html>Bad Gateway</html>"),
        (503, b"<html>Service Unavailable</html>"),
        (503, b'{"error":{"message":"server_is_overloaded","type":"server_error","param":null,"code":null}}'),
        (504, b""),
        (520, b"<html>"),
        (302, b""),
    ],
)
async def test_unknown_outcomes(openai: OpenAIImages, tmp_path: Path, status: int, content: bytes) -> None:
    route = respx.post(GENERATIONS).respond(status, content=content, headers={"x-request-id": "req_8"})
    unknown = await failure(openai, tmp_path / "reply")
    assert isinstance(unknown, OutcomeUnknown)
    assert unknown.http_status == status
    assert unknown.provider_request_id == "req_8"
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (httpx.ConnectError("dns"), Refused),
        (httpx.ConnectTimeout("slow"), Refused),
        (httpx.PoolTimeout("full"), Refused),
        (httpx.ProxyError("no proxy"), Refused),
        (httpx.WriteError("reset"), OutcomeUnknown),
        (httpx.WriteTimeout("slow"), OutcomeUnknown),
        (httpx.ReadError("reset"), OutcomeUnknown),
        (httpx.ReadTimeout("slow"), OutcomeUnknown),
        (httpx.RemoteProtocolError("closed"), OutcomeUnknown),
        (httpx.LocalProtocolError("odd"), OutcomeUnknown),
    ],
)
async def test_transport(
    openai: OpenAIImages, tmp_path: Path, broken: Exception, expected: type[ProviderError]
) -> None:
    route = respx.post(GENERATIONS).mock(side_effect=broken)
    seen = await failure(openai, tmp_path / "reply")
    assert type(seen) is expected
    if isinstance(seen, Refused):
        assert (seen.code, seen.advice) == (E.PROVIDER_UNAVAILABLE, Advice.RETRY)
    else:
        assert seen.code is E.PROVIDER_OUTCOME_UNKNOWN
    assert route.call_count == 1


@respx.mock
async def test_a_model_that_a_client_chose_is_not_our_configuration(openai: OpenAIImages, tmp_path: Path) -> None:
    respx.post(GENERATIONS).respond(404, json=error(INVALID, "model_not_found"))
    refused = await failure(openai, tmp_path / "reply", ImageRequest(SECRET_PROMPT, model="gpt-image-9"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.advice) == (E.PROVIDER_REQUEST_REFUSED, Advice.FINAL)


@respx.mock
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after(
    openai: OpenAIImages, tmp_path: Path, headers: dict[str, str], seconds: float | None
) -> None:
    respx.post(GENERATIONS).respond(429, json=error("requests", "rate_limit_exceeded"), headers=headers)
    refused = await failure(openai, tmp_path / "reply")
    assert isinstance(refused, Refused)
    assert refused.retry_after == seconds


@respx.mock
async def test_a_code_that_holds_the_key_or_is_no_code_is_dropped(openai: OpenAIImages, tmp_path: Path) -> None:
    for code in (OPENAI_KEY, SECRET_PROMPT, {"a": 1}, "x" * 65):
        respx.post(GENERATIONS).respond(
            400, json={"error": {"code": code, "type": None}}, headers={"x-request-id": OPENAI_KEY}
        )
        refused = await failure(openai, tmp_path / "reply")
        assert refused.provider_code is None
        assert refused.provider_request_id is None


@respx.mock
async def test_a_huge_error_body_is_read_only_so_far(openai: OpenAIImages, tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    respx.post(GENERATIONS).mock(return_value=httpx.Response(500, content=endless()))
    assert isinstance(await failure(openai, tmp_path / "reply"), OutcomeUnknown)
    assert sent <= 1024 * 1024
