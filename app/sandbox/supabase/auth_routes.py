"""Auth: enough for supabase-js and supabase-py to sign up, sign in, refresh, read the user and sign out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase.errors import AuthRefusal, StorageRefusal
from app.sandbox.supabase.project import SERVICE, Project

_TOKEN_SECONDS = 3600
_REUSE_SECONDS = 10
_PASSWORD_LENGTH = 6

Handler = Callable[[Request], Awaitable[Response]]


class AuthRoutes:
    def __init__(self, project: Project) -> None:
        self._project = project

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("/.well-known/jwks.json", "GET", self.jwks),
            ("/signup", "POST", self.signup),
            ("/token", "POST", self.token),
            ("/user", "GET", self.user),
            ("/logout", "POST", self.logout),
            ("/health", "GET", self.health),
            ("/admin/users", "POST", self.admin_create),
            ("/admin/users/{id}", "GET", self.admin_get),
            ("/admin/users/{id}", "DELETE", self.admin_delete),
        ]
        return [Route(path, _answering(handler), methods=[method]) for path, method, handler in table]

    async def jwks(self, request: Request) -> Response:
        del request
        return JSONResponse(self._project.keys.jwks(), headers={"cache-control": "public, max-age=600"})

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"name": "sandbox", "description": "stand-in for Supabase Auth"})

    async def signup(self, request: Request) -> Response:
        body = await _json(request)
        row = await self._create(body, body.get("data") or {})
        return JSONResponse(await self._session(row))

    async def token(self, request: Request) -> Response:
        body = await _json(request)
        match request.query_params.get("grant_type"):
            case "password":
                return JSONResponse(await self._session(await self._by_password(body)))
            case "refresh_token":
                return JSONResponse(await self._refreshed(str(body.get("refresh_token", ""))))
            case _:
                raise AuthRefusal(400, "invalid_request", "unsupported grant_type")

    async def user(self, request: Request) -> Response:
        claims = self._claims(request)
        row = await self._project.pool.fetchrow("select * from auth.users where id = $1", UUID(claims["sub"]))
        if row is None:
            raise AuthRefusal(403, "user_not_found", "User from sub claim in JWT does not exist")
        return JSONResponse(_user_json(row))

    async def logout(self, request: Request) -> Response:
        claims = self._claims(request)
        user_id, session_id = UUID(claims["sub"]), UUID(claims["session_id"])
        match request.query_params.get("scope", "global"):
            case "local":
                await self._project.pool.execute("delete from auth.sessions where id = $1", session_id)
            case "others":
                await self._project.pool.execute(
                    "delete from auth.sessions where user_id = $1 and id <> $2", user_id, session_id
                )
            case _:
                await self._project.pool.execute("delete from auth.sessions where user_id = $1", user_id)
        return Response(status_code=204)

    async def admin_create(self, request: Request) -> Response:
        self._service_only(request)
        body = await _json(request)
        return JSONResponse(_user_json(await self._create(body, body.get("user_metadata") or {})))

    async def admin_get(self, request: Request) -> Response:
        self._service_only(request)
        row = await self._project.pool.fetchrow("select * from auth.users where id = $1", _uuid(request))
        if row is None:
            raise AuthRefusal(404, "user_not_found", "User not found")
        return JSONResponse(_user_json(row))

    async def admin_delete(self, request: Request) -> Response:
        self._service_only(request)
        await self._project.pool.execute("delete from auth.users where id = $1", _uuid(request))
        return JSONResponse({})

    # --- work -----------------------------------------------------------------------------------------------

    def _service_only(self, request: Request) -> None:
        try:
            allowed = self._project.caller(request) is SERVICE
        except StorageRefusal:
            allowed = False
        if not allowed:
            raise AuthRefusal(403, "not_admin", "User not allowed")

    def _claims(self, request: Request) -> dict[str, Any]:
        token = request.headers.get("authorization", "").partition(" ")[2]
        try:
            return self._project.keys.read_token(token, issuer=self._project.issuer)
        except jwt.PyJWTError as error:
            raise AuthRefusal(403, "bad_jwt", f"invalid JWT: {error}") from None

    async def _create(self, body: dict[str, Any], user_metadata: dict[str, Any]) -> asyncpg.Record:
        email, password = str(body.get("email") or "").strip().lower(), str(body.get("password") or "")
        if "@" not in email:
            raise AuthRefusal(400, "validation_failed", "Unable to validate email address: invalid format")
        if len(password) < _PASSWORD_LENGTH:
            message = f"Password should be at least {_PASSWORD_LENGTH} characters."
            raise AuthRefusal(422, "weak_password", message)
        try:
            row = await self._project.pool.fetchrow(
                "insert into auth.users (email, encrypted_password, raw_user_meta_data, last_sign_in_at)"
                " values ($1, $2, $3, now()) returning *",
                email,
                _hash(password),
                json.dumps(user_metadata),
            )
        except asyncpg.UniqueViolationError:
            raise AuthRefusal(422, "user_already_exists", "User already registered") from None
        assert row is not None  # noqa: S101 - an insert returns its row or raises
        return row

    async def _by_password(self, body: dict[str, Any]) -> asyncpg.Record:
        email = str(body.get("email") or "").strip().lower()
        row = await self._project.pool.fetchrow("select * from auth.users where email = $1", email)
        if row is None or not _matches(str(body.get("password") or ""), row["encrypted_password"] or ""):
            raise AuthRefusal(400, "invalid_credentials", "Invalid login credentials")
        return row

    async def _session(self, user: asyncpg.Record) -> dict[str, Any]:
        async with self._project.pool.acquire() as connection, connection.transaction():
            session_id = await connection.fetchval(
                "insert into auth.sessions (user_id) values ($1) returning id", user["id"]
            )
            refresh = await self._new_refresh_token(connection, session_id, parent=None)
        return self._session_json(user, session_id, refresh)

    async def _refreshed(self, token: str) -> dict[str, Any]:
        """Rotate: the old token works for some seconds more, for clients that raced with themselves."""
        async with self._project.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "select t.session_id, t.revoked_at < now() - make_interval(secs => $2) as spent, u.*"
                " from auth.refresh_tokens t join auth.sessions s on s.id = t.session_id"
                " join auth.users u on u.id = s.user_id where t.token = $1 for update of t",
                token,
                float(_REUSE_SECONDS),
            )
            if row is None or row["spent"]:
                raise AuthRefusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
            await connection.execute(
                "update auth.refresh_tokens set revoked_at = coalesce(revoked_at, now()) where token = $1", token
            )
            refresh = await self._new_refresh_token(connection, row["session_id"], parent=token)
        return self._session_json(row, row["session_id"], refresh)

    @staticmethod
    async def _new_refresh_token(
        connection: asyncpg.pool.PoolConnectionProxy, session_id: UUID, *, parent: str | None
    ) -> str:
        token = secrets.token_urlsafe(18)
        await connection.execute(
            "insert into auth.refresh_tokens (token, session_id, parent) values ($1, $2, $3)", token, session_id, parent
        )
        return token

    def _session_json(self, user: asyncpg.Record, session_id: UUID, refresh: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self._project.issuer,
            "sub": str(user["id"]),
            "aud": "authenticated",
            "role": "authenticated",
            "exp": now + _TOKEN_SECONDS,
            "iat": now,
            "email": user["email"],
            "phone": "",
            "app_metadata": json.loads(user["raw_app_meta_data"]),
            "user_metadata": json.loads(user["raw_user_meta_data"]),
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "session_id": str(session_id),
            "is_anonymous": user["is_anonymous"],
        }
        return {
            "access_token": self._project.keys.sign_token(claims),
            "token_type": "bearer",
            "expires_in": _TOKEN_SECONDS,
            "expires_at": now + _TOKEN_SECONDS,
            "refresh_token": refresh,
            "user": _user_json(user),
        }


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except AuthRefusal as refusal:
            return refusal.response(request)

    return answer


async def _json(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body() or b"{}")
    except ValueError:
        raise AuthRefusal(400, "bad_json", "Could not parse request body as JSON") from None
    if not isinstance(value, dict):
        raise AuthRefusal(400, "bad_json", "Request body must be an object")
    return value


def _uuid(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise AuthRefusal(404, "validation_failed", "user_id must be an UUID") from None


def _hash(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return f"{base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _matches(password: str, stored: str) -> bool:
    salt, _, digest = stored.partition("$")
    if not digest:
        return False
    made = hashlib.scrypt(password.encode(), salt=base64.b64decode(salt), n=2**14, r=8, p=1)
    return hmac.compare_digest(made, base64.b64decode(digest))


def _user_json(row: asyncpg.Record) -> dict[str, Any]:
    created = _iso(row["created_at"])
    return {
        "id": str(row["id"]),
        "aud": row["aud"],
        "role": row["role"],
        "email": row["email"],
        "phone": "",
        "email_confirmed_at": created,
        "confirmed_at": created,
        "last_sign_in_at": _iso(row["last_sign_in_at"] or row["created_at"]),
        "app_metadata": json.loads(row["raw_app_meta_data"]),
        "user_metadata": json.loads(row["raw_user_meta_data"]),
        "identities": [],
        "created_at": created,
        "updated_at": _iso(row["updated_at"]),
        "is_anonymous": row["is_anonymous"],
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
