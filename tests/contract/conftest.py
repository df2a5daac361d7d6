"""Which Supabase the contract suites run against."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.contract.supabase_target import SupabaseTarget, User
from tests.sandbox_process import running_sandbox
from tests.servers import PostgresServer, server_home

_VARIABLES = ("CONTRACT_SUPABASE_URL", "CONTRACT_SUPABASE_SERVICE_KEY", "CONTRACT_SUPABASE_PUBLISHABLE_KEY")


@pytest.fixture(scope="session")
def supabase(request: pytest.FixtureRequest) -> Generator[SupabaseTarget]:
    """The project that the environment names, else a sandbox in a process of its own."""
    named = [os.environ.get(variable, "") for variable in _VARIABLES]
    if all(named):
        yield SupabaseTarget(named[0].rstrip("/"), *named[1:])
        return
    if any(named):
        raise pytest.UsageError(f"set all of {', '.join(_VARIABLES)}, or none")
    server: PostgresServer = request.getfixturevalue("postgres18")
    with server.fresh_database() as dsn, server_home("sb") as home, running_sandbox(dsn, home) as sandbox:
        settings = sandbox.settings
        yield SupabaseTarget(
            sandbox.supabase_url,
            settings.supabase_service_key.get_secret_value(),
            settings.supabase_publishable_key.get_secret_value(),
        )


@pytest.fixture
def bucket(supabase: SupabaseTarget) -> Generator[str]:
    """A private bucket without limits or policies."""
    with supabase.bucket() as name:
        yield name


@pytest.fixture
def public_bucket(supabase: SupabaseTarget) -> Generator[str]:
    with supabase.bucket(public=True) as name:
        yield name


@pytest.fixture(scope="session")
def user(supabase: SupabaseTarget) -> Generator[User]:
    made = supabase.create_user()
    yield made
    supabase.delete_user(made.id)


@pytest.fixture(scope="session")
def inputs_bucket(supabase: SupabaseTarget) -> str:
    """The bucket where, by our migrations, users own the folder that has their id for a name."""
    name = "user_input_files_bucket"
    with supabase.http() as http:
        reply = http.post(f"{supabase.storage}/bucket", json={"id": name, "name": name, "public": False})
        assert reply.is_success or reply.json()["statusCode"] == "409"
    return name
