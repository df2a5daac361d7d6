"""What is measured: one figure with a sample per round, and the ratio of two figures pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        return cls(median(samples), min(samples), max(samples))


@dataclass(frozen=True, slots=True)
class Figure:
    """``name`` is stable (``part.what``); ``samples`` has one value per round, in the order of the rounds."""

    name: str
    label: str
    unit: str
    samples: tuple[float, ...] = ()
    how: str = ""
    missing: str | None = None  # why there is no value

    @property
    def spread(self) -> Spread | None:
        return Spread.of(self.samples) if self.samples else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Figure:
        fields: dict[str, Any] = {**value, "samples": tuple(value["samples"])}
        return cls(**fields)


def ratio(figure: Figure, over: Figure) -> Spread | None:
    """Of samples of the same round: what disturbs the machine for longer than a round disturbs both alike."""
    pairs = [a / b for a, b in zip(figure.samples, over.samples, strict=False) if b]
    return Spread.of(pairs) if pairs else None


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which this share of the samples lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def text(value: float) -> str:
    """Three digits that mean something, in a form that reads well."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
