"""The life of jobs as Hypothesis drives it: every step of the world of jobs, in any order, also several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.chaos.job_world import World

T = TypeVar("T")


def _nth(items: Sequence[T], number: int) -> T | None:
    return items[number % len(items)] if items else None


ANSWERS = ("submitted", "refused", "unknown", "succeeded", "failed")
OUTCOMES = ("completed", "completed", "failed", "retry", "deferred", "handed back")


numbers = st.integers(0, 59)
Step = Coroutine[Any, Any, None]


class JobLife(RuleBasedStateMachine):
    """Numbers draw among what there is at that moment; a step that finds nothing does nothing. No rule depends on what
    the database answered, for that differs from run to run where steps cross."""

    world: World
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    begin: Callable[[], World]

    @initialize(orders=st.lists(numbers, min_size=2, max_size=4), claim=numbers)
    def begin_with_work(self, orders: list[int], claim: int) -> None:
        self.world = self.begin()
        for number in orders:
            self.do(self._accept(number))
        self.do(self._claim(claim))

    def do(self, *steps: Step | None) -> None:
        """At the same time, if there are several."""
        self.run(_together([step for step in steps if step is not None]))

    # each step is made by a method that answers None where there is nothing to do it to

    def _claim(self, number: int) -> Step | None:
        worker = _nth(self.world.alive, number)
        return None if worker is None else self.world.claim(worker, 1 + number % 3)

    def _send(self, number: int) -> Step | None:
        held = _nth(self.world.held, number)
        return None if held is None else self.world.in_turn(held, self.world.send(held))

    def _answer(self, number: int) -> Step | None:
        call = _nth(self.world.sent, number // len(ANSWERS))
        return None if call is None else self.world.answer(call, ANSWERS[number % len(ANSWERS)])

    def _finish(self, number: int) -> Step | None:
        held = _nth(self.world.held, number // len(OUTCOMES))
        return (
            None
            if held is None
            else self.world.in_turn(held, self.world.finish(held, OUTCOMES[number % len(OUTCOMES)]))
        )

    def _work(self, number: int) -> Step | None:
        held = _nth(self.world.held, number)
        return None if held is None else self.world.in_turn(held, self.world.work(held))

    def _cancel(self, number: int) -> Step | None:
        plan = _nth(self.world.plans, number)
        return None if plan is None else self.world.cancel(plan)

    def _accept(self, number: int) -> Step | None:
        kind = ("image", "model", "sketch")[number % 3]
        return self.world.accept(kind, number % 2, number // 3 % 4)

    def _repeat(self, number: int) -> Step | None:
        plan = _nth(self.world.plans, number)
        return None if plan is None else self.world.accept_again(plan)

    def _sweep(self, number: int) -> Step | None:
        del number
        return self.world.sweep()

    @rule(number=numbers)
    def accept(self, number: int) -> None:
        self.do(self._accept(number))

    @rule(number=numbers)
    def repeat(self, number: int) -> None:
        self.do(self._repeat(number))

    @precondition(lambda self: self.world.alive)
    @rule(number=numbers)
    def claim(self, number: int) -> None:
        self.do(self._claim(number))

    @rule(number=numbers)
    def send(self, number: int) -> None:
        self.do(self._send(number))

    @rule(number=numbers)
    def answer(self, number: int) -> None:
        self.do(self._answer(number))

    @rule(number=numbers)
    def finish(self, number: int) -> None:
        self.do(self._finish(number))

    @rule(number=numbers)
    def work(self, number: int) -> None:
        self.do(self._work(number))

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        self.do(self._cancel(number))

    @precondition(lambda self: len(self.world.alive) < 3)
    @rule()
    def start_worker(self) -> None:
        self.do(self.world.start_worker())

    @rule(number=numbers)
    def forget(self, number: int) -> None:
        held = _nth(self.world.held, number)
        self.do(None if held is None else self.world.forget(held))

    @precondition(lambda self: self.world.alive)
    @rule(number=numbers)
    def die(self, number: int) -> None:
        """And others go on: what it held is taken back, and claimed again."""
        worker = _nth(self.world.alive, number)
        assert worker is not None
        self.do(self.world.die(worker))
        if number % 4:
            self.do(self.world.start_worker())
            self.do(self.world.wait(20.0))
            self.do(self.world.sweep())
            self.do(self._claim(number))

    @rule(seconds=st.sampled_from((2.0, 8.0, 20.0, 200.0)))
    def wait(self, seconds: float) -> None:
        self.do(self.world.wait(seconds))

    @rule()
    def sweep(self) -> None:
        self.do(self.world.sweep())

    @rule(steps=st.lists(st.tuples(st.integers(0, 8), numbers), min_size=2, max_size=3))
    def together(self, steps: list[tuple[int, int]]) -> None:
        kinds = (
            self._accept,
            self._repeat,
            self._claim,
            self._send,
            self._answer,
            self._finish,
            self._work,
            self._cancel,
            self._sweep,
        )
        self.do(*(kinds[kind](number) for kind, number in steps))

    @invariant()
    def nothing_differs(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.check())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.rest())
            self.run(self.world.check(at_rest=True))


async def _together(steps: Sequence[Step]) -> None:
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
