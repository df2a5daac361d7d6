"""What calls of OpenAI Images cost. Pure; one version of the table, written into every journal row that used it.

Old rows are never recomputed: a new price is a new ``PRICE_VERSION``. Sources: OpenAI's price page, and its calculator
for output tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from app.domain.money import whole_micros

PRICE_VERSION = "2026-11-21"

_INPUT_IMAGE_TOKENS = 3_000  # reserved per input image; no formula is published
_UTF8_BYTES_PER_TEXT_TOKEN = 3  # on the safe side for every script


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD per million tokens, which is USD micros per token."""

    text_in: Decimal
    image_in: Decimal
    image_out: Decimal
    text_out: Decimal = Decimal(10)


_GPT_IMAGE_2 = TokenPrices(Decimal(5), Decimal(8), Decimal(30))

# by the beginning of the model's name, most special first: dated snapshots cost the same
_PRICES: tuple[tuple[str, TokenPrices], ...] = (
    ("gpt-image-1-mini", TokenPrices(Decimal(2), Decimal("2.5"), Decimal(8))),
    ("gpt-image-1.5", TokenPrices(Decimal(5), Decimal(8), Decimal(32))),
    ("gpt-image-2", _GPT_IMAGE_2),
)

_BASE_2: Mapping[str, int] = {"low": 16, "medium": 48, "high": 96}
_BASE_2_5: Mapping[str, int] = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}


def token_prices(model: str) -> TokenPrices:
    """Token prices of a model; an unknown one is taken to cost what the dearest known one does."""
    for prefix, prices in _PRICES:
        if model.startswith(prefix):
            return prices
    return max((prices for _, prices in _PRICES), key=lambda prices: prices.image_out)


def output_tokens(model: str, *, size: str | None, quality: str | None) -> int:
    """Expected output tokens of one picture. ``auto`` is reserved as ``high`` and as the dearest standard size."""
    table = _BASE_2_5 if model.startswith(("gpt-image-2.5", "gpt-image-2.6")) else _BASE_2
    base = table.get(quality or "auto", table["high"])
    width, height = _dimensions(size)
    scaled = round(Decimal(base) * min(width, height) / max(width, height))  # half to even
    return whole_micros(Decimal(base * scaled * (2_000_000 + width * height)) / 4_000_000)


def estimate_micros(
    model: str, *, prompt: str, n: int, size: str | None, quality: str | None, input_images: int
) -> int:
    """What a call for ``n`` pictures may cost, in USD micros. Each picture is billed as if asked for alone."""
    prices = token_prices(model)
    text_tokens = -(-len(prompt.encode()) // _UTF8_BYTES_PER_TEXT_TOKEN)
    one = (
        prices.text_in * text_tokens
        + prices.image_in * (_INPUT_IMAGE_TOKENS * input_images)
        + prices.image_out * output_tokens(model, size=size, quality=quality)
    )
    return whole_micros(one * n)


def settled_micros(model: str, usage: Mapping[str, Any]) -> int | None:
    """Cost by the ``usage`` of a reply, in USD micros; None when it says too little.

    An upper bound: the reply does not say which input tokens were cached.
    """
    prices = token_prices(model)
    total_in, total_out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if total_in is None or total_out is None:
        return None
    text_in, image_in = _split(usage, "input_tokens_details", total_in)
    text_out, image_out = _split(usage, "output_tokens_details", total_out)
    return whole_micros(
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
