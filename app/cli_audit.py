"""``makeit3d audit``: holds rows, events, files and money against each other, and prints what differs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from app.ai_clients.base import RecordKeeper
from app.ai_clients.errors import ProviderError
from app.ai_clients.sandbox_record import SandboxRecord
from app.config import Settings
from app.db.pool import Database
from app.domain.audit import Findings, Invariant
from app.errors import AppError
from app.registry import Registry
from app.sandbox_settings import SandboxAdminSettings
from app.services.audit import audit_rows
from app.services.audit_files import BucketAudit
from app.services.audit_ledger import ProviderRecord, audit_ledger
from app.storage.base import StorageError
from app.storage.supabase_storage import SupabaseStorage

UNREADABLE = "could not be looked at"  # begins the note of a part that was asked for and failed


@dataclass(frozen=True, slots=True)
class AuditOptions:
    deep: bool = False
    json: bool = False
    days: float = 30.0  # how far back the providers' records are compared
    grace_seconds: float = 15.0  # before the second look at what may pass
    sandbox_ledger: str | None = None


async def run_audit(console: Console, options: AuditOptions, registry: Registry) -> bool:
    """Print the audit; True only when everything could be looked at and nothing differs. Raises AppError."""
    settings = registry.providers.settings.load()
    async with AsyncExitStack() as stack:
        database = await Database.open(settings, registry.asset_kinds, application_name="makeit3d audit")
        stack.push_async_callback(database.close)
        findings, unreadable = await _audit(settings, database, options, stack, registry)
    if options.json:
        console.out(json.dumps(_document(findings, unreadable)), highlight=False)
    else:
        _print(console, findings, unreadable)
    return findings.clean and not unreadable


async def _audit(
    settings: Settings, database: Database, options: AuditOptions, stack: AsyncExitStack, registry: Registry
) -> tuple[Findings, list[str]]:
    unreadable: list[str] = []

    async def grace() -> None:
        await asyncio.sleep(options.grace_seconds)

    findings = Findings()

    async def part(name: str, look: Callable[[], Awaitable[Findings]]) -> None:
        try:
            findings.add(await look())
        except (StorageError, ProviderError, AppError) as error:
            unreadable.append(f"{name} {UNREADABLE}: {error}")

    async def look_at_files() -> Findings:
        storage = await SupabaseStorage.open(settings)
        stack.push_async_callback(storage.aclose)
        return await BucketAudit(database, storage, settings).run(deep=options.deep, again=grace)

    await part("files", look_at_files)
    records, notes = _records(settings, options, stack, registry)
    findings.notes += notes
    since = datetime.now(UTC) - timedelta(days=options.days)
    for provider, record in records.items():
        await part(
            f"the record of {provider}",
            lambda provider=provider, record=record: audit_ledger(
                database, provider, record, since=since, now=datetime.now(UTC)
            ),
        )
    rows = await audit_rows(database, settings, more=registry.audit_checks, again=grace)
    rows.add(findings)
    return rows, unreadable


def _records(
    settings: Settings, options: AuditOptions, stack: AsyncExitStack, registry: Registry
) -> tuple[dict[str, ProviderRecord], list[str]]:
    """Who can be asked what it was paid for, and a note about who can not."""
    sandbox = options.sandbox_ledger
    if sandbox is None and settings.is_sandbox:
        sandbox = settings.supabase_url.removesuffix("/supabase")
    providers = registry.providers.build(settings)
    stack.push_async_callback(providers.aclose)
    names = sorted(providers.names)
    if sandbox is not None:
        key = SandboxAdminSettings().admin_key  # pyright: ignore[reportCallIssue]
        return {name: SandboxRecord(sandbox, key, name) for name in names}, []
    records: dict[str, ProviderRecord] = {
        name: found for name, found in providers.all.items() if isinstance(found, RecordKeeper)
    }
    notes = [
        f"{name} has no listing of single calls: compare the sum of its costs with its own usage page"
        for name in names
        if name not in records
    ]
    return records, notes


def _print(console: Console, findings: Findings, unreadable: list[str]) -> None:
    counts = Counter(difference.invariant.name for difference in findings.differences)
    table = Table("area", "invariant", "what is true", "", box=None, pad_edge=False, header_style="dim")
    for check in _each_once(findings.checks):
        broken = counts[check.name]
        mark = f"[bold red]✗ {broken}[/]" if broken else "[green]✓[/]"
        table.add_row(check.area.value, check.name, check.rule, mark)
    console.print(table)
    for check in _each_once([difference.invariant for difference in findings.differences]):
        console.print(f"\n[bold red]✗ {check.name}[/]: not true that {check.rule}", highlight=False)
        for difference in findings.differences:
            if difference.invariant.name == check.name:
                ids = "  ".join(f"{name} {value}" for name, value in difference.ids.items())
                console.print(f"  {ids}\n    {difference.found}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"  [bold]→[/] {check.remedy}", highlight=False)
    if findings.unshown:
        console.print(f"\n… and {findings.unshown} more of the same kinds", highlight=False)
    for note in findings.notes:
        console.print(f"[dim]note: {note}[/]", highlight=False)
    for problem in unreadable:
        console.print(f"[bold red]✗[/] {problem}", highlight=False)
    console.print(_last_line(findings, unreadable), highlight=False)


def _last_line(findings: Findings, unreadable: list[str]) -> str:
    colour = "bold green" if findings.clean and not unreadable else "bold red"
    checks, differences = len(_each_once(findings.checks)), findings.count
    line = f"[{colour}]audit: {checks} checks, {findings.rows} rows, {differences} differences[/]"
    return line + (f", {len(unreadable)} parts {UNREADABLE}" if unreadable else "")


def _each_once(checks: list[Invariant]) -> list[Invariant]:
    return list({check.name: check for check in checks}.values())


def _document(findings: Findings, unreadable: list[str]) -> dict[str, object]:
    return {
        "checks": [asdict(check) for check in _each_once(findings.checks)],
        "rows": findings.rows,
        "count": findings.count,
        "differences": [
            {"invariant": item.invariant.name, "ids": dict(item.ids), "found": item.found, "do": item.invariant.remedy}
            for item in findings.differences
        ],
        "notes": findings.notes,
        "unreadable": unreadable,
    }
