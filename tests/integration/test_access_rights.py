"""Who may do what in the database: every table and every verb, as the catalogue lists them, by the real roles.

The rights expected here are written out; what the catalogue has beyond them fails, so that a new table is decided on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest
from app.db.migrate import migrate
from app.embedded.bootstrap import bootstrap

from tests.integration.test_access import Roles, owned_rows
from tests.servers import PostgresServer

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
SERVICE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


@dataclass(frozen=True)
class Rights:
    """Of signed-in users on a table: verbs on all columns, and columns by verb. Everybody else has none."""

    verbs: frozenset[str] = frozenset()
    columns: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])


READ = Rights(frozenset({"SELECT"}))
CLOSED = Rights()
INTERNAL = (
    *("tasks", "requests", "pools", "providers", "pool_tags", "user_tags", "workers", "jobs"),
    *("job_items", "task_dependencies", "provider_calls", "calls", "files", "events", "migrations"),
)
TABLES = {
    "public.concept_images": READ,
    "public.models": READ,
    "public.input_assets": Rights(
        frozenset({"SELECT", "DELETE"}),
        {
            "INSERT": frozenset(
                {"id", "task_id", "user_id", "prompt", "style", "input_asset_type", "asset_url", "metadata"}
            ),
            "UPDATE": frozenset({"prompt", "style", "metadata"}),
        },
    ),
    **{f"makeit3d.{name}": CLOSED for name in INTERNAL},
}
OWNED = [name for name, rights in TABLES.items() if rights is not CLOSED]


@pytest.fixture(scope="module", params=["plain 18", "plain 17", "generous"])
def dsn(request: pytest.FixtureRequest, postgres18: PostgresServer) -> Generator[str]:
    """Databases of two majors, and one whose new objects belong to everybody, as those of older projects do."""
    if request.param == "generous":
        with postgres18.fresh_database("template1") as name:
            asyncio.run(_prepare(name))
            yield name
        return
    server = postgres18 if request.param == "plain 18" else request.getfixturevalue("postgres17")
    with server.fresh_database() as name:
        yield name


async def _prepare(dsn: str) -> None:
    await bootstrap(dsn)
    connection = await asyncpg.connect(dsn)
    for kind in ("tables", "functions", "sequences", "schemas"):
        await connection.execute(f"alter default privileges grant all on {kind} to anon, authenticated, service_role")
    await connection.close()
    await migrate(dsn)


@pytest.fixture
async def connection(dsn: str) -> AsyncGenerator[asyncpg.Connection]:
    opened = await asyncpg.connect(dsn)
    transaction = opened.transaction()
    await transaction.start()
    yield opened
    await transaction.rollback()
    await opened.close()


async def tables_of(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "select format('%I.%I', n.nspname, c.relname) as name from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'makeit3d') and c.relkind in ('r', 'p', 'f', 'm', 'v')"
    )
    return [row["name"] for row in rows]


async def test_every_table_has_its_rights_and_no_more(connection: asyncpg.Connection) -> None:
    assert set(await tables_of(connection)) == set(TABLES)
    faults: list[str] = []
    for table, rights in TABLES.items():
        service = SERVICE if table != "makeit3d.migrations" else frozenset({"SELECT"})
        expected = {"anon": frozenset[str](), "authenticated": rights.verbs, "service_role": service}
        for role, verbs in expected.items():
            for verb in VERBS:
                has = await connection.fetchval("select has_table_privilege($1, $2, $3)", role, table, verb)
                if has != (verb in verbs) and not (has and role == "service_role"):
                    faults.append(f"{role} {'may' if has else 'may not'} {verb} {table}")
    assert faults == []


async def test_columns_that_browsers_may_write(connection: asyncpg.Connection) -> None:
    columns = await connection.fetch(
        "select format('%I.%I', table_schema, table_name) as table_name, column_name from information_schema.columns"
        " where table_schema in ('public', 'makeit3d')"
    )
    faults: list[str] = []
    for row in columns:
        table, column = row["table_name"], row["column_name"]
        for role in ("anon", "authenticated"):
            for verb in ("INSERT", "UPDATE", "REFERENCES"):
                has = await connection.fetchval(
                    "select has_column_privilege($1, $2, $3, $4)", role, table, column, verb
                )
                allowed = TABLES[table].columns.get(verb, ()) if role == "authenticated" else ()
                if has != (column in allowed):
                    faults.append(f"{role} {'may' if has else 'may not'} {verb} {table}.{column}")
    assert faults == []


async def test_row_security_is_on_everywhere_and_only_for_the_signed_in(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "select relname from pg_class where relnamespace in ('public'::regnamespace, 'makeit3d'::regnamespace)"
        " and relkind = 'r' and not relrowsecurity"
    )
    assert rows == []
    policies = await connection.fetch(
        "select format('%I.%I', schemaname, tablename) as tablename, roles, cmd from pg_policies"
        " where schemaname in ('public', 'makeit3d')"
    )
    assert {tuple(policy["roles"]) for policy in policies} == {("authenticated",)}
    for table, rights in TABLES.items():
        wanted = rights.verbs | set(rights.columns)
        assert {p["cmd"] for p in policies if p["tablename"] == table} == wanted, table


async def test_nothing_runs_with_its_owners_rights(connection: asyncpg.Connection) -> None:
    """Functions that are not SECURITY INVOKER, and views that do not ask with their reader's rights, would be doors."""
    functions = await connection.fetch(
        "select proname from pg_proc"
        " where pronamespace in ('public'::regnamespace, 'makeit3d'::regnamespace) and prosecdef"
    )
    assert functions == []
    views = await connection.fetch(
        "select relname from pg_class where relnamespace in ('public'::regnamespace, 'makeit3d'::regnamespace)"
        " and relkind in ('v', 'm') and not coalesce('security_invoker=true' = any(reloptions), false)"
    )
    assert views == []


