"""``makeit3d doctor``: checks what the gateway needs, and says what to fix."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import httpx
import redis.asyncio as redis
from rich.console import Console

from app.ai_clients.errors import ProviderError
from app.ai_clients.registry import build_providers
from app.config import Settings
from app.db.migrate import pending
from app.db.pool import UNREACHABLE, AssetTables, Database
from app.domain.broker_url import redis_py_url
from app.errors import AppError
from app.storage.base import ObjectNotFound, StorageError
from app.storage.supabase_storage import SupabaseStorage

_PATIENCE = 15.0  # seconds per check


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is good, and what to do when it is not."""

    subject: str
    good: bool
    message: str


Check = Callable[[Settings], Awaitable[list[Finding]]]


async def run_doctor(console: Console) -> bool:
    """Run every check and print the findings; True when all are good."""
    try:
        settings = Settings.load()
    except AppError as error:
        _print(console, Finding("settings", good=False, message=error.detail or error.error.title))
        return False
    where = "sandbox" if settings.is_sandbox else "production"
    _print(console, Finding("settings", good=True, message=f"complete ({where})"))
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        findings.extend(await _patiently(name, check, settings))
    for finding in findings:
        _print(console, finding)
    return all(finding.good for finding in findings)


async def _patiently(name: str, check: Check, settings: Settings) -> list[Finding]:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await check(settings)
    except TimeoutError:
        return [Finding(name, good=False, message=f"no answer within {_PATIENCE:.0f} s: check address and firewall")]


async def check_database(settings: Settings) -> list[Finding]:
    dsn = settings.database_url.get_secret_value()
    try:
        missing = await pending(dsn)
        database = await Database.open(settings, application_name="makeit3d doctor")
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        return [Finding("database", good=False, message=f"{type(error).__name__}: check DATABASE_URL and the server")]
    try:
        version = await database.fetchval("show server_version")
        findings = [Finding("database", good=True, message=f"Postgres {version}")]
        if missing:
            findings.append(
                Finding("migrations", good=False, message=f"missing {', '.join(missing)}: run `makeit3d migrate`")
            )
            return findings
        findings.append(Finding("migrations", good=True, message="up to date"))
        findings.extend(await _check_tables(database))
        return findings
    finally:
        await database.close()


async def _check_tables(database: Database) -> list[Finding]:
    defaults = AssetTables("input_assets", "concept_images", "models")
    findings: list[Finding] = []
    for wanted, reference in zip(
        (database.tables.inputs, database.tables.concepts, database.tables.models),
        (defaults.inputs, defaults.concepts, defaults.models),
        strict=True,
    ):
        absent = await database.fetch(
            "select column_name from information_schema.columns where table_schema = 'public' and table_name = $1"
            " except select column_name from information_schema.columns"
            " where table_schema = 'public' and table_name = $2",
            reference,
            wanted,
        )
        names = ", ".join(sorted(row["column_name"] for row in absent))
        message = "has every column" if not names else f"lacks {names}: name a table with these columns, or add them"
        findings.append(Finding(f"table {wanted}", good=not names, message=message))
    return findings


async def check_broker(settings: Settings) -> list[Finding]:
    client = redis.from_url(redis_py_url(settings.redis_url.get_secret_value()), socket_connect_timeout=3)
    try:
        await client.execute_command("PING")
        policy = (await client.config_get("maxmemory-policy")).get("maxmemory-policy", "noeviction")
    except (redis.RedisError, OSError, ValueError) as error:
        return [Finding("broker", good=False, message=f"{type(error).__name__}: check REDIS_URL and the server")]
    finally:
        await client.aclose()
    if policy != "noeviction":
        message = f"maxmemory-policy is {policy}: queued bells can vanish; set it to noeviction"
        return [Finding("broker", good=False, message=message)]
    return [Finding("broker", good=True, message="answers")]


async def check_workers(settings: Settings) -> list[Finding]:
    try:
        database = await Database.open(settings, application_name="makeit3d doctor")
    except (*UNREACHABLE, asyncpg.PostgresError):
        return []  # the database check says it
    try:
        rows = await database.fetch(
            "select l.name, count(w.id) as alive from unnest(array['priority', 'normal']) as l(name)"
            " left join workers w on l.name = any(w.lanes) and w.seen_at > now() - make_interval(secs => $1)"
            " group by l.name order by l.name",
            settings.worker_ttl_seconds,
        )
    except asyncpg.UndefinedTableError:
        return []  # the migrations check says it
    finally:
        await database.close()
    return [
        Finding(
            f"workers for {row['name']}",
            good=row["alive"] > 0,
            message=f"{row['alive']} alive" if row["alive"] else f"none: run `makeit3d worker --lane {row['name']}`",
        )
        for row in rows
    ]


