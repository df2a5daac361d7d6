"""Settings that can be read and still do not fit each other, the account or this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from app.config import LOOPBACK, Settings
from app.errors import ConfigurationError
from app.services.doctor.disk import disk_obstacle
from app.services.doctor.examination import CheckContext, Group, Seen
from app.services.doctor.findings import Code, Finding
from app.services.doctor.providers import seen_of

_POOLER_PORTS = frozenset({6543, 6432})  # Supabase's transaction pooler, pgbouncer
_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})


@asynccontextmanager
async def _open(context: CheckContext) -> AsyncGenerator[CheckContext]:
    yield context


async def _environment(context: CheckContext) -> Seen:
    settings = context.settings
    if settings.is_sandbox:
        return ["complete (sandbox)"]
    try:
        settings.refuse_sandbox_in_production()
    except ConfigurationError as error:
        return [Finding(Code.SANDBOX_IN_PRODUCTION, error.detail or "")]
    return ["complete (production)"]


async def _addresses(context: CheckContext) -> Seen:
    """What is harmless on one machine and is not in production."""
    settings = context.settings
    if settings.is_sandbox:
        return []
    seen: list[Finding] = []
    urls = {"PUBLIC_BASE_URL": settings.public_base_url, **settings.service_addresses()}
    if _is_local(settings.public_base_url):
        seen.append(Finding(Code.PUBLIC_URL_LOCAL, f"PUBLIC_BASE_URL is {settings.public_base_url}"))
    plain = [name for name, url in urls.items() if url.startswith("http:") and not _is_local(url)]
    if plain:
        seen.append(Finding(Code.PLAIN_HTTP, ", ".join(plain)))
    if settings.metrics_token is None:
        seen.append(Finding(Code.METRICS_OPEN, "BFF_METRICS_TOKEN is not set"))
    return seen


async def _transport(context: CheckContext) -> Seen:
    settings = context.settings
    if settings.is_sandbox:
        return []
    seen: list[Finding] = []
    plain = [
        name
        for name, url in _database_urls(settings).items()
        if _is_remote(url) and parse_qs(urlsplit(url).query).get("sslmode", ["prefer"])[-1] not in _ENCRYPTED
    ]
    if plain:
        seen.append(Finding(Code.DATABASE_PLAIN, f"{', '.join(plain)} without sslmode=require"))
    broker = settings.redis_url.get_secret_value()
    if _is_remote(broker) and urlsplit(broker).password is None:
        seen.append(Finding(Code.BROKER_OPEN, "REDIS_URL has no password"))
    return seen


async def _times(context: CheckContext) -> Seen:
    settings = context.settings
    seen: list[Finding] = []
    parts = [spec.settings.of(settings) for spec in context.providers.specs]
    slowest = max(parts, key=lambda part: part.timeout_seconds)
    name, longest = slowest.variable("timeout_seconds"), slowest.timeout_seconds
    if settings.shutdown_grace_seconds < longest:
        grace = f"BFF_SHUTDOWN_GRACE_SECONDS is {settings.shutdown_grace_seconds:.0f}"
        seen.append(Finding(Code.GRACE_SHORT, f"{grace}, {name} is {longest:.0f}"))
    return seen


async def _account(context: CheckContext) -> Seen:
    """What is known of the providers' accounts and versions."""
    settings = context.settings
    parts = [spec.settings.of(settings) for spec in context.providers.specs]
    return [seen for part in parts for seen in seen_of(part.observations(in_production=not settings.is_sandbox))]


async def _poolers(context: CheckContext) -> Seen:
    settings = context.settings
    urls = _database_urls(settings)
    seen: list[Finding] = []
    if _is_pooled(urls["DATABASE_URL"]) and settings.database_statement_cache_size:
        cache = f"BFF_DATABASE_STATEMENT_CACHE_SIZE is {settings.database_statement_cache_size}"
        seen.append(Finding(Code.POOLER_CACHE, f"DATABASE_URL is a transaction pooler, {cache}"))
    name, listen = list(urls.items())[-1]
    if _is_pooled(listen):
        seen.append(Finding(Code.LISTEN_POOLED, f"the address to listen at, {name}, is a transaction pooler"))
    return seen


async def _spool(context: CheckContext) -> Seen:
    settings = context.settings
    obstacle = disk_obstacle(settings)
    return [] if obstacle is None else [obstacle]


def _database_urls(settings: Settings) -> dict[str, str]:
    """The address to listen at comes last."""
    urls = {"DATABASE_URL": settings.database_url, "DATABASE_LISTEN_URL": settings.database_listen_url}
    return {name: url.get_secret_value() for name, url in urls.items() if url is not None}


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname
    return host in LOOPBACK or host == "0.0.0.0"


def _is_remote(url: str) -> bool:
    """Whether a network lies between: a name or number in the host's place that is not this machine's."""
    host = urlsplit(url.replace(",", "/", 1)).hostname  # of several the first
    return host is not None and host not in LOOPBACK


def _is_pooled(url: str) -> bool:
    """Of several hosts any one."""
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
    return any(port.isdecimal() and int(port) in _POOLER_PORTS for port in ports)


SETTINGS = Group("settings", _open, (_environment, _addresses, _transport, _times, _account, _poolers, _spool))
