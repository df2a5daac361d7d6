"""The audit can fail: one violation of each invariant, planted in a database that is otherwise clean, is found."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from app.ai_clients.errors import Advice, Refused
from app.ai_clients.registry import build_registry
from app.config import Settings
from app.container import user_limits
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.audit import Findings
from app.domain.jobs import Completed, Settlement
from app.domain.operations import Operation
from app.errors import ErrorCode
from app.services.audit import OUTPUT_KEY, ROW_CHECKS, audit_rows, look

from tests import kernel
from tests.integration.audit_plants import PLANTS, plant_of
from tests.integration.factories import (
    accept,
    image_plan,
    make_user,
    make_worker,
    model_plan,
    settings_for,
    sketch_plan,
)
from tests.integration.majors import database
from tests.integration.workshop import open_workshop
from tests.servers import PostgresServer

__all__ = ["database"]

_OPEN = (
    "state = 'open', failures = 1, trips = 1, error_code = 'provider_unavailable', opened_at = now(),"
    " tripped_at = now(), probe_at = now()"
)
_HALF_OPEN = _OPEN.replace("'open'", "'half_open'") + ", probe_job = gen_random_uuid()"
WORKER = "00000000-0000-0000-0000-00000000000a"


@dataclass(frozen=True)
class LivedIn:
    settings: Settings
    user: UUID


async def _live(dsn: str, home: Path) -> UUID:
    """A completed task of two requests, a refused one, a canceled one, and one that waits; all workers are gone."""
    async with _opened(settings_for(dsn, home)) as db:
        async with open_workshop(db, dsn, home) as shop:
            await shop.finished(await shop.ask(Operation.TEXT_TO_IMAGE, "audit-done", n=2))
            await shop.finished(await shop.ask(Operation.TEXT_TO_MODEL, "audit-done"))
            shop.images.ledger.refuse_next(Refused(ErrorCode.PROVIDER_CONTENT_REFUSED, "no", advice=Advice.FINAL))
            await shop.finished(await shop.ask(Operation.TEXT_TO_IMAGE, "audit-refused"))
            user = shop.user
        await accept(db, sketch_plan(user, "audit-waiting"))
        await accept(db, model_plan(user, "audit-canceled"))
        await kernel.cancel(db, "audit-canceled", user)
        await db.execute(
            "insert into makeit3d.workers (id, name, host, pid, lanes, slots)"
            " values ($1, 'test', 'here', 1, '{normal}', 5)",
            WORKER,
        )
        return user


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Database]:
    db = await Database.open(settings, kernel.ASSET_KINDS, application_name="makeit3d test")
    await pool_rows.ensure(db, {name: (p.provider, p.slots) for name, p in build_registry().pools(settings).items()})
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture(scope="module")
def lived_in(postgres18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[LivedIn]:
    home = tmp_path_factory.mktemp("lived-in")
    with postgres18.fresh_database() as dsn:
        user = asyncio.run(_live(dsn, home))
        yield LivedIn(settings_for(dsn, home), user)


@pytest.fixture
async def shop_database(lived_in: LivedIn) -> AsyncGenerator[Database]:
    async with _opened(lived_in.settings) as db:
        yield db


class Undo(Exception):
    pass


async def look_at_plant(db: Database, settings: Settings, name: str) -> Findings:
    """What the audit sees of a plant, which is gone afterwards."""
    findings = Findings()
    try:
        async with db.transaction() as connection:
            await connection.execute("set local session_replication_role = replica")
            changed = await connection.driver.execute(plant_of(name))
            assert not changed.endswith(" 0")
            findings = await look(connection, db, settings)
            raise Undo
    except Undo:
        return findings


async def test_a_lived_in_database_has_no_differences(shop_database: Database, lived_in: LivedIn) -> None:
    findings = await audit_rows(shop_database, lived_in.settings)
    assert findings.differences == []
    assert findings.rows > 40


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_violation_is_the_one_difference(name: str, shop_database: Database, lived_in: LivedIn) -> None:
    findings = await look_at_plant(shop_database, lived_in.settings, name)
    assert {difference.invariant.name for difference in findings.differences} == {name}
    assert all(difference.found and difference.ids for difference in findings.differences)


def test_every_invariant_has_a_planted_violation() -> None:
    assert set(PLANTS) == {check.invariant.name for check in ROW_CHECKS} | {OUTPUT_KEY.name}


async def test_the_places_of_a_user_are_those_of_the_setting(database: str, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path, user_max_in_flight=1)
    async with _opened(settings) as db:
        user = await make_user(db)
        for number in range(3):
            await kernel.accept(db, sketch_plan(user, f"audit-place-{number}"), user_limits(settings))
        assert (await audit_rows(db, settings)).differences == []
        more = settings.model_copy(update={"user_max_in_flight": 2})
        found = (await audit_rows(db, more)).differences
    assert [(item.invariant.name, item.ids) for item in found] == [
        ("user_place", {"user": str(user), "permit": "paid"})
    ]
    assert found[0].found == "2 jobs wait, 1 of 2 places are taken"


@pytest.mark.parametrize(
    ("wrong", "sound"),
    [
        ("failures = 3, error_code = 'x'", "failures = 3"),
        (f"{_OPEN}, trips = 0", _OPEN),
        (f"{_OPEN}, probe_job = gen_random_uuid()", _OPEN),
        (f"{_OPEN}, state = 'half_open'", f"{_HALF_OPEN}, probe_attempt = 1"),
        (_HALF_OPEN, f"{_HALF_OPEN}, probe_attempt = 1"),
    ],
)
async def test_a_breaker_that_contradicts_itself_is_found(
    wrong: str, sound: str, shop_database: Database, lived_in: LivedIn
) -> None:
    for columns, names in ((wrong, {"breaker_state"}), (sound, set[str]())):
        findings = Findings()
        with contextlib.suppress(Undo):
            async with shop_database.transaction() as connection:
                # the last word for a column counts
                words = dict(part.split(" = ", 1) for part in columns.split(", "))
                changes = ", ".join(f"{name} = {value}" for name, value in words.items())
                await connection.execute(f"update makeit3d.providers set {changes} where name = 'tripo'")  # noqa: S608
                findings = await look(connection, shop_database, lived_in.settings)
                raise Undo
        assert {difference.invariant.name for difference in findings.differences} == names


@pytest.mark.parametrize("repaired", [True, False])
async def test_what_may_pass_is_looked_at_twice(shop_database: Database, lived_in: LivedIn, *, repaired: bool) -> None:
    await shop_database.execute(plant_of("due_is_woken"))
    repair = "update makeit3d.jobs set waiting_for = null, run_after = null where waiting_for = 'retry'"

    async def again() -> None:
        if repaired:
            await shop_database.execute(repair)

    found = (await audit_rows(shop_database, lived_in.settings, again=again)).differences
    await shop_database.execute(repair)
    assert [difference.invariant.name for difference in found] == ([] if repaired else ["due_is_woken"])


async def test_an_audit_can_not_write(shop_database: Database) -> None:
    async with shop_database.snapshot() as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("delete from makeit3d.events")


async def test_the_checks_run_on_every_major(database: str, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path)
    async with _opened(settings) as db:
        assert (await audit_rows(db, settings)).differences == []


@pytest.mark.parametrize(("provider", "pool"), [(None, "local"), ("openai", "openai")])
async def test_only_a_completed_job_that_is_paid_needs_outputs_and_a_settled_call(
    provider: str | None, pool: str, database: str, tmp_path: Path
) -> None:
    settings = settings_for(database, tmp_path)
    async with _opened(settings) as db:
        plan = image_plan(await make_user(db), "audit-local-1", n=1)
        await accept(db, replace(plan, jobs=[replace(plan.jobs[0], provider=provider, pool=pool)], assets=[]))
        worker = await make_worker(db)
        (job,) = (await kernel.claim(db, worker_id=worker.id, lanes=worker.lanes, limit=5)).jobs
        await kernel.finish(db, [Settlement(job, Completed(()))])
        assert await db.fetchval("select status from makeit3d.tasks") == "completed"
        found = {item.invariant.name for item in (await audit_rows(db, settings)).differences}
    assert found == (set[str]() if pool == "local" else {"job_has_output", "completed_is_over"})
