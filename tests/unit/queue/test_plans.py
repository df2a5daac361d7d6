"""The jobs of a step when its request is accepted."""

from __future__ import annotations

from app.queue.contracts import StepPlan
from app.queue.plans import planned_jobs, shares


def step(**values: object) -> StepPlan:
    return StepPlan(1, "polish", "local", "normal", 50, **values)  # pyright: ignore[reportArgumentType]


def test_a_step_without_items_is_one_job() -> None:
    (job,) = planned_jobs(step(estimate_micros=7, price={"micros": 9}, permit="gpu", participants=("credits",)))
    assert (job.step, job.chunk, job.items, job.permit) == (1, 0, (), "gpu")
    assert (job.estimate_micros, job.price, job.participants) == (7, {"micros": 9}, ("credits",))


def test_more_items_than_fit_make_several_jobs_that_share_what_the_step_costs() -> None:
    jobs = planned_jobs(
        step(items=tuple("abcde"), items_per_job=2, estimate_micros=8, price={"micros": 10, "pebble": 3})
    )
    assert [(job.chunk, job.items) for job in jobs] == [(0, ("a", "b")), (1, ("c", "d")), (2, ("e",))]
    assert [job.estimate_micros for job in jobs] == [2, 2, 4]
    assert [job.price for job in jobs] == [{"micros": micros, "pebble": 3} for micros in (3, 3, 4)]
    assert len({job.id for job in jobs}) == 3


def test_a_step_of_yielded_items_has_no_job_yet() -> None:
    assert planned_jobs(step(items_from=1)) == ()


def test_shares_add_up() -> None:
    assert shares(10, [1, 1, 1]) == [3, 3, 4]
    assert shares(100, [30, 10]) == [75, 25]
    assert shares(7, [0, 0]) == [0, 7]
    assert shares(0, [5]) == [0]