@pytest.mark.parametrize("verb", ["USAGE", "SELECT", "UPDATE"])
async def test_browsers_have_no_sequences(connection: asyncpg.Connection, verb: str) -> None:
    sequences = await connection.fetch(
        "select oid from pg_class where relkind = 'S' and relnamespace = 'makeit3d'::regnamespace"
    )
    assert len(sequences) > 0
    for role in ("anon", "authenticated"):
        open_ones = [
            row["oid"]
            for row in sequences
            if await connection.fetchval("select has_sequence_privilege($1, $2::oid, $3)", role, row["oid"], verb)
        ]
        assert open_ones == []


async def test_browsers_can_make_nothing(connection: asyncpg.Connection) -> None:
    for role in ("anon", "authenticated"):
        assert not await connection.fetchval("select has_schema_privilege($1, 'public', 'CREATE')", role)
        for right in ("USAGE", "CREATE"):
            assert not await connection.fetchval("select has_schema_privilege($1, 'makeit3d', $2)", role, right)


async def test_what_realtime_publishes_has_row_security(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "select format('%I.%I', schemaname, tablename) as tablename from pg_publication_tables"
        " where pubname = 'supabase_realtime'"
    )
    published = {row["tablename"] for row in rows}
    assert published == {"public.input_assets", "public.concept_images", "public.models"}
    assert published <= set(OWNED)


# --- tried by doing --------------------------------------------------------------------------------------------


@dataclass
class People:
    roles: Roles
    mine: UUID
    theirs: UUID


@pytest.fixture
async def people(connection: asyncpg.Connection) -> People:
    found = People(Roles(connection), uuid4(), uuid4())
    for user in (found.mine, found.theirs):
        await owned_rows(connection, user)
    return found


def statements(table: str) -> dict[str, str]:
    others = {"pools": "name", "providers": "name", "pool_tags": "pool", "user_tags": "pool", "migrations": "name"}
    others |= {"events": "type", "job_items": "key", "task_dependencies": "task_id"}
    column = others.get(table.partition(".")[2], "id")
    return {
        "SELECT": f"select * from {table}",  # noqa: S608
        "INSERT": f"insert into {table} default values",
        "UPDATE": f"update {table} set {column} = {column}",  # noqa: S608
        "DELETE": f"delete from {table}",  # noqa: S608
        "TRUNCATE": f"truncate {table} cascade",
    }


async def test_refusals_by_doing(people: People) -> None:
    faults: list[str] = []
    for table, rights in TABLES.items():
        for verb, statement in statements(table).items():
            for role, user in (("anon", None), ("authenticated", people.mine), ("authenticated", None)):
                if role == "authenticated" and verb in rights.verbs:
                    continue
                try:
                    await people.roles.run(role, user, statement)
                except asyncpg.InsufficientPrivilegeError:
                    continue
                faults.append(f"{role} could {verb} {table}")
    assert faults == []


async def test_rows_of_others_are_out_of_reach(people: People, connection: asyncpg.Connection) -> None:
    for table in OWNED:
        mine = await people.roles.run("authenticated", people.mine, f"select user_id from {table}")  # noqa: S608
        assert [row["user_id"] for row in mine] == [people.mine], table
        of_theirs = f"select 1 from {table} where user_id = $1"  # noqa: S608
        assert await people.roles.run("authenticated", people.mine, of_theirs, people.theirs) == []
        # signed in without a subject, or with one that owns nothing
        assert await people.roles.run("authenticated", None, f"select 1 from {table}") == []  # noqa: S608
        assert await people.roles.run("authenticated", uuid4(), f"select 1 from {table}") == []  # noqa: S608
        everything = await people.roles.run("service_role", None, f"select 1 from {table}")  # noqa: S608
        assert len(everything) == 2, table
    for statement in (
        "delete from input_assets where user_id = $1",
        "update input_assets set prompt = 'x' where user_id = $1",
    ):
        assert await people.roles.run("authenticated", people.mine, f"{statement} returning 1", people.theirs) == []
    await connection.execute("update input_assets set user_id = null where user_id = $1", people.theirs)
    for user in (people.mine, people.theirs, None):  # rows without an owner are nobody's
        rows = await people.roles.run("authenticated", user, "select user_id from input_assets")
        assert [row["user_id"] for row in rows] == [people.mine] * (user == people.mine)


async def test_an_insert_can_not_pretend(people: People) -> None:
    base = {"task_id": "task-mine-1", "user_id": str(people.mine), "input_asset_type": "x"}
    pretences: list[dict[str, str | None]] = [
        {"user_id": str(people.theirs)},
        {"user_id": None},
        {"status": "complete"},
        {"file_id": str(uuid4())},
        {"width": "1"},
        {"error_message": "x"},
        {"created_at": "2000-01-01"},
        {"updated_at": "2000-01-01"},
    ]
    for pretence in pretences:
        row = base | pretence
        statement = (
            f"insert into input_assets ({', '.join(row)})"  # noqa: S608 - names of this test
            f" select {', '.join(row)} from json_populate_record(null::input_assets, $1::json)"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await people.roles.run("authenticated", people.mine, statement, json.dumps(row))
