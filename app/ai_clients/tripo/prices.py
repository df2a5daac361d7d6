"""What calls of Tripo cost, in credits. Pure; one version of the table, written into every journal row that used it.

Old rows are never recomputed: a new price is a new ``PRICE_VERSION``. Source: Tripo's price page.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from app.domain.money import whole_micros

PRICE_VERSION = "2026-11-21"

MICROS_PER_CREDIT = Decimal(10_000)  # 1 credit = 0.01 USD

Family = Literal["H", "P1", "P2"]

# (bare, textured) credits
_TEXT_TO_MODEL: Mapping[Family, tuple[int, int]] = {"H": (10, 20), "P1": (30, 40), "P2": (100, 110)}
_IMAGE_TO_MODEL: Mapping[Family, tuple[int, int]] = {"H": (20, 30), "P1": (40, 50), "P2": (100, 110)}
_TEXTURE_QUALITY: Mapping[str, int] = {"detailed": 10, "extreme": 20}
_TEXTURE_BASE = 10
_IMAGE_TO_IMAGE = 5  # the default model at 1K


def family_of(model: str) -> Family:
    """The price and slot group of a Tripo model version."""
    if model.startswith("P2"):
        return "P2"
    return "P1" if model.startswith("P") else "H"


def model_credits(model: str, *, from_text: bool, textured: bool, texture_quality: str | None) -> Decimal:
    """Credits of a text-, image- or multiview-to-model call."""
    bare, with_texture = (_TEXT_TO_MODEL if from_text else _IMAGE_TO_MODEL)[family_of(model)]
    if not textured:
        return Decimal(bare)
    return Decimal(with_texture + _TEXTURE_QUALITY.get(texture_quality or "standard", 0))


def texture_credits(texture_quality: str | None) -> Decimal:
    """Credits of a models/texture call."""
    return Decimal(_TEXTURE_BASE + _TEXTURE_QUALITY.get(texture_quality or "standard", 0))


def sketch_credits() -> Decimal:
    """Credits of an image-to-image call with the provider's default model."""
    return Decimal(_IMAGE_TO_IMAGE)


def credits_to_micros(credit: Decimal) -> int:
    """USD micros of Tripo credits."""
    return whole_micros(credit * MICROS_PER_CREDIT)
