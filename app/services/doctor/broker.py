"""The broker: can it be used, and does it keep what it is given?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError

from app import urls
from app.config import Settings
from app.domain.broker_url import redis_py_url
from app.services.doctor.examination import Group, Seen, by_settings
from app.services.doctor.findings import Code, Finding, Ill

_CONNECT_SECONDS = 3.0
_NEARLY_FULL = 0.9


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncGenerator[dict[str, Any]]:
    """What the server says of itself; empty where it may not be asked. Raises Ill."""
    url = settings.redis_url.get_secret_value()
    client = redis.from_url(
        redis_py_url(url),
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        try:
            await client.execute_command("PING")
        except Exception as error:  # noqa: BLE001 - a connection that breaks also raises what is no RedisError
            raise Ill(_refusal(urls.place(url), error)) from None
        try:
            told: dict[str, Any] = await client.info()
        except redis.ResponseError:
            told = {}
        yield told
    finally:
        await client.aclose()


def _refusal(where: str, error: Exception) -> Finding:
    """Why the broker could not be used, without the client's message, which may quote the address."""
    cause = error.__cause__ or error  # a refused login also comes as a connection that failed
    match cause if isinstance(cause, redis.RedisError) else error:
        case AuthenticationError() | AuthorizationError():
            return Finding(Code.BROKER_LOGIN, f"{where} refuses the login of REDIS_URL")
        case redis.BusyLoadingError():
            return Finding(Code.BROKER_UNREACHABLE, f"{where} is still loading")
        case redis.TimeoutError() | TimeoutError():
            return Finding(Code.BROKER_UNREACHABLE, f"{where} does not answer")
        case redis.ResponseError():
            return Finding(Code.BROKER_LOGIN, f"{where} does not allow the gateway's commands, or has no such database")
        case _:
            return Finding(Code.BROKER_UNREACHABLE, f"no connection to {where} ({type(cause).__name__})")


async def _role(told: dict[str, Any]) -> Seen:
    if told.get("role") == "slave" and told.get("slave_read_only", 1):
        return [Finding(Code.BROKER_READ_ONLY, f"its primary is {told.get('master_host', 'unknown')}")]
    version = told.get("valkey_version") or told.get("redis_version")
    name = "Valkey" if "valkey_version" in told else "Redis"
    return [f"{name} {version}" if version else "answers, and does not tell of itself"]


async def _memory(told: dict[str, Any]) -> Seen:
    seen: list[Finding] = []
    policy = str(told.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        seen.append(Finding(Code.BROKER_EVICTS, f"maxmemory-policy is {policy}"))
    limit, used = int(told.get("maxmemory") or 0), int(told.get("used_memory") or 0)
    if limit and used > _NEARLY_FULL * limit:
        seen.append(Finding(Code.BROKER_FULL, f"{used / limit:.0%} of {limit:,} bytes are used"))
    return seen


BROKER = Group("broker", by_settings(open_broker), (_role, _memory), silence=Code.BROKER_UNREACHABLE)
