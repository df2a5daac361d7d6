"""Providers: do they answer, take the keys, have the models, and is there money?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Any, cast

import httpx

from app import urls
from app.ai_clients.errors import ProviderError
from app.ai_clients.registry import Providers, build_providers
from app.config import Settings
from app.domain.prices import tripo_model_credits
from app.errors import ErrorCode
from app.services.doctor.examination import Group, Seen
from app.services.doctor.findings import Code, Finding

_ANSWER_SECONDS = 8.0
_MODELS_LEFT = 20  # fewer than this and the balance is low

_BY_ERROR = {
    ErrorCode.PROVIDER_KEY_REJECTED: Code.PROVIDER_KEY_REFUSED,
    ErrorCode.PROVIDER_CREDITS_EXHAUSTED: Code.BALANCE_EMPTY,
    ErrorCode.PROVIDER_MODEL_UNAVAILABLE: Code.MODEL_UNAVAILABLE,
}
_NO_MONEY = frozenset(
    {
        *("insufficient_quota", "credit_balance_exhausted"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
    }
)


@dataclass(frozen=True, slots=True)
class _ProvidersPatient:
    settings: Settings
    providers: Providers


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[_ProvidersPatient]:
    providers = build_providers(settings)
    try:
        yield _ProvidersPatient(settings, providers)
    finally:
        await providers.aclose()


async def _balances(patient: _ProvidersPatient) -> Seen:
    seen: list[Finding | str] = []
    model = patient.settings.tripo_model_version
    enough = _MODELS_LEFT * tripo_model_credits(model, from_text=False, textured=True, texture_quality=None)
    for name, provider in patient.providers.all_models.items():
        try:
            balance = await provider.balance()
        except ProviderError as error:
            code = _BY_ERROR.get(error.code, Code.PROVIDER_UNREACHABLE)
            seen.append(Finding(code, f"{name}: {error.detail}"))
            continue
        left = f"{name}: {_amount(balance.available)} {balance.unit} left, {_amount(balance.frozen)} frozen"
        if balance.available <= 0:
            seen.append(Finding(Code.BALANCE_EMPTY, left))
        elif balance.available < enough:
            seen.append(Finding(Code.BALANCE_LOW, f"{left}: less than {_MODELS_LEFT} models cost"))
        else:
            seen.append(left)
    return seen


def _amount(value: Decimal) -> str:
    return f"{value:,.2f}"


async def _openai(patient: _ProvidersPatient) -> Seen:
    """Its balance can not be asked for; the model can, for nothing."""
    settings = patient.settings
    headers = {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, headers=headers) as client:
            answer = await client.get(f"{settings.openai_base_url}/models/{settings.openai_image_model}")
    except httpx.HTTPError as error:
        where = urls.place(settings.openai_base_url)
        return [Finding(Code.PROVIDER_UNREACHABLE, f"openai: no connection to {where} ({type(error).__name__})")]
    if answer.status_code == HTTPStatus.OK:
        return [f"openai: {settings.openai_image_model} is available"]
    return [_openai_refusal(answer, settings)]


def _openai_refusal(answer: httpx.Response, settings: Settings) -> Finding:
    match answer.status_code:
        case HTTPStatus.UNAUTHORIZED:
            return Finding(Code.PROVIDER_KEY_REFUSED, "openai answered 401")
        case HTTPStatus.FORBIDDEN:
            return Finding(Code.PROVIDER_FORBIDS, "openai answered 403")
        case HTTPStatus.NOT_FOUND:
            return Finding(Code.MODEL_UNAVAILABLE, f"openai does not have {settings.openai_image_model}")
        case HTTPStatus.TOO_MANY_REQUESTS if _word(answer) in _NO_MONEY:
            return Finding(Code.BALANCE_EMPTY, "openai answered 429: no quota left")
        case status:
            return Finding(Code.PROVIDER_UNREACHABLE, f"openai answered {status}")


def _word(answer: httpx.Response) -> object:
    try:
        body: object = answer.json()
    except ValueError:
        return None
    error: object = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    return cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None


PROVIDERS = Group("providers", _open, (_openai, _balances), silence=Code.PROVIDER_UNREACHABLE)
