"""Whose turn is next, in turns and not in seconds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from uuid import UUID, uuid4

import pytest
from app.services.fair_gate import FairGate

ANN, BOB, CAT = uuid4(), uuid4(), uuid4()


class Crowd:
    """Everybody who wants in; they leave one at a time."""

    def __init__(self, gate: FairGate) -> None:
        self.gate = gate
        self.order: list[UUID] = []
        self.inside: list[UUID] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, user: UUID, times: int = 1) -> None:
        async def enter() -> None:
            await self.gate.enter(user)
            self.order.append(user)
            self.inside.append(user)

        self.tasks += [asyncio.create_task(enter()) for _ in range(times)]
        await settled()

    async def one_leaves(self, user: UUID | None = None) -> None:
        user = self.inside[0] if user is None else user
        self.inside.remove(user)
        self.gate.leave(user)
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_user_leaves_room_for_the_others() -> None:
    crowd = Crowd(FairGate(size=3, per_user=2))
    await crowd.come(ANN, 1_000)
    assert crowd.inside == [ANN, ANN]
    await crowd.come(BOB)
    assert crowd.inside == [ANN, ANN, BOB]


@pytest.mark.parametrize("queued", [1, 10, 1_000])
async def test_anothers_first_is_next_whatever_one_queued(queued: int) -> None:
    crowd = Crowd(FairGate(size=1, per_user=1))
    await crowd.come(ANN, queued + 1)
    await crowd.come(BOB)
    await crowd.one_leaves()
    assert crowd.order == [ANN, BOB]


async def test_two_queues_take_turns() -> None:
    crowd = Crowd(FairGate(size=1, per_user=1))
    await crowd.come(ANN, 20)
    await crowd.come(BOB, 20)
    await crowd.come(CAT, 1)
    for _ in range(30):
        await crowd.one_leaves()
    assert crowd.order[:3] == [ANN, BOB, CAT]
    assert all({crowd.order[at], crowd.order[at + 1]} == {ANN, BOB} for at in range(3, 29, 2))


async def test_who_gives_up_takes_nobodys_turn() -> None:
    crowd = Crowd(FairGate(size=1, per_user=1))
    await crowd.come(ANN)
    await crowd.come(BOB, 3)
    await crowd.come(CAT)
    for task in crowd.tasks[1:4]:
        task.cancel()
    await settled()
    await crowd.one_leaves()
    assert crowd.order == [ANN, CAT]


async def test_who_gives_up_when_let_in_gives_the_turn_on() -> None:
    crowd = Crowd(FairGate(size=1, per_user=1))
    await crowd.come(ANN)
    await crowd.come(BOB)
    await crowd.come(CAT)
    crowd.inside.remove(ANN)
    crowd.gate.leave(ANN)
    crowd.tasks[1].cancel()  # let in, but not yet told
    await settled()
    assert crowd.order == [ANN, CAT]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_the_caps_hold_and_nobody_is_forgotten(seed: int) -> None:
    chance = random.Random(seed)
    crowd = Crowd(FairGate(size=3, per_user=2))
    for _ in range(200):
        match chance.randrange(3):
            case 0:
                await crowd.come(chance.choice((ANN, BOB, CAT)), chance.randrange(4))
            case 1 if crowd.inside:
                await crowd.one_leaves(chance.choice(crowd.inside))
            case _:
                waiting = [task for task in crowd.tasks if not task.done()]
                if waiting:
                    chance.choice(waiting).cancel()
                    await settled()
        assert len(crowd.inside) <= 3
        assert max(Counter(crowd.inside).values(), default=0) <= 2
    while crowd.inside:
        await crowd.one_leaves()
    assert all(task.done() for task in crowd.tasks)
