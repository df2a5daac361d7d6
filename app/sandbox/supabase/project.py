"""What the stand-in holds while it runs, and who calls it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asyncpg
from starlette.requests import HTTPConnection

from app.sandbox.supabase.errors import (
    bad_request,
    bad_token,
    database_unavailable,
    no_authorization,
    secret_in_browser,
)
from app.sandbox.supabase.keys import InvalidToken, SigningKeys
from app.sandbox_settings import SandboxSettings

Role = Literal["anon", "authenticated", "service_role"]
Connection = asyncpg.pool.PoolConnectionProxy

_ACQUIRE_SECONDS = 10.0
_DATABASE_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,  # a connection that closed under the call
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A database role and the claims that row-level security sees."""

    role: Role
    claims: dict[str, Any]

    @property
    def user_id(self) -> str | None:
        return self.claims.get("sub") if self.role == "authenticated" else None


SERVICE = Caller("service_role", {"role": "service_role"})
ANON = Caller("anon", {"role": "anon"})


class Project:
    """One stand-in project: its database, its keys and its directory of objects."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.keys = SigningKeys(settings.home)
        self.issuer = f"{settings.public_url}/supabase/auth/v1"
        self._pool: asyncpg.Pool | None = None

    @property
    def file_size_limit(self) -> int:
        """The largest object that any bucket takes."""
        return self.settings.storage_file_size_limit

    @property
    def objects(self) -> Path:
        return self.settings.home / "storage"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Hold the database pool open."""
        async with asyncpg.create_pool(
            self.settings.database_url.get_secret_value(),
            min_size=1,
            max_size=8,
            server_settings={"application_name": "makeit3d sandbox"},
        ) as self._pool:
            yield

    def caller(self, request: HTTPConnection) -> Caller:
        """By Authorization, else by apikey: a key of the project, or a user's token. Raises StorageRefusal.

        A hosted project's gateway makes an Authorization of an apikey that comes alone.
        """
        if "authorization" not in request.headers and "apikey" not in request.headers:
            raise no_authorization()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        credential = token if scheme.lower() == "bearer" and token else request.headers.get("apikey", "")
        if credential == self.settings.supabase_service_key.get_secret_value():
            if "Mozilla/" in request.headers.get("user-agent", ""):
                raise secret_in_browser()
            return SERVICE
        if credential == self.settings.supabase_publishable_key.get_secret_value():
            return ANON
        try:
            return Caller("authenticated", self.keys.read_token(credential, issuer=self.issuer))
        except InvalidToken as error:
            raise bad_token(str(error)) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A transaction of the service itself. Raises StorageRefusal (544) when the database does not answer."""
        if self._pool is None:
            raise database_unavailable()
        try:
            connection = await self._pool.acquire(timeout=_ACQUIRE_SECONDS)
        except (*_DATABASE_GONE, OSError):  # TimeoutError is an OSError
            raise database_unavailable() from None
        try:
            async with connection.transaction():
                yield connection
        except _DATABASE_GONE as error:
            if isinstance(error, ValueError):  # asyncpg's word for an argument that does not fit its column
                raise bad_request("Invalid input") from None
            raise database_unavailable() from None
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def acting_as(self, caller: Caller) -> AsyncGenerator[Connection]:
        """A transaction in which the database sees the caller, as the real services do it."""
        async with self.transaction() as connection:
            await connection.execute(
                "select set_config('request.jwt.claims', $1, true), set_config('role', $2, true),"
                " set_config('storage.allow_delete_query', 'true', true)",
                json.dumps(caller.claims),
                caller.role,
            )
            yield connection


__all__ = ["ANON", "SERVICE", "Caller", "Connection", "Project"]
