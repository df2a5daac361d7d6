"""Calls per minute and key, over a sliding window."""

from __future__ import annotations

import time
from collections import defaultdict, deque

_WINDOW = 60.0  # seconds


class Rates:
    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], deque[float]] = defaultdict(deque)

    def used(self, what: str, account: str) -> int:
        return len(self._recent(what, account))

    def enter(self, what: str, account: str, per_minute: int) -> float | None:
        """Count a call. None when it may pass, else the seconds until one may."""
        recent = self._recent(what, account)
        if len(recent) >= per_minute:
            return max(0.001, recent[-per_minute] + _WINDOW - time.monotonic())
        recent.append(time.monotonic())
        return None

    def _recent(self, what: str, account: str) -> deque[float]:
        calls = self._calls[what, account]
        while calls and time.monotonic() - calls[0] > _WINDOW:
            calls.popleft()
        return calls
