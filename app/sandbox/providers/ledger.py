"""The ledger of calls that cost money: what was accepted, what it cost, what became of the reply.

A row of an accepted call is written in the transaction that accepts it, so a crash never parts the two.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from app.sandbox.providers.accounts import Account
from app.sandbox.providers.store import Store

Provider = Literal["openai", "tripo"]
_UNITS: dict[Provider, str] = {"openai": "usd_micros", "tripo": "credits"}
_KEPT_REFUSALS = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """A create as it came in."""

    provider: Provider
    kind: str
    account: Account
    request_hash: str
    """SHA-256 of the request, without the borders of a multipart body."""


class Ledger:
    def __init__(self, store: Store) -> None:
        self._store = store

    @staticmethod
    def accept(db: sqlite3.Connection, call: Call, *, reference: str, charged: Decimal, state: str) -> None:
        """Inside the accepting transaction. ``charged`` in USD micros (OpenAI) or credits (Tripo)."""
        _insert(db, call, reference=reference, accepted=True, refusal=None, charged=charged, state=state)

    def accept_alone(self, call: Call, *, reference: str, charged: Decimal) -> None:
        """A call whose acceptance is the ledger's row and nothing else."""
        with self._store.transaction() as db:
            self.accept(db, call, reference=reference, charged=charged, state="charged")

    def refuse(self, call: Call, code: str) -> None:
        """A call that was declined and cost nothing. Only the newest of these are kept."""
        with self._store.transaction() as db:
            _insert(db, call, reference=None, accepted=False, refusal=code, charged=Decimal(0), state="refused")
            db.execute(
                "delete from ledger where not accepted and id <= (select max(id) from ledger) - ?", (_KEPT_REFUSALS,)
            )

    @staticmethod
    def settle(db: sqlite3.Connection, reference: str, *, charged: Decimal, state: str) -> None:
        db.execute("update ledger set charged = ?, state = ? where reference = ?", (str(charged), state, reference))

    def release(self, reference: str) -> None:
        """Take back what a call was charged."""
        with self._store.transaction() as db:
            self.settle(db, reference, charged=Decimal(0), state="released")

    def replied(self, reference: str, outcome: str) -> None:
        """What became of the reply: ``sent``, ``gone`` (the caller had hung up), or the kind of the fault."""
        with self._store.transaction() as db:
            db.execute("update ledger set reply = ? where reference = ?", (outcome, reference))

    def delivered(self, reference: str) -> None:
        """Result bytes went out once more."""
        with self._store.transaction() as db:
            db.execute("update ledger set delivered = delivered + 1 where reference = ?", (reference,))

    def read(self, *, refused: bool, after: int = 0) -> list[dict[str, Any]]:
        """Accepted calls after a number, oldest first; with ``refused`` the declined ones too."""
        rows = self._store.rows("select * from ledger where id > ? and (accepted or ?) order by id", (after, refused))
        return [{**dict(row), "accepted": bool(row["accepted"])} for row in rows]


def _insert(
    db: sqlite3.Connection,
    call: Call,
    *,
    reference: str | None,
    accepted: bool,
    refusal: str | None,
    charged: Decimal,
    state: str,
) -> None:
    db.execute(
        "insert into ledger (provider, kind, account, key_tail, reference, request_hash, accepted_at, accepted,"
        " refusal, charged, unit, state) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            call.provider,
            call.kind,
            call.account.id,
            call.account.key_tail,
            reference,
            call.request_hash,
            time.time(),
            accepted,
            refusal,
            str(charged),
            _UNITS[call.provider],
            state,
        ),
    )
