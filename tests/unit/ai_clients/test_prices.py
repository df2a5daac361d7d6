"""The price table gives the providers' published figures."""

from __future__ import annotations

from decimal import Decimal

import pytest
from app.ai_clients.openai.prices import estimate_micros, output_tokens, settled_micros, token_prices
from app.ai_clients.tripo.prices import credits_to_micros, family_of, model_credits, texture_credits

TWO, FLARE = "gpt-image-2", "gpt-image-2.5-flare"


@pytest.mark.parametrize(
    ("model", "size", "quality", "tokens"),
    [
        (TWO, "1024x1024", "low", 196),
        (TWO, "1024x1024", "medium", 1756),
        (TWO, "1024x1024", "high", 7024),
        (TWO, "1536x1024", "low", 158),
        (TWO, "1024x1536", "medium", 1372),
        (TWO, "1536x1024", "high", 5488),
        (TWO, "2048x2048", "low", 397),
        (TWO, "2048x2048", "medium", 3568),
        (TWO, "2048x2048", "high", 14272),
        (FLARE, "1024x1024", "low", 196),
        (FLARE, "1024x1024", "medium", 439),
        (FLARE, "1024x1024", "high", 1756),
        (FLARE, "1024x1024", "xhigh", 3122),
        (FLARE, "1024x1024", "max", 7024),
        (FLARE, "1024x1536", "low", 158),
        (FLARE, "1536x1024", "medium", 343),
        (FLARE, "1024x1536", "high", 1372),
        (FLARE, "1536x1024", "xhigh", 2459),
        (FLARE, "1536x1024", "max", 5488),
        (FLARE, "2048x2048", "medium", 892),
        (FLARE, "2048x2048", "xhigh", 6343),
        (TWO, None, None, 7024),
        (TWO, "auto", "auto", 7024),
        (TWO, "0x0", "high", 7024),
        ("gpt-image-2-2026-04-21", "1024x1024", "medium", 1756),
    ],
)
def test_output_tokens(model: str, size: str | None, quality: str | None, tokens: int) -> None:
    assert output_tokens(model, size=size, quality=quality) == tokens


def test_an_estimate_covers_prompt_inputs_and_every_picture() -> None:
    one = estimate_micros(TWO, prompt="abcdef", n=1, size="1024x1024", quality="low", input_images=2)
    assert one == 2 * 5 + 6000 * 8 + 196 * 30
    assert estimate_micros(TWO, prompt="abcdef", n=3, size="1024x1024", quality="low", input_images=2) == 3 * one


@pytest.mark.parametrize(
    ("model", "usage", "micros"),
    [
        (
            TWO,
            {
                "input_tokens": 121,
                "input_tokens_details": {"text_tokens": 21, "image_tokens": 100},
                "output_tokens": 3512,
                "output_tokens_details": {"image_tokens": 3500, "text_tokens": 12},
            },
            21 * 5 + 100 * 8 + 3500 * 30 + 12 * 10,
        ),
        (TWO, {"input_tokens": 10, "output_tokens": 100}, 10 * 8 + 100 * 30),
        ("gpt-image-1-mini", {"input_tokens": 1, "output_tokens": 0}, 3),
        (TWO, {}, None),
        (TWO, {"input_tokens": True, "output_tokens": 1}, None),
        (TWO, {"input_tokens": 1.5, "output_tokens": 1}, None),
        (TWO, {"input_tokens": 5, "input_tokens_details": {"text_tokens": 50}, "output_tokens": 0}, 25),
    ],
)
def test_settled_cost(model: str, usage: dict[str, object], micros: int | None) -> None:
    assert settled_micros(model, usage) == micros


def test_an_unknown_model_is_taken_for_the_dearest() -> None:
    assert token_prices("gpt-image-9").image_out == 32


@pytest.mark.parametrize(
    ("model", "from_text", "textured", "quality", "expected"),
    [
        ("v2.5-20250123", True, False, None, 10),
        ("v3.1-20260211", True, True, None, 20),
        ("P1-20260311", True, False, "extreme", 30),
        ("P1-20260311", True, True, "standard", 40),
        ("P2-20260801", True, True, "fast", 110),
        ("v3.0-20250812", False, False, None, 20),
        ("v3.1-20260211", False, True, "detailed", 40),
        ("P1-20260311", False, True, "extreme", 70),
        ("P2-20260801", False, False, None, 100),
    ],
)
def test_tripo_models(model: str, from_text: bool, textured: bool, quality: str | None, expected: int) -> None:
    assert model_credits(model, from_text=from_text, textured=textured, texture_quality=quality) == expected


def test_tripo_textures_and_credits() -> None:
    assert [texture_credits(quality) for quality in (None, "fast", "detailed", "extreme")] == [10, 10, 20, 30]
    assert credits_to_micros(Decimal("30.25")) == 302_500
    assert credits_to_micros(Decimal("0.00001")) == 1
    assert [family_of(model) for model in ("v3.1-20260211", "P1-20260311", "P2-20260801")] == ["H", "P1", "P2"]
