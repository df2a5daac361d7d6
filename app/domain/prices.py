"""What provider calls cost. Pure; one version of the table, written into every journal row that used it.

Old rows are never recomputed: a new price is a new ``PRICE_VERSION``. Prices come in as Decimal, amounts go out as
whole USD micros, rounded up. Sources: the providers' price pages; OpenAI's calculator for output tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal, cast

PRICE_VERSION = "2026-11-21"

MICROS_PER_CREDIT = Decimal(10_000)  # Tripo: 1 credit = 0.01 USD

_INPUT_IMAGE_TOKENS = 3_000  # reserved per input image; no formula is published
_UTF8_BYTES_PER_TEXT_TOKEN = 3  # on the safe side for every script


def _up(amount: Decimal) -> int:
    return int(amount.to_integral_value(rounding=ROUND_CEILING))


# --- OpenAI Images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD per million tokens, which is USD micros per token."""

    text_in: Decimal
    image_in: Decimal
    image_out: Decimal
    text_out: Decimal = Decimal(10)


_GPT_IMAGE_2 = TokenPrices(Decimal(5), Decimal(8), Decimal(30))

# by the beginning of the model's name, most special first: dated snapshots cost the same
_OPENAI_PRICES: tuple[tuple[str, TokenPrices], ...] = (
    ("gpt-image-1-mini", TokenPrices(Decimal(2), Decimal("2.5"), Decimal(8))),
    ("gpt-image-1.5", TokenPrices(Decimal(5), Decimal(8), Decimal(32))),
    ("gpt-image-2", _GPT_IMAGE_2),
)

_BASE_2: Mapping[str, int] = {"low": 16, "medium": 48, "high": 96}
_BASE_2_5: Mapping[str, int] = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}


def openai_prices(model: str) -> TokenPrices:
    """Token prices of a model; an unknown one is taken to cost what the dearest known one does."""
    for prefix, prices in _OPENAI_PRICES:
        if model.startswith(prefix):
            return prices
    return max((prices for _, prices in _OPENAI_PRICES), key=lambda prices: prices.image_out)


def openai_output_tokens(model: str, *, size: str | None, quality: str | None) -> int:
    """Expected output tokens of one picture. ``auto`` is reserved as ``high`` and as the dearest standard size."""
    table = _BASE_2_5 if model.startswith(("gpt-image-2.5", "gpt-image-2.6")) else _BASE_2
    base = table.get(quality or "auto", table["high"])
    width, height = _dimensions(size)
    scaled = round(Decimal(base) * min(width, height) / max(width, height))  # half to even
    return _up(Decimal(base * scaled * (2_000_000 + width * height)) / 4_000_000)


def openai_estimate_micros(
    model: str, *, prompt: str, n: int, size: str | None, quality: str | None, input_images: int
) -> int:
    """What a call for ``n`` pictures may cost, in USD micros. Each picture is billed as if asked for alone."""
    prices = openai_prices(model)
    text_tokens = -(-len(prompt.encode()) // _UTF8_BYTES_PER_TEXT_TOKEN)
    one = (
        prices.text_in * text_tokens
        + prices.image_in * (_INPUT_IMAGE_TOKENS * input_images)
        + prices.image_out * openai_output_tokens(model, size=size, quality=quality)
    )
    return _up(one * n)


def openai_settled_micros(model: str, usage: Mapping[str, Any]) -> int | None:
    """Cost by the ``usage`` of a reply, in USD micros; None when it says too little.

    An upper bound: the reply does not say which input tokens were cached.
    """
    prices = openai_prices(model)
    total_in, total_out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if total_in is None or total_out is None:
        return None
    text_in, image_in = _split(usage, "input_tokens_details", total_in)
    text_out, image_out = _split(usage, "output_tokens_details", total_out)
    return _up(
        prices.text_in * text_in
        + prices.image_in * image_in
        + prices.image_out * image_out
        + prices.text_out * text_out
    )


def _dimensions(size: str | None) -> tuple[int, int]:
    """Pixels of ``WxH``; ``auto`` and anything unreadable count as 1024x1024, the dearest standard size."""
    width, _, height = (size or "auto").partition("x")
    if width.isdecimal() and height.isdecimal() and int(width) and int(height):
        return int(width), int(height)
    return 1024, 1024


def _count(usage: Mapping[str, Any], key: str) -> int | None:
    value: object = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _split(usage: Mapping[str, Any], key: str, total: int) -> tuple[int, int]:
    """(text, image) tokens; all are image tokens, the dearer kind, unless the details say otherwise."""
    details: object = usage.get(key)
    if isinstance(details, Mapping):
        text = _count(cast("Mapping[str, Any]", details), "text_tokens") or 0
        return min(text, total), total - min(text, total)
    return 0, total


# --- Tripo ------------------------------------------------------------------------------------------------------

Family = Literal["H", "P1", "P2"]

# (bare, textured) credits
_TEXT_TO_MODEL: Mapping[Family, tuple[int, int]] = {"H": (10, 20), "P1": (30, 40), "P2": (100, 110)}
_IMAGE_TO_MODEL: Mapping[Family, tuple[int, int]] = {"H": (20, 30), "P1": (40, 50), "P2": (100, 110)}
_TEXTURE_QUALITY: Mapping[str, int] = {"detailed": 10, "extreme": 20}
_TEXTURE_BASE = 10
_IMAGE_TO_IMAGE = 5  # the default model at 1K


def tripo_family(model: str) -> Family:
    """The price and slot group of a Tripo model version."""
    if model.startswith("P2"):
        return "P2"
    return "P1" if model.startswith("P") else "H"


def tripo_model_credits(model: str, *, from_text: bool, textured: bool, texture_quality: str | None) -> Decimal:
    """Credits of a text-, image- or multiview-to-model call."""
    bare, with_texture = (_TEXT_TO_MODEL if from_text else _IMAGE_TO_MODEL)[tripo_family(model)]
    if not textured:
        return Decimal(bare)
    return Decimal(with_texture + _TEXTURE_QUALITY.get(texture_quality or "standard", 0))


def tripo_texture_credits(texture_quality: str | None) -> Decimal:
    """Credits of a models/texture call."""
    return Decimal(_TEXTURE_BASE + _TEXTURE_QUALITY.get(texture_quality or "standard", 0))


def tripo_sketch_credits() -> Decimal:
    """Credits of an image-to-image call with the provider's default model."""
    return Decimal(_IMAGE_TO_IMAGE)


def credits_to_micros(credit: Decimal) -> int:
    """USD micros of Tripo credits."""
    return _up(credit * MICROS_PER_CREDIT)
