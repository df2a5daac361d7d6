"""``makeit3d jobs``: what failed, why, what it cost, and how to run it again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.container import OperatorContainer
from app.db import jobs
from app.db.jobs import FailedRequest, JobRecord
from app.db.pool import UNREACHABLE
from app.errors import AppError, ErrorCode
from app.registry import Registry
from app.services.retries import NotRetried
from app.tasks.bells import celery_bells

T = TypeVar("T")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EVENTS = 30


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed requests are meant."""

    since: str | None = None
    code: str | None = None
    user: str | None = None
    limit: int = 50


async def list_failed(console: Console, registry: Registry, choice: Choice, *, as_json: bool) -> None:
    """Print what failed and was not retried, the newest first. Raises AppError."""
    found = await _with_gateway(registry, lambda gateway: _failed(gateway, choice))
    if as_json:
        console.out(json.dumps([_plain(asdict(item)) for item in found]), highlight=False)
        return
    if not found:
        console.print("Nothing failed that was not retried.")
        return
    for item in found:
        _print_failed(console, item)
    codes = Counter(item.error_code for item in found)
    console.print(" · ".join(f"{code} {count}" for code, count in codes.most_common()), highlight=False)
    if len(found) == choice.limit:
        console.print(f"The newest {choice.limit}; --limit shows more.")


async def retry_failed(
    console: Console, registry: Registry, ids: Sequence[str], choice: Choice, *, everything: bool, may_pay_again: bool
) -> bool:
    """Retry the named ones, or all that match; True when none was left out. Raises AppError."""
    if bool(ids) == (everything or choice.code is not None):
        detail = "Name jobs, requests or tasks, or choose with --code or --all."
        raise AppError(ErrorCode.VALIDATION_ERROR, detail)

    async def retry(gateway: OperatorContainer) -> list[tuple[str, str, str]]:
        chosen = list(ids) or [str(item.job_id) for item in await _failed(gateway, choice)]
        return [await _retry_one(gateway, id_, may_pay_again=may_pay_again) for id_ in chosen]

    done = await _with_gateway(registry, retry)
    for asked, task_id, outcome in done:
        task = f", task {task_id}" if task_id not in ("", asked) else ""
        console.print(f"{escape(asked)}: {outcome}{task}", highlight=False, soft_wrap=True)
    if not done:
        console.print("Nothing failed that was not retried.")
    return all(outcome.startswith("[green]") for _, _, outcome in done)


async def show(console: Console, registry: Registry, id_: str, *, as_json: bool) -> None:
    """Print all that is known of a job, or of the jobs of a task's newest request. Raises AppError."""

    async def read(gateway: OperatorContainer) -> list[JobRecord]:
        request_id = await jobs.request_of(gateway.database, id_)
        if request_id is None:
            raise AppError(ErrorCode.NOT_FOUND, f"No job, request or task {id_}.")
        all_ids = await jobs.jobs_of(gateway.database, request_id)
        chosen = [job_id for job_id in all_ids if str(job_id) == id_] or all_ids
        records = [await jobs.record(gateway.database, job_id, events=_EVENTS) for job_id in chosen]
        return [record for record in records if record is not None]

    records = await _with_gateway(registry, read)
    if as_json:
        console.out(json.dumps([_plain(asdict(record)) for record in records]), highlight=False)
        return
    for record in records:
        _print_record(console, record)


async def _with_gateway(registry: Registry, work: Callable[[OperatorContainer], Awaitable[T]]) -> T:
    settings = registry.providers.settings.load()
    try:
        gateway = await OperatorContainer.open(settings, celery_bells(settings), registry)
    except (*UNREACHABLE, asyncpg.PostgresError) as error:
        detail = f"The database can not be opened ({type(error).__name__}): check DATABASE_URL and the server."
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, detail) from None
    try:
        return await work(gateway)
    finally:
        await gateway.aclose()


async def _failed(gateway: OperatorContainer, choice: Choice) -> list[FailedRequest]:
    return await jobs.failed(
        gateway.database,
        since_seconds=None if choice.since is None else _seconds(choice.since),
        code=choice.code,
        user_id=None if choice.user is None else _uuid(choice.user),
        limit=choice.limit,
    )


