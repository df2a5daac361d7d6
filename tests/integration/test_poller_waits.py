"""Who waits for a polled call hears of its end, whenever they came and whatever the provider asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.ai_clients.base import ProviderTask, ProviderTaskState
from app.ai_clients.errors import Advice, Refused
from app.calls import journal
from app.domain.operations import Operation
from app.errors import ErrorCode

from tests.fake_providers import FakeModels
from tests.integration.workshop import PATIENCE, Workshop, workshop

__all__ = ["workshop"]

_BOOKING_WAITS = """
select exists (select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
  and query like '%update makeit3d.provider_calls set state = ''settled''%')
"""


async def test_who_comes_while_the_end_is_booked_hears_of_it(workshop: Workshop) -> None:
    """A retried job goes on with the call of the one that ended, whose last poll is on its way."""
    workshop.models.polls = 10**9
    task = await workshop.ask(Operation.TEXT_TO_MODEL, "task-poller-1")
    poller = workshop.workers[0].pollers["tripo"]
    async with asyncio.timeout(PATIENCE):
        while not await workshop.db.fetchval(
            "select exists (select from makeit3d.provider_calls where state = 'submitted')"
        ):
            await asyncio.sleep(0.02)
        (call,) = await journal.calls_of(workshop.db, await workshop.db.fetchval("select id from makeit3d.jobs"))
        async with workshop.db.transaction() as connection:
            await connection.execute("select 1 from makeit3d.provider_calls for update")
            workshop.models.tasks = {id_: replace(work, polls_left=0) for id_, work in workshop.models.tasks.items()}
            while not await workshop.db.fetchval(_BOOKING_WAITS):
                await asyncio.sleep(0.02)
            late = asyncio.create_task(poller.wait(call))
            await asyncio.sleep(0)
        assert (await late).state is ProviderTaskState.SUCCEEDED
    status = await workshop.finished(task)
    assert status.jobs[0]["status"] == "completed"


class Tired(FakeModels):
    """Wants to be left alone for a day when it is first asked."""

    asked = False

    async def poll(self, task_ids: Sequence[str]) -> Mapping[str, ProviderTask]:
        if not self.asked:
            self.asked = True
            raise Refused(ErrorCode.PROVIDER_BUSY, "tomorrow", advice=Advice.DEFER, retry_after=86_400)
        return await super().poll(task_ids)


async def test_a_provider_that_wants_to_be_left_alone_for_a_day_is_asked_again_soon(workshop: Workshop) -> None:
    workshop.models = Tired()
    await workshop.workers.pop().aclose()
    await workshop.start()
    status = await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-poller-2"))
    assert status.jobs[0]["status"] == "completed"
