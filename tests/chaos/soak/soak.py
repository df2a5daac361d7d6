"""One soak: load with kills, a time of rest, then the audit and the clients' own view."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from tests.chaos.soak.clients import FINAL, Crowd
from tests.chaos.soak.plan import USERS, Plan
from tests.chaos.soak.saboteur import Saboteur
from tests.chaos.soak.verdict import verdict
from tests.e2e.gateway import REPOSITORY, Gateway, sample

# short times, so that what takes minutes in production is over in seconds; nothing else differs from `make run`
SETTINGS = {
    "SANDBOX_WORK_SECONDS": "0.8",
    "BFF_TRIPO_POLL_SECONDS": "0.3",
    "BFF_WORKER_TTL_SECONDS": "3",
    "BFF_SWEEP_SECONDS": "1",
    "BFF_SUPABASE_TIMEOUT_SECONDS": "10",
    "BFF_OPENAI_TIMEOUT_SECONDS": "60",
    "BFF_TRIPO_TIMEOUT_SECONDS": "10",
    "BFF_RECONCILE_FIRST_SECONDS": "1",
    "BFF_RECONCILE_WINDOW_SECONDS": "20",
    "BFF_RETRY_CAP_SECONDS": "5",
    "BFF_MAX_ATTEMPTS": "8",
    "BFF_MAX_CRASHES": "20",
    "BFF_OPENAI_REQUESTS_PER_MINUTE": "100000",
    "BFF_TRIPO_REQUESTS_PER_MINUTE": "100000",
    # few, so that they are full; and the stand-ins, which share this machine, are not
    "BFF_OPENAI_SLOTS": "3",
    "BFF_TRIPO_H_SLOTS": "4",
}
_CREDITS = 10**9  # a load of hours spends what an account has, and waits for more, as it should
_LINE_SECONDS = 5.0
_STILL_SECONDS = 180.0  # without anything ending after the load: it hangs

_UNREST = """
select (select count(*) from makeit3d.jobs where status in ('queued', 'running')) as jobs,
  (select count(*) from makeit3d.provider_calls where is_open) as calls,
  (select count(*) from makeit3d.files where state = 'uploading') as files
