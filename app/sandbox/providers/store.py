"""What outlives a crash of the sandbox: tasks, uploaded files and the ledger, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

_SCHEMA = """
create table if not exists ledger (
  id integer primary key, provider text not null, kind text not null, account text not null, reference text,
  request_hash text not null, accepted_at real not null, charged text not null default '0', unit text not null,
  state text not null, delivered integer not null default 0);
create table if not exists tasks (
  id text primary key, account text not null, kind text not null, pool text not null, input text not null,
  status text not null, created_at real not null, finished_at real, work_seconds real not null,
  price text not null, consumed text not null default '0', error_code integer, error_message text,
  output text not null default '{}', fault text);
create table if not exists files (token text primary key, account text not null, content_type text not null,
  created_at real not null, state text not null);
create table if not exists accounts (id text primary key, balance text not null);
"""

START_BALANCE = Decimal("10000.00")


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    account: str
    kind: str
    pool: str
    input: dict[str, Any]
    status: str
    created_at: float
    finished_at: float | None
    work_seconds: float
    price: Decimal
    consumed: Decimal
    error_code: int | None
    error_message: str | None
    output: dict[str, str]  # name of the URL key → file name
    fault: str | None


class Store:
    """Thread-safe; every method is one transaction. ``account`` is a short hash of the API key, never the key."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.files = home / "files"
        self.files.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(home / "providers.sqlite3", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode = wal")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    # --- ledger ---------------------------------------------------------------------------------------------

    def accept_images(self, account: str, kind: str, request_hash: str, charged: int) -> int:
        """A paid synchronous call was taken; charged in USD micros. Its number in the ledger."""
        with self._transaction() as db:
            return _ledger(db, "openai", kind, account, None, request_hash, str(charged), "usd_micros", "charged")

    def delivered(self, number: int) -> None:
        with self._transaction() as db:
            db.execute("update ledger set delivered = delivered + 1 where id = ?", (number,))

    def ledger(self) -> list[dict[str, Any]]:
        with self._transaction() as db:
            return [dict(row) for row in db.execute("select * from ledger order by id")]

    # --- tasks ----------------------------------------------------------------------------------------------

    def open_in_pool(self, account: str, pool: str) -> int:
        with self._transaction() as db:
            return db.execute(
                "select count(*) from tasks where account = ? and pool = ? and status in ('queued', 'running')",
                (account, pool),
            ).fetchone()[0]

    def accept_task(
        self,
        account: str,
        kind: str,
        pool: str,
        body: dict[str, Any],
        request_hash: str,
        *,
        price: Decimal,
        work_seconds: float,
        fault: str | None,
    ) -> str | None:
        """Freeze the price and queue the task; its id, or None when the balance is too low."""
        task_id = str(uuid4())
        with self._transaction() as db:
            balance, frozen = _money(db, account)
            if balance - frozen < price:
                return None
            db.execute(
                "insert into tasks (id, account, kind, pool, input, status, created_at, work_seconds, price, fault)"
                " values (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?)",
                (task_id, account, kind, pool, json.dumps(body), time.time(), work_seconds, str(price), fault),
            )
            _ledger(db, "tripo", kind, account, task_id, request_hash, "0", "credits", "frozen")
        return task_id

    def task(self, task_id: str, account: str) -> Task | None:
        with self._transaction() as db:
            row = db.execute("select * from tasks where id = ? and account = ?", (task_id, account)).fetchone()
        return None if row is None else _task(row)

    def unfinished(self) -> list[Task]:
        with self._transaction() as db:
            rows = db.execute("select * from tasks where status in ('queued', 'running')").fetchall()
        return [_task(row) for row in rows]

    def tasks_of(self, account: str, *, limit: int, offset: int) -> list[Task]:
        with self._transaction() as db:
            rows = db.execute(
                "select * from tasks where account = ? order by created_at desc limit ? offset ?",
                (account, limit, offset),
            ).fetchall()
        return [_task(row) for row in rows]

    def finish(
        self,
        task: Task,
        status: str,
        *,
        output: dict[str, str] | None = None,
        error_code: int | None = None,
        error_message: str | None = None,
    ) -> None:
        """End a task: credits are taken on success and given back otherwise. Ends once."""
        consumed = task.price if status == "success" else Decimal(0)
        with self._transaction() as db:
            changed = db.execute(
                "update tasks set status = ?, finished_at = ?, consumed = ?, output = ?, error_code = ?,"
                " error_message = ? where id = ? and status in ('queued', 'running')",
                (
                    status,
                    time.time(),
                    str(consumed),
                    json.dumps(output or {}),
                    error_code,
                    error_message,
                    task.id,
                ),
            ).rowcount
            if not changed:
                return
            balance, _ = _money(db, task.account)
            db.execute("update accounts set balance = ? where id = ?", (str(balance - consumed), task.account))
            db.execute(
                "update ledger set charged = ?, state = ? where reference = ?",
                (str(consumed), "charged" if consumed else "released", task.id),
            )

    def task_delivered(self, task_id: str) -> None:
        with self._transaction() as db:
            db.execute("update ledger set delivered = delivered + 1 where reference = ?", (task_id,))

    # --- money and files ------------------------------------------------------------------------------------

    def money(self, account: str) -> tuple[Decimal, Decimal]:
        """Balance and what is frozen of it, in credits."""
        with self._transaction() as db:
            return _money(db, account)

    def set_balance(self, account: str, balance: Decimal) -> None:
        with self._transaction() as db:
            _money(db, account)
            db.execute("update accounts set balance = ? where id = ?", (str(balance), account))

    def add_file(self, account: str, content_type: str, *, state: str = "stored") -> str:
        token = f"file_{uuid4()}"
        with self._transaction() as db:
            db.execute("insert into files values (?, ?, ?, ?, ?)", (token, account, content_type, time.time(), state))
        return token

    def file(self, token: str, account: str | None = None) -> tuple[Path, str] | None:
        """Path and content type of an uploaded file of the account."""
        with self._transaction() as db:
            row = db.execute("select * from files where token = ?", (token,)).fetchone()
        if row is None or (account is not None and row["account"] != account):
            return None
        return self.files / token, row["content_type"]


def _money(db: sqlite3.Connection, account: str) -> tuple[Decimal, Decimal]:
    db.execute("insert or ignore into accounts values (?, ?)", (account, str(START_BALANCE)))
    balance = Decimal(db.execute("select balance from accounts where id = ?", (account,)).fetchone()[0])
    rows = db.execute("select price from tasks where account = ? and status in ('queued', 'running')", (account,))
    return balance, sum((Decimal(row[0]) for row in rows), Decimal(0))


def _ledger(db: sqlite3.Connection, *values: str | None) -> int:
    provider, kind, account, reference, request_hash, charged, unit, state = values
    cursor = db.execute(
        "insert into ledger (provider, kind, account, reference, request_hash, accepted_at, charged, unit, state)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (provider, kind, account, reference, request_hash, time.time(), charged, unit, state),
    )
    return int(cursor.lastrowid or 0)


def _task(row: sqlite3.Row) -> Task:
    values = dict(row)
    values["input"] = json.loads(values["input"])
    values["output"] = json.loads(values["output"])
    values["price"] = Decimal(values["price"])
    values["consumed"] = Decimal(values["consumed"])
    return Task(**values)
