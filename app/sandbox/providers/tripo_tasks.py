"""Tasks and money of the Tripo stand-in."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from app.sandbox.providers.concurrency import Concurrency
from app.sandbox.providers.ledger import Call, Ledger
from app.sandbox.providers.store import Store

START_BALANCE = Decimal("10000.00")
_OPEN = "status in ('queued', 'running')"


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    account: str
    kind: str
    pool: str
    body: dict[str, Any]
    fetched: dict[str, str]
    """Tokens of what was fetched from URLs in the body."""
    status: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    work_seconds: float
    price: Decimal
    consumed: Decimal
    error_code: int | None
    error_message: str | None
    output: dict[str, str]
    """File names by the keys of ``output``."""
    fault: str | None
    fault_seconds: float


@dataclass(frozen=True, slots=True)
class NewTask:
    call: Call
    pool: str
    body: dict[str, Any]
    fetched: dict[str, str]
    price: Decimal
    work_seconds: float
    fault: str | None
    fault_seconds: float


@dataclass(frozen=True, slots=True)
class Money:
    """Credits. ``available`` is what can be spent; ``frozen`` belongs to tasks that run."""

    available: Decimal
    frozen: Decimal


class PoolFull(Exception):
    pass


class TooPoor(Exception):
    pass


class Tasks:
    def __init__(self, store: Store, concurrency: Concurrency) -> None:
        self._store = store
        self._concurrency = concurrency

    def accept(self, new: NewTask, *, slots: int) -> Task:
        """Queue a task, freeze its price and write the ledger, in one transaction. Raises PoolFull, TooPoor."""
        task_id = str(uuid4())
        account = new.call.account.id
        with self._store.transaction() as db:
            count = f"select count(*) from tasks where account = ? and pool = ? and {_OPEN}"  # noqa: S608 - constant
            under_way = db.execute(count, (account, new.pool)).fetchone()[0]
            if under_way >= slots:
                raise PoolFull
            if _money(db, account).available < new.price:
                raise TooPoor
            db.execute(
                "insert into tasks (id, account, kind, pool, body, fetched, status, created_at, work_seconds, price,"
                " fault, fault_seconds) values (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)",
                (
                    task_id,
                    account,
                    new.call.kind,
                    new.pool,
                    json.dumps(new.body),
                    json.dumps(new.fetched),
                    time.time(),
                    new.work_seconds,
                    str(new.price),
                    new.fault,
                    new.fault_seconds,
                ),
            )
            Ledger.accept(db, new.call, reference=task_id, charged=Decimal(0), state="frozen")
            self._concurrency.saw(new.pool, under_way + 1)
            return _task(db.execute("select * from tasks where id = ?", (task_id,)).fetchone())

    def start(self, task_id: str) -> None:
        with self._store.transaction() as db:
            db.execute(
                "update tasks set status = 'running', started_at = ? where id = ? and status = 'queued'",
                (time.time(), task_id),
            )

    def finish(
        self,
        task: Task,
        status: str,
        *,
        output: dict[str, str] | None = None,
        error_code: int | None = None,
        error_message: str | None = None,
    ) -> bool:
        """End a task: credits are taken on success and given back otherwise. False when it had ended before."""
        consumed = task.price if status == "success" else Decimal(0)
        with self._store.transaction() as db:
            changed = db.execute(
                "update tasks set status = ?, finished_at = ?, consumed = ?, output = ?, error_code = ?,"  # noqa: S608 - constant
                f" error_message = ? where id = ? and {_OPEN}",
                (status, time.time(), str(consumed), json.dumps(output or {}), error_code, error_message, task.id),
            ).rowcount
            if not changed:
                return False
            balance = _balance(db, task.account) - consumed
            db.execute("update accounts set balance = ? where id = ?", (str(balance), task.account))
            state = "charged" if status == "success" else "released"
            Ledger.settle(db, task.id, charged=consumed, state=state)
        return True

    def one(self, task_id: str, account: str | None = None) -> Task | None:
        """A task, of the account where one is given."""
        row = self._store.row("select * from tasks where id = ? and account = coalesce(?, account)", (task_id, account))
        return None if row is None else _task(row)

    def several(self, ids: Sequence[str], account: str) -> dict[str, Task]:
        marks = ", ".join("?" * len(ids))
        rows = self._store.rows(f"select * from tasks where account = ? and id in ({marks})", (account, *ids))  # noqa: S608 - marks only
        return {row["id"]: _task(row) for row in rows}

    def newest(self, account: str, *, limit: int, offset: int, before: float, running: bool) -> list[Task]:
        """Tasks created before a time, newest first; with or without those that have not ended."""
        rows = self._store.rows(
            "select * from tasks where account = ? and created_at <= ? and (? or finished_at is not null)"
            " order by created_at desc, id limit ? offset ?",
            (account, before, running, limit, offset),
        )
        return [_task(row) for row in rows]

    def unfinished(self) -> list[Task]:
        return [_task(row) for row in self._store.rows(f"select * from tasks where {_OPEN} order by created_at")]  # noqa: S608 - constant

    def money(self, account: str) -> Money:
        with self._store.transaction() as db:
            return _money(db, account)

    def set_balance(self, account: str, balance: Decimal) -> None:
        """Credits of an account, frozen ones included."""
        with self._store.transaction() as db:
            _balance(db, account)
            db.execute("update accounts set balance = ? where id = ?", (str(balance), account))


def _balance(db: sqlite3.Connection, account: str) -> Decimal:
    db.execute("insert or ignore into accounts values (?, ?)", (account, str(START_BALANCE)))
    return Decimal(db.execute("select balance from accounts where id = ?", (account,)).fetchone()[0])


def _money(db: sqlite3.Connection, account: str) -> Money:
    rows = db.execute(f"select price from tasks indexed by tasks_open where account = ? and {_OPEN}", (account,))  # noqa: S608 - constant
    frozen = sum((Decimal(row[0]) for row in rows), Decimal(0))
    return Money(_balance(db, account) - frozen, frozen)


def _task(row: sqlite3.Row) -> Task:
    values = dict(row)
    for name in ("body", "fetched", "output"):
        values[name] = json.loads(values[name])
    for name in ("price", "consumed"):
        values[name] = Decimal(values[name])
    return Task(**values)
