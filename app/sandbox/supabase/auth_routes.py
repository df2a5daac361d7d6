"""Auth: enough for supabase-js and supabase-py to sign up, sign in, refresh, read the user and sign out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase.accounts import Accounts, Session
from app.sandbox.supabase.errors import AuthRefusal, StorageRefusal
from app.sandbox.supabase.keys import InvalidToken
from app.sandbox.supabase.project import SERVICE, Project
from app.sandbox.supabase.wire import Handler, marked

_PASSWORD_LENGTH = 6
_EMAIL_LENGTH = 255


class AuthRoutes:
    def __init__(self, project: Project, accounts: Accounts) -> None:
        self._project = project
        self._accounts = accounts

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/.well-known/jwks.json", self.jwks),
            ("GET", "/health", self.health),
            ("POST", "/signup", self.signup),
            ("POST", "/token", self.token),
            ("GET", "/user", self.user),
            ("POST", "/logout", self.logout),
            ("POST", "/admin/users", self.admin_create),
            ("GET", "/admin/users/{id}", self.admin_get),
            ("DELETE", "/admin/users/{id}", self.admin_delete),
        ]
        return [Route(path, _answering(handler), methods=[method]) for method, path, handler in table]

    async def jwks(self, request: Request) -> Response:
        del request
        return JSONResponse(self._project.keys.jwks(), headers={"cache-control": "public, max-age=600"})

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"name": "GoTrue", "version": "sandbox", "description": "sandbox stand-in for Auth"})

    async def signup(self, request: Request) -> Response:
        body = await _json(request)
        email, password = _email(body), _password(body)
        user = await self._accounts.create(email, password, user_metadata=_mapping(body, "data"))
        return JSONResponse(self._session_json(await self._accounts.start_session(user["id"])))

    async def token(self, request: Request) -> Response:
        body = await _json(request)
        match request.query_params.get("grant_type"):
            case "password":
                user_id = await self._accounts.verified(_text(body, "email").strip().lower(), _text(body, "password"))
                session = await self._accounts.start_session(user_id)
            case "refresh_token":
                session = await self._accounts.refresh(_text(body, "refresh_token"))
            case _:
                raise AuthRefusal(400, "invalid_request", "unsupported grant_type")
        return JSONResponse(self._session_json(session))

    async def user(self, request: Request) -> Response:
        user_id, session_id = self._signed_in(request)
        return JSONResponse(_user_json(await self._accounts.user_of_session(user_id, session_id)))

    async def logout(self, request: Request) -> Response:
        user_id, session_id = self._signed_in(request)
        scope = request.query_params.get("scope", "global")
        if scope not in ("global", "local", "others"):
            raise AuthRefusal(400, "validation_failed", f"Unsupported logout scope {scope!r}")
        await self._accounts.end_sessions(user_id, session_id, scope=scope)
        return Response(status_code=204)

    async def admin_create(self, request: Request) -> Response:
        self._service_only(request)
        body = await _json(request)
        user = await self._accounts.create(
            _email(body),
            _password(body) if body.get("password") else None,
            user_metadata=_mapping(body, "user_metadata"),
            app_metadata=_mapping(body, "app_metadata"),
        )
        return JSONResponse(_user_json(user))

    async def admin_get(self, request: Request) -> Response:
        self._service_only(request)
        return JSONResponse(_user_json(await self._accounts.user(_uuid(request))))

    async def admin_delete(self, request: Request) -> Response:
        self._service_only(request)
        await self._accounts.delete(_uuid(request))
        return JSONResponse({})

    def _service_only(self, request: Request) -> None:
        try:
            allowed = self._project.caller(request) is SERVICE
        except StorageRefusal:
            allowed = False
        if not allowed:
            raise AuthRefusal(403, "not_admin", "User not allowed")

    def _signed_in(self, request: Request) -> tuple[UUID, UUID]:
        """User and session of the bearer. Raises AuthRefusal."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthRefusal(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            claims = self._project.keys.read_token(token, issuer=self._project.issuer)
            return UUID(claims["sub"]), UUID(claims["session_id"])
        except (InvalidToken, ValueError) as error:
            raise AuthRefusal(403, "bad_jwt", f"invalid JWT: unable to parse or verify signature, {error}") from None

    def _session_json(self, session: Session) -> dict[str, Any]:
        user, started = session.user, session.started
        claims = {
            "iss": self._project.issuer,
            "sub": str(user["id"]),
            "aud": "authenticated",
            "role": "authenticated",
            "exp": session.expires,
            "iat": session.issued,
            "email": user["email"],
            "phone": "",
            "app_metadata": json.loads(user["raw_app_meta_data"]),
            "user_metadata": json.loads(user["raw_user_meta_data"]),
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": int(started.timestamp())}],
            "session_id": str(session.id),
            "is_anonymous": user["is_anonymous"],
        }
        return {
            "access_token": self._project.keys.sign_token(claims),
            "token_type": "bearer",
            "expires_in": session.expires - session.issued,
            "expires_at": session.expires,
            "refresh_token": session.refresh_token,
            "user": _user_json(user),
        }


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except AuthRefusal as refusal:
            return refusal.response(request)
        except StorageRefusal as refusal:  # the database is away
            return AuthRefusal(504, "request_timeout", refusal.message).response(request)
        except asyncpg.DataError:
            return AuthRefusal(400, "validation_failed", "Invalid input").response(request)

    return marked(answer)


async def _json(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body() or b"{}")
    except ValueError:
        raise AuthRefusal(400, "bad_json", "Could not parse request body as JSON") from None
    if not isinstance(value, dict):
        raise AuthRefusal(400, "bad_json", "Request body must be an object")
    return cast("dict[str, Any]", value)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise AuthRefusal(400, "validation_failed", f"{name} must be a string")
    return value


def _mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AuthRefusal(400, "validation_failed", f"{name} must be an object")
    return cast("dict[str, Any]", value)


def _email(body: dict[str, Any]) -> str:
    email = _text(body, "email").strip().lower()
    name, _, host = email.rpartition("@")
    if not name or not host or len(email) > _EMAIL_LENGTH:
        raise AuthRefusal(400, "validation_failed", "Unable to validate email address: invalid format")
    return email


def _password(body: dict[str, Any]) -> str:
    password = _text(body, "password")
    if len(password) < _PASSWORD_LENGTH:
        raise AuthRefusal(422, "weak_password", f"Password should be at least {_PASSWORD_LENGTH} characters.")
    return password


def _uuid(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise AuthRefusal(404, "validation_failed", "user_id must be an UUID") from None


def _user_json(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "aud": row["aud"],
        "role": row["role"],
        "email": row["email"],
        "phone": "",
        "email_confirmed_at": _iso(row["email_confirmed_at"]),
        "confirmed_at": _iso(row["email_confirmed_at"]),
        "last_sign_in_at": _iso(row["last_sign_in_at"]),
        "app_metadata": json.loads(row["raw_app_meta_data"]),
        "user_metadata": json.loads(row["raw_user_meta_data"]),
        "identities": [],
        "created_at": _iso(row["created_at"]),
        "updated_at": _iso(row["updated_at"]),
        "is_anonymous": row["is_anonymous"],
    }


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


__all__ = ["AuthRoutes"]
