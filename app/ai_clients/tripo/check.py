"""Whether Tripo can be worked with, and how much money is left there."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from app.ai_clients.errors import ProviderError
from app.ai_clients.http.client import shared_ssl_context
from app.ai_clients.spec import Observation, Trouble
from app.ai_clients.tripo.client import TripoModels
from app.ai_clients.tripo.prices import model_credits
from app.ai_clients.tripo.settings import TripoSettings
from app.config import Settings
from app.errors import ErrorCode

_MODELS_LEFT = 20  # fewer than this and the balance is low

_BY_ERROR = {
    ErrorCode.PROVIDER_KEY_REJECTED: Trouble.PROVIDER_KEY_REFUSED,
    ErrorCode.PROVIDER_CREDITS_EXHAUSTED: Trouble.BALANCE_EMPTY,
    ErrorCode.PROVIDER_MODEL_UNAVAILABLE: Trouble.MODEL_UNAVAILABLE,
}


async def check(settings: Settings) -> Sequence[Observation]:
    client = TripoModels(settings, shared_ssl_context())
    try:
        balance = await client.balance()
    except ProviderError as error:
        return [Observation(f"tripo: {error.detail}", _BY_ERROR.get(error.code, Trouble.PROVIDER_UNREACHABLE))]
    finally:
        await client.aclose()
    left = f"tripo: {_amount(balance.available)} {balance.unit} left, {_amount(balance.frozen)} frozen"
    version = TripoSettings.of(settings).model_version
    enough = _MODELS_LEFT * model_credits(version, from_text=False, textured=True, texture_quality=None)
    if balance.available <= 0:
        return [Observation(left, Trouble.BALANCE_EMPTY)]
    if balance.available < enough:
        return [Observation(f"{left}: less than {_MODELS_LEFT} models cost", Trouble.BALANCE_LOW)]
    return [Observation(left)]


def _amount(value: Decimal) -> str:
    return f"{value:,.2f}"
