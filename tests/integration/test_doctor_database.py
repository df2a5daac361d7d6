"""Each misconfiguration of database, schema and workers is found, and nothing else is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from app.config import Settings
from app.db import doctor
from app.db.migrate import migration_files
from app.db.pool import Database
from app.services.doctor.database import DATABASE
from app.services.doctor.schema import SCHEMA
from app.services.doctor.workers import WORKERS
from pydantic import SecretStr

from tests.chaos.databases import run_sql, socket_of, tcp_dsn
from tests.chaos.proxy import Proxy
from tests.e2e.gateway import wait_for
from tests.integration.doctor_world import World, examined
from tests.kernel import ASSET_KINDS
from tests.servers import PostgresServer, free_port

GROUPS = (DATABASE, SCHEMA, WORKERS)

Plant = Callable[[World], AbstractContextManager[Settings]]


@pytest.fixture(scope="module")
def world(postgres18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    with World.built(postgres18, tmp_path_factory.mktemp("doctor")) as healthy:
        yield healthy


def sql(statement: str, undo: str) -> Plant:
    @contextlib.contextmanager
    def plant(world: World) -> Generator[Settings]:
        run_sql(world.dsn, statement)
        try:
            yield world.settings
        finally:
            run_sql(world.dsn, undo)

    return plant


def changed(**changes: Any) -> Plant:  # noqa: ANN401 - values of any field
    return lambda world: contextlib.nullcontext(world.changed(**changes))


def elsewhere(change: Callable[[str], str]) -> Plant:
    """With another DATABASE_URL."""
    return lambda world: contextlib.nullcontext(world.at(change(world.dsn)))


@contextlib.contextmanager
def silent(world: World) -> Generator[Settings]:
    with Proxy.to(socket_of(world.dsn)) as proxy:
        proxy.stall()
        yield world.at(tcp_dsn(world.dsn, proxy.port)).model_copy(update={"database_timeout_seconds": 1.0})


def is_refused(dsn: str) -> bool:
    try:
        run_sql(dsn, "select 1")
    except asyncpg.InvalidPasswordError:
        return True
    return False


@contextlib.contextmanager
def wrong_password(world: World) -> Generator[Settings]:
    """The servers of tests trust whoever reaches them, but for one user."""
    rules = Path(run_sql(world.dsn, "show hba_file")[0]["hba_file"])
    before = rules.read_text()
    rules.write_text(f"local all locked scram-sha-256\n{before}")
    try:
        run_sql(world.dsn, "create role locked login password 'right'")
        run_sql(world.dsn, "select pg_reload_conf()")
        locked = world.dsn.replace("app@", "locked:hunter2@")
        wait_for(lambda: is_refused(locked) or None)  # the server reads its rules when it comes to it
        yield world.at(locked)
    finally:
        rules.write_text(before)
        run_sql(world.dsn, "drop role locked")
        run_sql(world.dsn, "select pg_reload_conf()")


@contextlib.contextmanager
def no_connection_left(world: World) -> Generator[Settings]:
    with world.copied_database() as dsn:
        run_sql(world.dsn, "create role poor login")
        run_sql(world.dsn, f"alter database {dsn.partition('?')[0].rpartition('/')[2]} connection limit 0")
        try:
            yield world.at(dsn.replace("app@", "poor@"))
        finally:
            run_sql(world.dsn, "drop role poor")


@contextlib.contextmanager
def another_clock(world: World) -> Generator[Settings]:
    """A schema that is searched first has a clock of its own."""
    clock = "create function wrong.clock_timestamp() returns timestamptz language sql"
    body = "as $$ select pg_catalog.clock_timestamp() + interval '1 hour' $$"
    with world.copied_database("create schema wrong", f"{clock} {body}") as dsn:
        yield world.at(f"{dsn}&search_path=wrong,pg_catalog,public")


@contextlib.contextmanager
def another_age(world: World) -> Generator[Settings]:
    setting = "create function wrong.current_setting(text) returns text language sql"
    body = """as $$ select case $1 when 'server_version' then '14.9' when 'server_version_num' then '140009'
      else pg_catalog.current_setting($1) end $$"""
    with world.copied_database("create schema wrong", f"{setting} {body}") as dsn:
        yield world.at(f"{dsn}&search_path=wrong,pg_catalog,public")


@contextlib.contextmanager
def another_listening_place(world: World) -> Generator[Settings]:
    with world.copied_database() as dsn:
        yield world.changed(database_listen_url=SecretStr(dsn))


@contextlib.contextmanager
def unreachable_listening_place(world: World) -> Generator[Settings]:
    yield world.changed(database_listen_url=SecretStr(tcp_dsn(world.dsn, free_port())))


@contextlib.contextmanager
def limited_role(world: World) -> Generator[Settings]:
    """It may do everything with every table, but for rows that row-level security hides."""
    run_sql(world.dsn, "create role limited login")
    try:
        grant = "grant select, insert, update, delete on all tables in schema public, makeit3d to limited"
        with world.copied_database(grant, "grant usage on schema makeit3d to limited") as dsn:
            yield world.at(dsn.replace("app@", "limited@"))
    finally:
        run_sql(world.dsn, "drop role limited")


@contextlib.contextmanager
def empty_database(world: World) -> Generator[Settings]:
    with world.postgres.fresh_database(template="template1") as dsn:
        yield world.at(dsn)


NEWEST = migration_files()[-1]
HISTORY = "makeit3d.migrations"
THIS_VERSION = f"update makeit3d.workers set version = '{version('makeit3d-bff')}'"  # noqa: S608


FUTURE_JOB = """
with task as (insert into makeit3d.tasks (id) values ('task-future') returning id), request as (
  insert into makeit3d.requests (id, task_id, operation, scope, idempotency_key, explicit_key, body_hash, job_id)
  select gen_random_uuid(), id, 'test', id, 'key', true, 'hash', gen_random_uuid() from task returning *
)
insert into makeit3d.jobs (id, task_id, request_id, step, type, pool, lane, priority, fair_tag, status, params)
select job_id, task_id, id, 1, 'of_the_future', 'openai', 'normal', 50, 0, 'queued', '{}' from request
"""


PLANTS: list[tuple[str, Plant, tuple[str, ...]]] = [
    ("database_unreachable", elsewhere(lambda dsn: tcp_dsn(dsn, free_port())), ("127.0.0.1", "Refused")),
    ("database_unreachable", silent, ("does not answer",)),
    ("database_login", wrong_password, ("InvalidPassword",)),
    ("database_missing", elsewhere(lambda dsn: dsn.replace("/t", "/no_such_t")), ()),
    ("database_full", no_connection_left, ()),
    ("database_read_only", elsewhere(lambda dsn: f"{dsn}&default_transaction_read_only=on"), ()),
    ("database_old", another_age, ("14.9",)),
    ("clock_skew", another_clock, ("s ahead of",)),
    ("listen_deaf", another_listening_place, ("within 2 s",)),
    ("listen_deaf", unreachable_listening_place, ("Refused",)),
    ("not_migrated", empty_database, ()),
    (
        "migrations_missing",
        sql(
            f"delete from {HISTORY} where version = '{NEWEST.version}'",  # noqa: S608 - constants
            f"insert into {HISTORY} values ('{NEWEST.version}', '{NEWEST.name}', '{NEWEST.checksum}')",  # noqa: S608 - constants
        ),
        (NEWEST.title,),
    ),
    (
        "schema_newer",
        sql(
            f"insert into {HISTORY} values ('9999', 'later', 'x')",  # noqa: S608 - constants
            f"delete from {HISTORY} where version = '9999'",  # noqa: S608 - constants
        ),
        ("9999_later",),
    ),
    (
        "migration_changed",
        sql(
            f"update {HISTORY} set checksum = 'x' where version = '{NEWEST.version}'",  # noqa: S608 - constants
            f"update {HISTORY} set checksum = '{NEWEST.checksum}' where version = '{NEWEST.version}'",  # noqa: S608 - constants
        ),
        (NEWEST.title,),
    ),
    ("settings_invalid", changed(models_table_name="models; drop"), ("models; drop",)),
    ("table_missing", changed(models_table_name="modells"), ("public.modells",)),
    (
        "columns_wrong",
        sql("alter table models drop column preview_url", "alter table models add column preview_url text"),
        ("models: no preview_url (text)",),
    ),
    (
        "columns_wrong",
        sql(
            "alter table concept_images alter column metadata type text",
            "alter table concept_images alter column metadata type jsonb using metadata::jsonb",
        ),
        ("concept_images: metadata is text, not jsonb",),
    ),
    (
        "row_security_off",
        sql("alter table models disable row level security", "alter table models enable row level security"),
        ("models",),
    ),
    (
        "row_security_off",
        sql(
            "alter table makeit3d.jobs disable row level security",
            "alter table makeit3d.jobs enable row level security",
        ),
        ("jobs",),
    ),
    (
        "browsers_may_write",
        sql("grant update on models to authenticated", "revoke update on models from authenticated"),
        ("models (update)",),
    ),
    (
        "browsers_may_write",
        sql("grant select on makeit3d.provider_calls to anon", "revoke select on makeit3d.provider_calls from anon"),
        ("provider_calls (select)",),
    ),
    (
        "browsers_may_not_read",
        sql("revoke select on concept_images from authenticated", "grant select on concept_images to authenticated"),
        ("concept_images",),
    ),
    (
        "storage_policies_missing",
        sql(
            "alter policy makeit3d_inputs_own_insert on storage.objects to service_role",
            "alter policy makeit3d_inputs_own_insert on storage.objects to authenticated",
        ),
        ("insert in user_input_files_bucket",),
    ),
    ("role_limited", limited_role, ("jobs",)),
    (
        "realtime_missing",
        sql(
            "alter publication supabase_realtime drop table models",
            "alter publication supabase_realtime add table models",
        ),
        ("models",),
    ),
    (
        "realtime_missing",
        sql(
            "alter publication supabase_realtime rename to other",
            "alter publication other rename to supabase_realtime",
        ),
        ("no publication",),
    ),
    (
        "lane_unserved",
        sql(
            "update makeit3d.workers set seen_at = now() - interval '1 hour'",
            "update makeit3d.workers set seen_at = now() + interval '1 day'",
        ),
        ("normal", "priority"),
    ),
    (
        "lane_unserved",
        sql(
            "update makeit3d.workers set stopping = 'normal' = any(lanes)",
            "update makeit3d.workers set stopping = false",
        ),
        ("normal",),
    ),
    (
        "job_type_unserved",
        sql(FUTURE_JOB, "delete from makeit3d.tasks"),
        ("queued: 1 of type of_the_future",),
    ),
    (
        "worker_versions",
        sql("update makeit3d.workers set version = '0.0.1'", THIS_VERSION),
        ("normal (0.0.1)",),
    ),
    (
        "worker_versions",
        sql("update makeit3d.workers set version = ''", THIS_VERSION),
        ("normal (an older one)",),
    ),
    ("slots_differ", changed(openai_slots=7), ("openai has 20, here it is 7",)),
    (
        "breaker_open",
        sql(
            "update makeit3d.providers set state = 'open', error_code = 'provider_key_rejected', opened_at = now(),"
            " tripped_at = now(), probe_at = now() where name = 'openai'",
            "update makeit3d.providers set state = 'closed', opened_at = null where name = 'openai'",
        ),
        ("openai", "provider_key_rejected"),
    ),
    ("connections_short", changed(database_pool_size=100), ("3 processes",)),
]


@pytest.mark.parametrize(
    ("code", "plant", "words"), PLANTS, ids=[f"{n}-{code}" for n, (code, _, _) in enumerate(PLANTS)]
)
def test_each_is_found_alone(world: World, code: str, plant: Plant, words: tuple[str, ...]) -> None:
    with plant(world) as settings:
        findings = examined(settings, GROUPS)
    assert {finding.entry.code for finding in findings} == {code}, findings
    seen = " ".join(finding.seen for finding in findings)
    assert [word for word in words if word not in seen] == []
    assert "hunter2" not in seen


async def test_the_columns_are_those_of_the_migrations(world: World) -> None:
    database = await Database.open(world.settings, ASSET_KINDS, application_name="makeit3d test")
    try:
        tables = doctor.expected_columns(database.tables)
        assert list(tables) == ["input_assets", "concept_images", "models"]
        for table, columns in tables.items():
            assert await doctor.columns(database, table) == columns
        rows = await database.fetch("select schemaname, tablename from pg_tables")
        found = {(row["schemaname"], row["tablename"]) for row in rows}
        assert {name for schema, name in found if schema == "public"} == set(tables)
        assert {name for schema, name in found if schema == "makeit3d"} == {*doctor.INTERNAL_TABLES, "migrations"}
    finally:
        await database.close()


def test_a_database_that_was_migrated_by_hand_is_fine(world: World) -> None:
    with world.copied_database("drop table makeit3d.migrations") as dsn:
        assert examined(world.at(dsn), GROUPS) == []
