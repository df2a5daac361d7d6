"""A few seconds of `make soak`: every kind of process is killed once under load, and nothing differs afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.soak.plan import Kill, Plan, Victim, Wishes, plan_of
from tests.chaos.soak.soak import SETTINGS, Soak
from tests.e2e.gateway import Gateway
from tests.servers import server_home

pytestmark = pytest.mark.chaos

# an image call that is cut holds its job until nobody can answer it any more, a minute and a half: not here
OPERATIONS = {"text-to-model": 3, "image-to-model": 2, "refine-model": 1}
KILLS: dict[float, Victim] = {1.0: "valkey", 2.5: "worker", 4.0: "api", 5.5: "postgres", 7.0: "beat", 8.0: "workers"}


def short_plan() -> Plan:
    drawn = plan_of(Wishes(minutes=9 / 60, rate=0.7, kills=0, seed=4, operations=OPERATIONS))
    kills = tuple(Kill(at, victim, 0.0) for at, victim in KILLS.items())
    return Plan(drawn.seed, drawn.seconds, drawn.orders, kills)


def test_the_same_seed_is_the_same_plan() -> None:
    wishes = Wishes(minutes=20, rate=1.0, kills=6, seed=7)
    plan = plan_of(wishes)
    assert plan == plan_of(wishes)
    assert plan != plan_of(Wishes(minutes=20, rate=1.0, kills=6, seed=8))
    assert {order.operation for order in plan.orders} == set(wishes.operations)
    assert {kill.victim for kill in plan.kills} == set(wishes.victims)


@pytest.mark.timeout(600)
def test_a_short_soak_ends_clean() -> None:
    plan = short_plan()
    with server_home("soak") as home, Gateway.running(home, **SETTINGS) as gateway:
        gateway.balance(10)  # a longer one would spend it all
        result = asyncio.run(Soak(gateway, plan, faults=True, say=lambda _: None).run())
    assert result.differences == []
    assert result.kills >= len(KILLS)
    assert result.tasks == len(plan.orders) >= 4
    assert result.line(plan).endswith("0 differences (seed 4)")
