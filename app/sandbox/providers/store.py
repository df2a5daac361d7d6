"""What outlives a crash of the sandbox, in one SQLite file; the bytes of uploads and results lie beside it.

The file is used by the event loop's thread alone. WAL with ``synchronous = normal`` survives SIGKILL of the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SCHEMA = """
create table if not exists ledger (
  id integer primary key, provider text not null, kind text not null, account text not null, key_tail text not null,
  reference text, request_hash text not null, accepted_at real not null, accepted integer not null, refusal text,
  charged text not null, unit text not null, state text not null, reply text not null default 'pending',
  delivered integer not null default 0);
create index if not exists ledger_reference on ledger (reference);
create index if not exists ledger_refused on ledger (id) where not accepted;
create table if not exists tasks (
  id text primary key, account text not null, kind text not null, pool text not null, body text not null,
  fetched text not null, status text not null, created_at real not null, started_at real, finished_at real,
  work_seconds real not null, price text not null, consumed text not null default '0', error_code integer,
  error_message text, output text not null default '{}', fault text, fault_seconds real not null default 0);
create index if not exists tasks_account on tasks (account, created_at);
create index if not exists tasks_open on tasks (account, pool, price) where status in ('queued', 'running');
create table if not exists files (
  token text primary key, account text not null, content_type text not null, created_at real not null,
  state text not null);
create table if not exists accounts (id text primary key, balance text not null);
create table if not exists webhooks (account text primary key, url text not null, secret text not null);
"""


class Store:
    """The database. ``open`` before use; every change happens inside ``transaction``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: sqlite3.Connection | None = None

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        db.row_factory = sqlite3.Row
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.executescript(_SCHEMA)
        self._open = db

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open is None:
            raise RuntimeError("the sandbox's provider store is not open")
        return self._open

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        db = self._db
        db.execute("begin immediate")
        try:
            yield db
        except BaseException:
            db.execute("rollback")
            raise
        db.execute("commit")

    def rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        return self._db.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[object] = ()) -> sqlite3.Row | None:
        return self._db.execute(query, values).fetchone()
