"""What a soak will do, drawn from its seed before it begins: the same seed asks and kills the same again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

Victim = Literal["worker", "workers", "api", "beat", "valkey", "postgres", "launcher"]

USERS = 4
OPERATIONS = {
    "text-to-image": 4,
    "image-to-image": 2,
    "text-to-model": 3,
    "image-to-model": 2,
    "sketch-to-model": 1,
    "refine-model": 1,
}
VICTIMS: dict[Victim, int] = {
    "worker": 8,
    "workers": 3,
    "api": 4,
    "beat": 1,
    "valkey": 3,
    "postgres": 3,
    "launcher": 1,
}
_WORDS = ("fox", "boat", "lighthouse", "teapot", "tree", "car", "castle", "robot", "chair", "whale")


@dataclass(frozen=True, slots=True)
class Order:
    """One request of a client. ``at``, ``cancel_after`` and ``repeat_after`` in seconds; None: not at all."""

    at: float
    user: int
    task_id: str
    operation: str
    fields: Mapping[str, Any]
    key: str
    cancel_after: float | None
    repeat_after: float | None


@dataclass(frozen=True, slots=True)
class Kill:
    at: float
    victim: Victim
    chance: float  # which of several


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    seconds: float
    orders: tuple[Order, ...]
    kills: tuple[Kill, ...]


@dataclass(frozen=True, slots=True)
class Wishes:
    """``rate`` in requests per second, ``kills`` per minute."""

    minutes: float
    rate: float
    kills: float
    seed: int
    victims: tuple[Victim, ...] = tuple(VICTIMS)
    operations: Mapping[str, int] = field(default_factory=lambda: OPERATIONS)  # with their weights


def plan_of(wishes: Wishes) -> Plan:
    dice = random.Random(wishes.seed)
    seconds = wishes.minutes * 60
    orders = [_order(dice, at, wishes.operations) for at in _moments(dice, seconds, wishes.rate)]
    weights = [VICTIMS[victim] for victim in wishes.victims]
    kills = [
        Kill(at, dice.choices(wishes.victims, weights)[0], dice.random())
        for at in _moments(dice, seconds, wishes.kills / 60)
    ]
    return Plan(wishes.seed, seconds, tuple(orders), tuple(kills))


def _moments(dice: random.Random, seconds: float, rate: float) -> list[float]:
    """Moments of a Poisson process."""
    moments: list[float] = []
    at = 0.0
    while rate > 0 and (at := at + dice.expovariate(rate)) < seconds:
        moments.append(at)
    return moments


def _order(dice: random.Random, at: float, operations: Mapping[str, int]) -> Order:
    operation = dice.choices(list(operations), list(operations.values()))[0]
    fields: dict[str, Any] = {}
    if operation != "sketch-to-model" or dice.random() < 0.5:
        fields["prompt"] = f"a {dice.choice(_WORDS)} made of {dice.choice(('wood', 'clay', 'glass', 'brass'))}"
    if operation.endswith("-image"):
        fields["n"] = dice.choice((1, 1, 1, 2))
    elif operation != "refine-model":
        fields["face_limit"] = 2000
    return Order(
        at=at,
        user=dice.randrange(USERS),
        task_id=str(UUID(int=dice.getrandbits(128), version=4)),
        operation=operation,
        fields=fields,
        key=f"soak-{dice.getrandbits(64):016x}",
        cancel_after=dice.uniform(0, 4) if dice.random() < 0.12 else None,
        repeat_after=dice.uniform(0, 6) if dice.random() < 0.2 else None,
    )
