"""Credits by the published table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from app.sandbox.providers.tripo_prices import price_of

TEXT, IMAGE, VIEWS = "text-to-model", "image-to-model", "multiview-to-model"
H, P1, P2 = "v3.1-20260211", "P1-20260311", "P2-20260801"
BARE = {"texture": False, "pbr": False}


@pytest.mark.parametrize(
    ("kind", "body", "credits"),
    [
        (TEXT, {"model": H, **BARE}, 10),
        (TEXT, {"model": H}, 20),
        (TEXT, {"model": H, "texture": False}, 20),  # PBR brings the texture back
        (TEXT, {"model": P1, **BARE}, 30),
        (TEXT, {"model": P1}, 40),
        (TEXT, {"model_version": P2, **BARE}, 100),
        (TEXT, {"model": P2}, 110),
        (IMAGE, {"model": "v2.5-20250123", **BARE}, 20),
        (IMAGE, {"model": H}, 30),
        (VIEWS, {"model": P1, **BARE}, 40),
        (VIEWS, {"model": P1}, 50),
        (IMAGE, {"model": P2}, 110),
        (IMAGE, {"model": H, "texture_quality": "detailed"}, 40),
        (IMAGE, {"model": H, "texture_quality": "extreme"}, 50),
        (IMAGE, {"model": H, "texture_quality": "extreme", **BARE}, 20),
        (IMAGE, {"model": H, "geometry_quality": "detailed"}, 50),
        (IMAGE, {"model": H, "smart_low_poly": True}, 40),
        (IMAGE, {"model": H, "generate_parts": True, **BARE}, 40),
        ("texture", {}, 10),
        ("texture", {"texture_quality": "fast"}, 10),
        ("texture", {"texture_quality": "detailed"}, 20),
        ("texture", {"texture_quality": "extreme"}, 30),
        ("convert", {"input": "x", "format": "STL"}, 5),
        ("convert", {"input": "x", "format": "STL", "scale_factor": 2}, 10),
        ("import", {"input": "x"}, 0),
        ("image-to-image", {}, 5),
        ("image-to-image", {"model": "banana"}, 5),
        ("text-to-image", {"model": "banana_pro", "size": "4K"}, 20),
        ("image-to-multiview", {}, 10),
        ("edit-multiview", {}, 20),
    ],
)
def test_list_prices(kind: str, body: dict[str, Any], credits: int) -> None:  # noqa: A002 - the vendor's unit
    assert price_of(kind, body, Decimal(1)) == credits


def test_a_discount_makes_fractions() -> None:
    assert str(price_of(IMAGE, {"model": H}, Decimal("0.777"))) == "23.31"
