"""What the stand-in holds while it runs, and who calls it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import asyncpg
import jwt
from starlette.requests import HTTPConnection

from app.config import SandboxSettings
from app.sandbox.supabase.errors import bad_token
from app.sandbox.supabase.keys import SigningKeys

Role = Literal["anon", "authenticated", "service_role"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A database role and the claims that row-level security sees."""

    role: Role
    claims: dict[str, Any]

    @property
    def user_id(self) -> str | None:
        return self.claims.get("sub") if self.role == "authenticated" else None


SERVICE = Caller("service_role", {"role": "service_role"})


@dataclass
class Project:
    """One stand-in project: its database, its keys and its directory of objects."""

    pool: asyncpg.Pool
    keys: SigningKeys
    settings: SandboxSettings

    @property
    def issuer(self) -> str:
        return f"{self.settings.public_url}/supabase/auth/v1"

    @property
    def objects(self) -> Path:
        return self.settings.home / "storage"

    def caller(self, request: HTTPConnection) -> Caller:
        """By Authorization, else by apikey: a key of the project, or a user's token. Raises StorageRefusal."""
        apikey = request.headers.get("apikey", "")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        credential = token if scheme.lower() == "bearer" and token else apikey
        if credential == self.settings.supabase_service_key.get_secret_value():
            return SERVICE
        if credential == self.settings.supabase_publishable_key.get_secret_value():
            return Caller("anon", {"role": "anon"})
        try:
            claims = self.keys.read_token(credential, issuer=self.issuer)
        except jwt.PyJWTError as error:
            raise bad_token(str(error)) from None
        return Caller("authenticated", claims)

    @asynccontextmanager
    async def acting_as(self, caller: Caller) -> AsyncGenerator[asyncpg.pool.PoolConnectionProxy]:
        """A transaction in which the database sees the caller, as the real services do it."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("select set_config('request.jwt.claims', $1, true)", json.dumps(caller.claims))
            await connection.execute(f"set local role {caller.role}")
            yield connection
