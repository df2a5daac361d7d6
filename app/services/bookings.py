"""What paid calls cost, and how those of unknown outcome ended, as this process booked it."""

from __future__ import annotations

from prometheus_client import Counter

COST = Counter(
    "makeit3d_cost_usd_micros_total", "Booked cost of paid calls, millionths of a USD", ["provider", "certainty"]
)
UNKNOWN_SETTLED = Counter(
    "makeit3d_unknown_calls_settled_total", "Calls with an unknown outcome that were looked up or settled", ["end"]
)


def booked(provider: str, micros: int, *, is_estimate: bool) -> None:
    """Count a cost that the journal has taken."""
    COST.labels(provider, "estimate" if is_estimate else "told").inc(micros)
