"""Tokens and prices of OpenAI Images as of 2026-11-21. Source: price page and the formula behind its calculator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

TEXT_IN, IMAGE_IN, IMAGE_OUT = 5, 8, 30
"""USD micros per token; the same for all models that are offered."""

PARTIAL_TOKENS = 100
"""Output tokens of one partial image of a stream."""

_BASE_2 = {"low": 16, "medium": 48, "high": 96}
_BASE_2_5 = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}
_MOST_INPUT_TOKENS = 3000
_FULL_INPUT_PIXELS = 1536 * 1024
_LETTERS_PER_TOKEN = 4


def is_first_generation(model: str) -> bool:
    """gpt-image-2 and its dated form; the others are of the 2.5 family."""
    return model == "gpt-image-2" or model.startswith("gpt-image-2-")


def picture_tokens(model: str, quality: str, size: tuple[int, int]) -> int:
    """Output tokens of one picture. ``auto`` quality is worked, told and billed as ``medium``."""
    base = (_BASE_2 if is_first_generation(model) else _BASE_2_5)[quality]
    width, height = size
    short = round(Decimal(base) * min(size) / max(size))  # half to even
    return -(-base * short * (2_000_000 + width * height) // 4_000_000)


def input_tokens(size: tuple[int, int]) -> int:
    """Tokens of an input picture. The vendor publishes no formula; this one grows with the area, up to 3000."""
    return max(100, min(_MOST_INPUT_TOKENS, _MOST_INPUT_TOKENS * size[0] * size[1] // _FULL_INPUT_PIXELS))


@dataclass(frozen=True, slots=True)
class Usage:
    text: int
    images_in: int
    images_out: int

    @classmethod
    def of(cls, prompt: str, inputs: Sequence[tuple[int, int]], images_out: int) -> Usage:
        text = -(-len(prompt) // _LETTERS_PER_TOKEN)
        return cls(text, sum(input_tokens(size) for size in inputs), images_out)

    @property
    def micros(self) -> Decimal:
        """USD micros."""
        return Decimal(self.text * TEXT_IN + self.images_in * IMAGE_IN + self.images_out * IMAGE_OUT)

    def wire(self, *, streamed: bool) -> dict[str, Any]:
        """The ``usage`` object; in a stream it has no ``output_tokens_details``."""
        taken = self.text + self.images_in
        value: dict[str, Any] = {
            "input_tokens": taken,
            "input_tokens_details": {"text_tokens": self.text, "image_tokens": self.images_in},
            "output_tokens": self.images_out,
        }
        if not streamed:
            value["output_tokens_details"] = {"image_tokens": self.images_out, "text_tokens": 0}
        return {**value, "total_tokens": taken + self.images_out}
