"""Figures of rounds, their ratios, and how goals are judged by them."""

from __future__ import annotations

import pytest
from bench.figures import Figure, Spread, percentile, ratio, text
from bench.goals import GOALS, Goal, judge
from bench.parts import PARTS


def figure(name: str, *samples: float) -> Figure:
    return Figure(name, name, "/s", samples)


def test_a_ratio_is_of_samples_of_the_same_round() -> None:
    """The machine was slow in the second round: the figures differ by five, the ratio does not."""
    ours, theirs = figure("a", 200, 40, 200), figure("b", 100, 20, 100)
    assert ratio(ours, theirs) == Spread(2, 2, 2)


def test_there_is_no_ratio_to_what_was_not_measured() -> None:
    assert ratio(figure("a", 1.0), Figure("b", "b", "/s", missing="no network")) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51), (0.99, 100), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(12345.6, "12,346"), (99.94, "99.9"), (3.14159, "3.14"), (0.004, "0.00")]
)
def test_values_read_well(value: float, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(
    ("bound", "samples", "verdict"),
    [
        ("at least", (21, 19, 20), "met"),
        ("at least", (19, 19, 30), "missed"),
        ("at most", (21, 19, 20), "met"),
        ("at most", (21, 22, 1), "missed"),
    ],
)
def test_the_median_of_the_rounds_decides(bound: str, samples: tuple[float, ...], verdict: str) -> None:
    goal = Goal("a goal", "part.ours", "at least" if bound == "at least" else "at most", 2.0, "part.theirs")
    figures = {"part.ours": figure("part.ours", *samples), "part.theirs": figure("part.theirs", 10, 10, 10)}
    assert judge(goal, figures).verdict == verdict


def test_a_goal_without_a_reference_is_a_plain_value() -> None:
    goal = Goal("start", "latency.start", "at most", 5.0, unit=" ms")
    judgement = judge(goal, {"latency.start": figure("latency.start", 4, 5, 6)})
    assert (judgement.verdict, judgement.measured, goal.wanted) == ("met", "5.00 ms (4.00–6.00)", "≤ 5 ms")


def test_a_goal_says_why_its_reference_is_missing() -> None:
    goal = Goal("queue", "drain.ours", "at least", 8.0, "drain.celery")
    figures = {
        "drain.ours": figure("drain.ours", 1.0),
        "drain.celery": Figure("drain.celery", "Celery", "/s", missing="not measured: no network"),
    }
    judgement = judge(goal, figures)
    assert (judgement.verdict, judgement.measured) == ("not measured", "not measured: no network")


def test_every_goal_is_of_figures_of_a_part() -> None:
    named = {name for goal in GOALS for name in (goal.figure, goal.over) if name is not None}
    assert {name.partition(".")[0] for name in named} <= set(PARTS)