async def _retry_one(gateway: OperatorContainer, id_: str, *, may_pay_again: bool) -> tuple[str, str, str]:
    try:
        failed = await gateway.retries.find(id_)
    except NotRetried as reason:
        return id_, "", f"[yellow]left out:[/] {reason}"
    try:
        request_id = await gateway.retries.retry(failed, may_pay_again=may_pay_again)
    except NotRetried as reason:
        return id_, failed.task_id, f"[yellow]left out:[/] {reason}"
    return id_, failed.task_id, f"[green]queued[/] as request {request_id}"


# --- printing ---------------------------------------------------------------------------------------------------


def _print_failed(console: Console, item: FailedRequest) -> None:
    """In lines, not in columns: two ids side by side fit no terminal of 80."""
    crashes = f" ({item.crashes} crashed)" if item.crashes else ""
    about = (
        item.type,
        f"tries {item.failures + item.crashes}{crashes}",
        f"cost {_money(item.cost_micros)}",
        f"a retry pays {_price_of_retry(item)}",
    )
    for line in (
        f"{item.job_id}  [red]{item.error_code}[/]  {_ago(item.finished_at)} ago",
        f"  task {item.task_id}",
        f"  {' · '.join(about)}",
        *([] if item.kept is None else [f"  paid result kept on {item.kept.host} until {_cell('', item.kept.until)}"]),
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _print_record(console: Console, record: JobRecord) -> None:
    job = record.job
    colour = {"completed": "green", "failed": "red", "canceled": "yellow"}.get(job["status"], "cyan")
    console.print(
        f"\n[bold]{job['operation']}[/], step {job['step']} ({job['type']}): [bold {colour}]{job['status']}[/]"
    )
    console.print(_facts(job, _JOB_FACTS))
    # ids and keys have lines of their own: in a narrow terminal a column would break them
    for title, rows, names in (("paid calls", record.calls, _CALL_FACTS), ("files", record.files, _FILE_FACTS)):
        for number, row in enumerate(rows):
            console.print("" if number else f"[italic]{title}[/]")
            console.print(_facts(row, names))
    sections: tuple[tuple[str, Sequence[Mapping[str, Any]], tuple[str, ...]], ...] = (
        ("rows", record.assets, ("kind", "number", "status", "error_code", "id")),
        ("what clients were told", record.events, ("created_at", "status", "progress", "waiting_for", "error_code")),
    )
    for title, rows, columns in sections:
        if rows:
            table = _table(*(_heading(column) for column in columns), title=title)
            for row in rows:
                table.add_row(*(_cell(column, row[column]) for column in columns))
            console.print(table)


_JOB_FACTS = (
    *("id", "task_id", "request_id", "trace_id", "user_id", "retry_of", "error_code", "error_message"),
    *("end_not_written", "waiting_for", "waits_for_tasks", "run_after", "expires_at", "worker", "worker_seen_at"),
    *("pool", "lane", "priority", "attempt", "failures", "crashes", "deferrals", "chunk", "progress", "items"),
    *("cost_micros", "created_at", "started_at", "deadline", "finished_at"),
    *("kept_host", "kept_until"),
)
_CALL_FACTS = (
    *("created_at", "kind", "state", "error_code", "http_status", "cost_micros", "cost_is_estimate"),
    *("provider_task_id", "provider_request_id", "attempt"),
)
_FILE_FACTS = ("created_at", "key", "state", "size", "content_type", "attempt")


def _facts(row: Mapping[str, Any], names: Sequence[str]) -> Table:
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name in names:
        if row[name] is not None:
            facts.add_row(f"[dim]{_heading(name)}[/]", _cell(name, row[name]))
    return facts


def _heading(name: str) -> str:
    return name.removesuffix("_micros").replace("_", " ")


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "created at")
    return table


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name.endswith("_micros") and isinstance(value, int):
        return _money(value)
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return str(value)


def _price_of_retry(item: FailedRequest) -> str:
    if item.paid_again_micros:
        return f"[yellow]{_money(item.paid_again_micros)} again[/]"
    return "[green]nothing[/]" if item.keeps_paid_work else "the price"


def _money(micros: int) -> str:
    return f"${micros / 1e6:.4f}".rstrip("0").rstrip(".") if micros else "-"


def _ago(moment: datetime) -> str:
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _seconds(text: str) -> float:
    """``90s``, ``15m``, ``24h`` or ``7d``. Raises AppError."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise AppError(ErrorCode.VALIDATION_ERROR, "--since is a number with s, m, h or d: 24h")
    return float(int(match[1]) * _UNITS[match[2]])


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise AppError(ErrorCode.VALIDATION_ERROR, "--user is a UUID") from None


def _plain(value: object) -> object:
    """As JSON has it."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            return value
