"""How many calls were under way at a time, by pool, as the providers count them: an accepted call is under way until
its work ends, whether or not anybody still listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Concurrency:
    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    @contextmanager
    def one(self, pool: str) -> Generator[None]:
        """A call that is under way while the context lasts."""
        self._open[pool] += 1
        self.saw(pool, self._open[pool])
        try:
            yield
        finally:
            self._open[pool] -= 1

    def saw(self, pool: str, calls: int) -> None:
        """So many calls were under way at this moment."""
        self._most[pool] = max(self._most[pool], calls)

    def most(self) -> dict[str, int]:
        """The most at a time, by pool, since the start or the last ``forget``."""
        return dict(self._most)

    def forget(self) -> None:
        self._most.clear()