"""


@dataclass(frozen=True, slots=True)
class Result:
    tasks: int
    outcomes: Counter[str]
    kills: int
    payments: int
    differences: list[str]

    def line(self, plan: Plan) -> str:
        return (
            f"soak: {self.tasks} tasks, {self.kills} kills, {self.payments} payments,"
            f" {len(self.differences)} differences (seed {plan.seed})"
        )


class Soak:
    def __init__(self, gateway: Gateway, plan: Plan, *, faults: bool, say: Callable[[str], None]) -> None:
        self._gateway = gateway
        self._plan = plan
        self._say = say
        self._saboteur = Saboteur(gateway, faults)
        self._begun = time.monotonic()
        self._stop = asyncio.Event()
        self._running: asyncio.Task[Any] | None = None

    async def run(self) -> Result:
        self._running = asyncio.current_task()
        broken: list[str] = []
        async with self._crowd() as crowd:
            listeners = [asyncio.create_task(crowd.listen(user)) for user in range(USERS)]
            teller = asyncio.create_task(self._tell(crowd))
            try:
                self._gateway.balance(_CREDITS)
                await self._saboteur.arm()
                clients = await self._load(crowd)
                broken += await self._rest(clients)
                await asyncio.sleep(2)  # the last events are on their way to their readers
            finally:
                for task in (teller, *listeners):
                    task.cancel()
            broken += await verdict(crowd)
            broken += await self._audit()
            outcomes = Counter(_outcome(told.status) for told in crowd.told)
            outcomes["never accepted"] = crowd.given_up
        payments = len([row for row in self._gateway.paid() if row["state"] != "released"])
        kills = self._saboteur.kills.total()
        return Result(len({told.order.task_id for told in crowd.told}), outcomes, kills, payments, broken)

    @contextlib.asynccontextmanager
    async def _crowd(self) -> AsyncGenerator[Crowd]:
        users = [self._gateway.new_user() for _ in range(USERS)]
        inputs = [(user.put_input(sample("coffee.png")), user.put_input(sample("horse.png"))) for user in users]
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=50)
        async with httpx.AsyncClient(base_url=self._gateway.api_url, limits=limits, trust_env=False) as http:
            yield Crowd(http, [user.token for user in users], inputs)

    def interrupt(self) -> None:
        """Once: the load ends early. Twice: everything ends."""
        if self._stop.is_set() and self._running is not None:
            self._running.cancel()
        self._stop.set()

    async def _load(self, crowd: Crowd) -> list[asyncio.Task[None]]:
        """Orders and kills at their moments. Returns the clients, who go on following what they asked for."""
        self._begun = time.monotonic()
        kills = asyncio.create_task(self._kill())
        clients: list[asyncio.Task[None]] = []
        for order in self._plan.orders:
            if await self._stopped_before(order.at):
                break
            clients.append(asyncio.create_task(crowd.follow(order)))
        await kills
        await self._saboteur.disarm()
        return clients

    async def _kill(self) -> None:
        for kill in self._plan.kills:
            if await self._stopped_before(kill.at):
                return
            await self._saboteur.strike(kill)

    async def _stopped_before(self, at: float) -> bool:
        """Wait for a moment of the plan; True when the load is to end first."""
        try:
            async with asyncio.timeout(max(0.0, at - self._age)):
                return await self._stop.wait()
        except TimeoutError:
            return False

    @property
    def _age(self) -> float:
        return time.monotonic() - self._begun

    async def _rest(self, clients: list[asyncio.Task[None]]) -> list[str]:
        self._say("the load is over: waiting until everything has ended")
        following = asyncio.gather(*clients)
        last, since = await self._unrest(), time.monotonic()
        while any(last.values()) or not following.done():
            await asyncio.sleep(0.5)
            unrest = await self._unrest()
            if unrest != last:
                last, since = unrest, time.monotonic()
            elif time.monotonic() - since > _STILL_SECONDS:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return [f"it never came to rest: {last}"]
        await following
        return []

    async def _unrest(self) -> dict[str, int]:
        try:
            connection = await asyncpg.connect(self._gateway.dsn(), timeout=5)
        except (OSError, asyncpg.PostgresError):
            return {"database": 1}
        try:
            row = await connection.fetchrow(_UNREST)
        finally:
            await connection.close()
        return {name: int(count) for name, count in (row or {}).items()}

    async def _tell(self, crowd: Crowd) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            outcomes = Counter(told.status.get("status", "open") for told in crowd.told)
            ended = ", ".join(f"{outcomes[word]} {word}" for word in FINAL)
            open_ = sum(count for word, count in outcomes.items() if word not in FINAL)
            self._say(
                f"{self._age:5.0f} s  {len(crowd.told)} accepted: {ended}, {open_} open;"
                f" {self._saboteur.kills.total()} kills ({self._saboteur.last}); {len(crowd.lies)} lies"
            )

    async def _audit(self) -> list[str]:
        """``makeit3d audit`` as an operator runs it."""
        arguments = ["audit", "--json", "--deep", "--grace", "5", "--sandbox-ledger", self._gateway.sandbox_url]
        environment = {
            **self._gateway.environment,
            "MAKEIT3D_HOME": str(self._gateway.home),
            "PYTHONPATH": str(REPOSITORY),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli",
            *arguments,
            cwd=self._gateway.home,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, errors = await process.communicate()
        try:
            document = json.loads(told)
        except ValueError:
            return [f"the audit broke: {told.decode()[-500:]} {errors.decode()[-2000:]}"]
        self._say(f"audit: {len(document['checks'])} checks, {document['rows']} rows, {document['count']} differences")
        found = [f"{item['invariant']}: {item['ids']} {item['found']}" for item in document["differences"]]
        unshown = document["count"] - len(found)
        return found + ["one more that is not shown"] * unshown + document["unreadable"]


def _outcome(status: dict[str, object]) -> str:
    error = status.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    word = str(status.get("status", "open"))
    return f"{word} ({code})" if word == "failed" else word
