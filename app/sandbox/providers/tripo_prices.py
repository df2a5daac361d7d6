"""Credits of Tripo's tasks when they succeed, as of 2026-11-21. Source: the vendor's price page."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_BARE = {"v": (10, 20), "P1": (30, 40), "P2": (100, 100)}
"""From text, from images; by the beginning of the model's name."""
_TEXTURE = 10
_QUALITY = {"detailed": 10, "extreme": 20}
_PICTURE_SIZES = {"1K": 0, "2K": 5, "4K": 10}
_VIEWS, _EDITED_VIEW = 10, 5
_CENT = Decimal("0.01")


def price_of(kind: str, body: Mapping[str, Any], factor: Decimal) -> Decimal:
    """Credits with two places. ``factor`` below 1 is a discount."""
    return (Decimal(_list_price(kind, body)) * factor).quantize(_CENT)


def is_textured(body: Mapping[str, Any]) -> bool:
    """PBR alone brings the texture, and its price, back."""
    return body.get("texture") is not False or body.get("pbr") is not False


def _list_price(kind: str, body: Mapping[str, Any]) -> int:
    match kind:
        case "text-to-model" | "image-to-model" | "multiview-to-model":
            return _model_price(body, from_text=kind == "text-to-model")
        case "texture":
            return _TEXTURE + _QUALITY.get(str(body.get("texture_quality")), 0)
        case "convert":
            return 5 if set(body) <= {"input", "format"} else 10
        case "text-to-image" | "image-to-image":
            # the list names only its ends: 5 (seedream, banana 1K) and 20 (banana_pro 4K)
            model = str(body.get("model", "seedream_v5"))
            larger = 0 if model.startswith("seedream") else _PICTURE_SIZES.get(str(body.get("size", "1K")), 0)
            return 5 + larger + (5 if model == "banana_pro" else 0)
        case "image-to-multiview":
            return _VIEWS
        case "edit-multiview":
            return _EDITED_VIEW * 4
        case _:
            return 0


def _model_price(body: Mapping[str, Any], *, from_text: bool) -> int:
    version = str(body.get("model", body.get("model_version")))
    family = version[:2] if version[:1] == "P" else "v"
    price = _BARE[family][0 if from_text else 1]
    if is_textured(body):
        price += _TEXTURE + _QUALITY.get(str(body.get("texture_quality")), 0)
    if family == "v":
        price += 20 if body.get("geometry_quality") == "detailed" else 0
        price += 10 if body.get("smart_low_poly") else 0
        price += 20 if body.get("generate_parts") else 0
    return price
