"""Whether OpenAI can be worked with. Its balance cannot be asked for; the model can, for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

import httpx

from app import urls
from app.ai_clients.openai.codes import NO_MONEY
from app.ai_clients.openai.settings import OpenAISettings
from app.ai_clients.spec import Observation, Trouble
from app.config import Settings

_ANSWER_SECONDS = 8.0


async def check(settings: Settings) -> Sequence[Observation]:
    own = OpenAISettings.of(settings)
    headers = {"Authorization": f"Bearer {own.api_key.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, headers=headers) as client:
            answer = await client.get(f"{own.base_url}/models/{own.image_model}")
    except httpx.HTTPError as error:
        seen = f"openai: no connection to {urls.place(own.base_url)} ({type(error).__name__})"
        return [Observation(seen, Trouble.PROVIDER_UNREACHABLE)]
    if answer.status_code == HTTPStatus.OK:
        return [Observation(f"openai: {own.image_model} is available")]
    return [_refusal(answer, own)]


def _refusal(answer: httpx.Response, own: OpenAISettings) -> Observation:
    match answer.status_code:
        case HTTPStatus.UNAUTHORIZED:
            return Observation("openai answered 401", Trouble.PROVIDER_KEY_REFUSED)
        case HTTPStatus.FORBIDDEN:
            return Observation("openai answered 403", Trouble.PROVIDER_FORBIDS)
        case HTTPStatus.NOT_FOUND:
            return Observation(f"openai does not have {own.image_model}", Trouble.MODEL_UNAVAILABLE)
        case HTTPStatus.TOO_MANY_REQUESTS if _code(answer) in NO_MONEY:
            return Observation("openai answered 429: no quota left", Trouble.BALANCE_EMPTY)
        case status:
            return Observation(f"openai answered {status}", Trouble.PROVIDER_UNREACHABLE)


def _code(answer: httpx.Response) -> object:
    try:
        body: object = answer.json()
    except ValueError:
        return None
    error: object = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    return cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