async def check_storage(settings: Settings) -> list[Finding]:
    storage = await SupabaseStorage.open(settings)
    findings: list[Finding] = []
    try:
        for bucket in (settings.generated_assets_bucket_name, *settings.input_bucket_names):
            try:
                public = await storage.is_public(bucket)
                findings.append(Finding(f"bucket {bucket}", good=True, message="public" if public else "private"))
            except ObjectNotFound:
                message = "does not exist: create it, or name another in the settings"
                findings.append(Finding(f"bucket {bucket}", good=False, message=message))
            except StorageError as error:
                message = f"{type(error).__name__}: check SUPABASE_URL and SUPABASE_SERVICE_KEY"
                findings.append(Finding(f"bucket {bucket}", good=False, message=message))
    finally:
        await storage.aclose()
    return findings


async def check_auth(settings: Settings) -> list[Finding]:
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(settings.jwks_url)
            answer.raise_for_status()
            keys = len(answer.json()["keys"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return [Finding("auth", good=False, message=f"{settings.jwks_url}: {type(error).__name__}; check SUPABASE_URL")]
    if not keys and settings.supabase_jwt_secret is None:
        message = "the project signs with a shared secret: set SUPABASE_JWT_SECRET, or rotate to signing keys"
        return [Finding("auth", good=False, message=message)]
    return [Finding("auth", good=True, message=f"{keys} signing keys")]


async def check_providers(settings: Settings) -> list[Finding]:
    providers = build_providers(settings)
    findings: list[Finding] = []
    try:
        for provider in providers.all_models.values():
            try:
                balance = await provider.balance()
                message = f"{balance.available} {balance.unit} left, {balance.frozen} frozen"
                findings.append(Finding(provider.name, good=balance.available > 0, message=message))
            except ProviderError as error:
                findings.append(Finding(provider.name, good=False, message=f"{error.code.code}: {error.detail}"))
    finally:
        await providers.aclose()
    headers = {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(timeout=10, headers=headers) as client:
            answer = await client.get(f"{settings.openai_base_url}/models/{settings.openai_image_model}")
    except httpx.HTTPError as error:
        return [*findings, Finding("openai", good=False, message=f"{type(error).__name__}: check OPENAI_BASE_URL")]
    return [*findings, _openai_finding(answer.status_code, settings)]


def _openai_finding(status: int, settings: Settings) -> Finding:
    match status:
        case 200:
            return Finding("openai", good=True, message=f"{settings.openai_image_model} is available")
        case 401 | 403:
            return Finding("openai", good=False, message="the key was rejected: set OPENAI_API_KEY")
        case 404:
            message = f"{settings.openai_image_model} is not available: set OPENAI_IMAGE_MODEL"
            return Finding("openai", good=False, message=message)
        case _:
            return Finding("openai", good=False, message=f"HTTP {status}: try again later")


async def check_shutdown(settings: Settings) -> list[Finding]:
    longest = max(settings.openai_timeout_seconds, settings.tripo_timeout_seconds)
    if settings.shutdown_grace_seconds < longest:
        message = (
            f"BFF_SHUTDOWN_GRACE_SECONDS is shorter than the longest provider timeout ({longest:.0f} s): "
            "a restart can cut a paid call; raise it, and the grace of your process manager"
        )
        return [Finding("shutdown", good=False, message=message)]
    return [Finding("shutdown", good=True, message="outlasts every provider call")]


async def check_time_limits(settings: Settings) -> list[Finding]:
    """A limit that ends a job while its provider may still answer in time wastes what was paid."""
    longest = max(settings.openai_timeout_seconds, settings.tripo_timeout_seconds)
    short = [
        f"BFF_TIME_LIMIT_{name.upper()}_SECONDS" for name, seconds in settings.time_limits.items() if seconds <= longest
    ]
    if short:
        message = f"{', '.join(short)}: not above the longest provider timeout ({longest:.0f} s); raise it"
        return [Finding("time limits", good=False, message=message)]
    return [Finding("time limits", good=True, message="leave every provider its time")]


CHECKS: dict[str, Check] = {
    "database": check_database,
    "broker": check_broker,
    "workers": check_workers,
    "storage": check_storage,
    "auth": check_auth,
    "providers": check_providers,
    "shutdown": check_shutdown,
    "time limits": check_time_limits,
}


def _print(console: Console, finding: Finding) -> None:
    mark = "[green]✓[/]" if finding.good else "[bold red]✗[/]"
    console.print(f"{mark} {finding.subject}: {finding.message}", highlight=False, soft_wrap=True)
