"""Migrating as a role that owns the database but not Storage's tables: the rest is done, and what is left is told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from app.config import child_environment
from app.db.migrate import pending, policies_to_make
from app.embedded.bootstrap import bootstrap
from app.services.doctor.findings import Code
from app.services.doctor.schema import SCHEMA

from tests.chaos.databases import run_sql
from tests.integration.doctor_world import examined
from tests.integration.factories import settings_for
from tests.servers import PostgresServer

RIGHTS = (
    "create role owner_of_ours login createrole",
    "grant usage on schema auth, storage to owner_of_ours",
    "grant references on auth.users to owner_of_ours",
    "grant select on storage.objects to owner_of_ours",
    "alter publication supabase_realtime owner to owner_of_ours",
    "alter schema public owner to owner_of_ours",
)


@pytest.fixture(params=["postgres18", "postgres17"])
def dsn(request: pytest.FixtureRequest) -> Generator[str]:
    """An empty project, as the role that may not touch Storage's tables sees it."""
    server: PostgresServer = request.getfixturevalue(request.param)
    with server.fresh_database("template1") as dsn:
        asyncio.run(bootstrap(dsn))
        name = dsn.partition("?")[0].rpartition("/")[2]
        for right in (*RIGHTS, f"alter database {name} owner to owner_of_ours"):
            run_sql(dsn, right)
        try:
            yield dsn
        finally:
            run_sql(dsn, f"alter database {name} owner to app")
            run_sql(dsn, "drop owned by owner_of_ours cascade")
            run_sql(dsn, "drop role owner_of_ours")


def test_everything_else_is_done_and_the_policies_are_printed(dsn: str, tmp_path: Path) -> None:
    other = dsn.replace("app@", "owner_of_ours@")
    settings = settings_for(other, tmp_path)

    def migrate() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "migrate"],
            env=child_environment(settings),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = migrate()
    assert "applied 0007_access" in said
    assert "Traceback" not in said
    assert asyncio.run(pending(other)) == []
    assert [finding.code for finding in examined(settings, (SCHEMA,))] == [Code.STORAGE_POLICIES_MISSING]
    assert said.count("create policy") == 4
    run_sql(dsn, "do $do$ begin " + said[said.index("create policy") :] + " end $do$")  # as the owner pastes it
    assert asyncio.run(policies_to_make(other, ["user_input_files_bucket"])) == []
    assert "create policy" not in migrate()
    assert examined(settings, (SCHEMA,)) == []
