"""What a part of the benchmark gets, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.figures import Figure


class BenchFailed(Exception):
    """A part could not measure. The message says what happened and what to do."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How long and how often to measure; ``say`` shows progress on one line."""

    quick: bool
    rounds: int
    say: Callable[[str], None]

    @property
    def seconds(self) -> float:
        """Of one load of one target in one round."""
        return 0.5 if self.quick else 1.5

    def each_round(self, part: str) -> Iterator[int]:
        for number in range(self.rounds):
            self.say(f"{part}: round {number + 1} of {self.rounds}")
            yield number


Part = Callable[[Bench], list[Figure]]
