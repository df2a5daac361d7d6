"""The project's goals for its hot paths, as ratios of one run or as plain times, and how a run stands to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.figures import Figure, Spread, ratio, text

Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The median of ``figure``, divided by ``over`` where that is given, is at least or at most ``limit``."""

    title: str
    figure: str
    bound: Literal["at least", "at most"]
    limit: float
    over: str | None = None
    unit: str = ""

    @property
    def wanted(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{sign} {self.limit:g}{self.unit or ' ×'}"


@dataclass(frozen=True, slots=True)
class Judgement:
    goal: Goal
    verdict: Verdict
    spread: Spread | None
    reason: str = ""  # why it was not measured

    @property
    def measured(self) -> str:
        if self.spread is None:
            return self.reason or "–"
        unit = self.goal.unit or " ×"
        return f"{text(self.spread.median)}{unit} ({text(self.spread.low)}–{text(self.spread.high)})"


GOALS: tuple[Goal, ...] = (
    Goal("hot poll to the framework's constant", "polls.hot", "at least", 2.0, "polls.framework"),
    Goal("hot poll to a raw ASGI constant", "polls.hot", "at least", 0.6, "polls.raw_asgi"),
    Goal("poll answered 304 to a hot poll", "polls.not_modified", "at least", 1.0, "polls.hot"),
    Goal("cold poll to a query by primary key", "polls.cold", "at least", 0.9, "polls.primary_key"),
    Goal("accept to a constant POST, 16 clients", "accepts.gateway", "at least", 0.4, "accepts.constant_post"),
    Goal("database part of accept to the bare driver", "accepts.database", "at least", 0.9, "accepts.bare_driver"),
    Goal("claim and finish to Celery with Redis", "drain.no_op", "at least", 8.0, "drain.celery"),
    Goal("claim and finish to procrastinate", "drain.no_op", "at least", 15.0, "drain.procrastinate"),
    Goal("full finish to Celery with Redis", "drain.full", "at least", 4.0, "drain.celery"),
    Goal("claim at 1 million rows to 10 thousand", "claims.million", "at most", 1.3, "claims.ten_thousand"),
    Goal("claim behind 100,000 blocked jobs to an idle one", "claims.blocked", "at most", 1.1, "claims.idle"),
    Goal("start latency p50", "latency.start_p50", "at most", 5.0, unit=" ms"),
    Goal("start latency p99", "latency.start_p99", "at most", 25.0, unit=" ms"),
    Goal("added latency p50, image", "latency.image_p50", "at most", 40.0, unit=" ms"),
    Goal("added latency p99, image", "latency.image_p99", "at most", 150.0, unit=" ms"),
    Goal("added latency p50, model", "latency.model_p50", "at most", 40.0, unit=" ms"),
    Goal("added latency p99, model", "latency.model_p99", "at most", 150.0, unit=" ms"),
)


def judge(goal: Goal, figures: Mapping[str, Figure]) -> Judgement:
    wanted = [figures.get(name) for name in (goal.figure, goal.over) if name is not None]
    for figure in wanted:
        if figure is None or figure.spread is None:
            reason = "" if figure is None or figure.missing is None else figure.missing
            return Judgement(goal, "not measured", None, reason)
    first, *rest = [figure for figure in wanted if figure is not None]
    spread = ratio(first, rest[0]) if rest else first.spread
    if spread is None:
        return Judgement(goal, "not measured", None)
    met = spread.median >= goal.limit if goal.bound == "at least" else spread.median <= goal.limit
    return Judgement(goal, "met" if met else "missed", spread)
