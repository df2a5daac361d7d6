"""The words of a provider's circuit breaker."""

from __future__ import annotations

from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"  # work goes to the provider
    OPEN = "open"  # its jobs wait
    HALF_OPEN = "half_open"  # one job is out to see whether the provider is well again
