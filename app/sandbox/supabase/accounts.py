"""Users, sessions and refresh tokens: rows of the ``auth`` schema."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.sandbox.supabase.errors import AuthRefusal
from app.sandbox.supabase.project import Connection, Project

_TOKEN_SECONDS = 3600
_REUSE_SECONDS = 10.0
_NOBODYS = "$"  # an empty salt and a digest that nothing matches
_SIGNED_IN_BY = {"provider": "email", "providers": ["email"]}


@dataclass(frozen=True, slots=True)
class Session:
    """A session whose tokens are about to be handed out. ``issued`` and ``expires`` are Unix seconds."""

    id: UUID
    user: asyncpg.Record
    refresh_token: str
    started: datetime
    issued: int
    expires: int


class Accounts:
    """Every method raises AuthRefusal for what Auth refuses."""

    def __init__(self, project: Project) -> None:
        self._project = project

    async def create(
        self,
        email: str,
        password: str | None,
        *,
        user_metadata: dict[str, Any],
        app_metadata: dict[str, Any] | None = None,
    ) -> asyncpg.Record:
        hashed = None if password is None else await asyncio.to_thread(_hash, password)
        try:
            async with self._project.transaction() as connection:
                return await _one(
                    connection,
                    "insert into auth.users (email, encrypted_password, raw_user_meta_data, raw_app_meta_data)"
                    " values ($1, $2, $3, $4) returning *",
                    email,
                    hashed,
                    json.dumps(user_metadata),
                    json.dumps(_SIGNED_IN_BY | (app_metadata or {})),
                )
        except asyncpg.UniqueViolationError:
            raise AuthRefusal(422, "user_already_exists", "User already registered") from None

    async def verified(self, email: str, password: str) -> UUID:
        """The id of the user whose password this is."""
        async with self._project.transaction() as connection:
            row = await connection.fetchrow("select id, encrypted_password from auth.users where email = $1", email)
        # an unknown address costs as much time as a wrong password
        stored = (None if row is None else row["encrypted_password"]) or _NOBODYS
        if not await asyncio.to_thread(_matches, password, stored) or row is None:
            raise AuthRefusal(400, "invalid_credentials", "Invalid login credentials")
        return row["id"]

    async def start_session(self, user_id: UUID) -> Session:
        async with self._project.transaction() as connection:
            user = await _one(
                connection, "update auth.users set last_sign_in_at = now() where id = $1 returning *", user_id
            )
            session = await _one(
                connection, "insert into auth.sessions (user_id) values ($1) returning id, created_at", user_id
            )
            refresh = await _new_refresh_token(connection, session["id"], parent=None)
        return _session(session["id"], user, refresh, session["created_at"])

    async def refresh(self, token: str) -> Session:
        """Rotate: the old token works for some seconds more, for clients that raced with themselves."""
        async with self._project.transaction() as connection:
            row = await connection.fetchrow(
                "select t.session_id, s.user_id, s.created_at,"
                " coalesce(t.revoked_at < now() - make_interval(secs => $2), false) as spent"
                " from auth.refresh_tokens t join auth.sessions s on s.id = t.session_id"
                " where t.token = $1 for update of t",
                token,
                _REUSE_SECONDS,
            )
            if row is not None and not row["spent"]:
                await connection.execute(
                    "update auth.refresh_tokens set revoked_at = coalesce(revoked_at, now()) where token = $1", token
                )
                refresh = await _new_refresh_token(connection, row["session_id"], parent=token)
                user = await _one(connection, "select * from auth.users where id = $1", row["user_id"])
                return _session(row["session_id"], user, refresh, row["created_at"])
            if row is not None:  # somebody uses a token twice: nobody keeps the session
                await connection.execute("delete from auth.sessions where id = $1", row["session_id"])
        if row is None:
            raise AuthRefusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        raise AuthRefusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")

    async def end_sessions(self, user_id: UUID, session_id: UUID, *, scope: str) -> None:
        """``scope`` is global, local or others, seen from the session."""
        async with self._project.transaction() as connection:
            await connection.execute(
                "delete from auth.sessions where user_id = $1 and case $3"
                " when 'local' then id = $2 when 'others' then id <> $2 else true end",
                user_id,
                session_id,
                scope,
            )

    async def user_of_session(self, user_id: UUID, session_id: UUID) -> asyncpg.Record:
        """A token outlives its session until it expires, but not here."""
        async with self._project.transaction() as connection:
            live = await connection.fetchval(
                "select exists (select from auth.sessions where id = $1 and user_id = $2)", session_id, user_id
            )
        if not live:
            message = "Session from session_id claim in JWT does not exist"
            raise AuthRefusal(403, "session_not_found", message)
        return await self.user(user_id)

    async def user(self, user_id: UUID) -> asyncpg.Record:
        async with self._project.transaction() as connection:
            row = await connection.fetchrow("select * from auth.users where id = $1", user_id)
        if row is None:
            raise AuthRefusal(404, "user_not_found", "User not found")
        return row

    async def delete(self, user_id: UUID) -> None:
        async with self._project.transaction() as connection:
            gone = await connection.fetchval("delete from auth.users where id = $1 returning id", user_id)
        if gone is None:
            raise AuthRefusal(404, "user_not_found", "User not found")


def _session(session_id: UUID, user: asyncpg.Record, refresh_token: str, started: datetime) -> Session:
    now = int(time.time())
    return Session(session_id, user, refresh_token, started, now, now + _TOKEN_SECONDS)


async def _one(connection: Connection, statement: str, *values: object) -> asyncpg.Record:
    row = await connection.fetchrow(statement, *values)
    if row is None:
        raise AuthRefusal(404, "user_not_found", "User not found")
    return row


async def _new_refresh_token(connection: Connection, session_id: UUID, *, parent: str | None) -> str:
    token = secrets.token_urlsafe(18)
    await connection.execute(
        "insert into auth.refresh_tokens (token, session_id, parent) values ($1, $2, $3)", token, session_id, parent
    )
    return token


def _hash(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{base64.b64encode(salt).decode()}${base64.b64encode(_digest(password, salt)).decode()}"


def _matches(password: str, stored: str) -> bool:
    salt, _, digest = stored.partition("$")
    return hmac.compare_digest(_digest(password, base64.b64decode(salt)), base64.b64decode(digest))


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=2**14, r=8, p=1)


__all__ = ["Accounts", "Session"]
