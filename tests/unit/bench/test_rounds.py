"""Targets take turns, and what is told of them is the medians of the rounds."""

from __future__ import annotations

from bench.bench import Bench
from bench.load import Load
from bench.rounds import Seen, Target, interleave


def seen(counted: int, *, p50: float = 1.0, cpu_seconds: float = 0.1) -> Load:
    return Load(counted, 100, 2.0, {"200": 100}, p50, 2 * p50, cpu_seconds, 0.05, 0)


def test_every_target_is_loaded_once_a_round_in_the_same_order() -> None:
    turns: list[tuple[str, int]] = []

    def target(name: str) -> Target:
        def send(number: int) -> Load:
            turns.append((name, number))
            return seen(10 * (number + 1))

        return Target(name, name, send)

    bench = Bench(quick=True, rounds=2, say=lambda _: None)
    figures = interleave(bench, "part", [target("a"), target("b")])
    assert turns == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [(figure.name, figure.samples) for figure in figures] == [("a", (5.0, 10.0)), ("b", (5.0, 10.0))]


def test_details_are_medians_of_the_rounds() -> None:
    loads = [seen(1, p50=1.0), seen(1, p50=2.0), seen(1, p50=90.0)]
    told = Seen(loads, [{"API": 0.1, "Postgres": 0.3}, {"API": 0.2, "Postgres": 0.2}, {"API": 9.0, "Postgres": 0.1}])
    assert told.details() == (
        "p50 2.0 ms, p99 4.0 ms; generator 1.000 ms CPU each, 5% of a core; CPU ms each: API 2.00, Postgres 2.00"
    )


def test_cpu_that_cannot_be_read_is_left_out() -> None:
    assert Seen([seen(1)], [{}]).details() == "p50 1.0 ms, p99 2.0 ms; generator 1.000 ms CPU each, 5% of a core"
