"""The journal against what the providers themselves recorded: every payment known, none booked that was not made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from app.ai_clients.base import RecordedCall
from app.db.audit import ledger
from app.db.audit.ledger import JournalRow
from app.db.pool import Database
from app.domain.audit import Area, Difference, Findings, Invariant
from app.domain.statuses import CallState

_CLOCK_SKEW = timedelta(seconds=60)  # between the provider's clock and the database's


def _ledger(name: str, rule: str, remedy: str) -> Invariant:
    return Invariant(name, Area.LEDGER, rule, remedy)


PAID_IS_JOURNALLED = _ledger(
    "paid_is_journalled",
    "every call that the provider took money for is in the journal, one row each",
    "money was spent that no job knows: another program uses the key, or a call was paid twice",
)
JOURNAL_IS_PAID = _ledger(
    "journal_is_paid",
    "every call that the journal says succeeded is in the provider's record",
    "a user was given a result, or a cost, that the provider does not know: look at the call",
)
COST_IS_CHARGED = _ledger(
    "cost_is_charged",
    "the booked cost is what the provider charged",
    "compare prices with the provider's; book the difference",
)
LEDGER_INVARIANTS = (PAID_IS_JOURNALLED, JOURNAL_IS_PAID, COST_IS_CHARGED)


class ProviderRecord(Protocol):
    """A provider's own record of what it accepted."""

    async def recorded_calls(self, *, since: datetime) -> Sequence[RecordedCall]:
        """Raises ProviderError, and then nothing is known."""
        ...


async def audit_ledger(
    database: Database, provider: str, record: ProviderRecord, *, since: datetime, now: datetime
) -> Findings:
    """The provider's calls from ``since`` on. Raises ProviderError when its record can not be read."""
    # the record first: what it holds was journalled before it was sent
    recorded = list(await record.recorded_calls(since=since))
    journalled = await ledger.journal(database, provider, since=since - _CLOCK_SKEW)
    findings = Findings(checks=list(LEDGER_INVARIANTS), rows=len(recorded) + len(journalled))
    findings.differences = compare(provider, recorded, journalled, since=since, now=now)
    return findings


def compare(
    provider: str, recorded: Iterable[RecordedCall], journalled: Sequence[JournalRow], *, since: datetime, now: datetime
) -> list[Difference]:
    """What the two records do not agree about. Calls of the last minute count only as partners."""
    by_reference = {name: row for row in journalled for name in (row.provider_task_id, row.provider_request_id) if name}
    # sent, and the answer was lost or never asked for its id: any of these may be a recorded call of its time
    nameless = [
        row for row in journalled if not (row.provider_task_id or row.provider_request_id) and _may_be_paid(row)
    ]
    found: list[Difference] = []
    partners: set[str] = set()
    strangers: list[RecordedCall] = []
    for call in sorted(recorded, key=lambda call: call.accepted_at):
        row = by_reference.get(call.reference)
        if row is None:
            strangers.append(call)
        else:
            partners.add(str(row.id))
            found += _cost(provider, row, call)
    # by their time only, so nothing is said about prices: of two such calls each may have cost what the other did
    pairs = _paired(nameless, strangers)
    partners |= {str(row.id) for row in pairs.values()}
    found += [
        _unknown(provider, call)
        for index, call in enumerate(strangers)
        if index not in pairs and call.charged_micros != 0
    ]
    found += [
        _unpaid(provider, row)
        for row in journalled
        if since <= row.created_at < now - _CLOCK_SKEW and _succeeded(row) and str(row.id) not in partners
    ]
    return found


def _may_be_paid(row: JournalRow) -> bool:
    return row.state is not CallState.REFUSED


def _succeeded(row: JournalRow) -> bool:
    """Only what is over: not every provider lists what still runs."""
    return row.state is CallState.SETTLED and row.error_code is None


def _fits(row: JournalRow, call: RecordedCall) -> bool:
    return row.created_at - _CLOCK_SKEW <= call.accepted_at <= row.deadline + _CLOCK_SKEW


def _paired(rows: Sequence[JournalRow], calls: Sequence[RecordedCall]) -> dict[int, JournalRow]:
    """As many of the calls as can be, by index, with a row of their time each. Rows that succeeded come first: of the
    others some were never accepted."""
    pairs: dict[int, JournalRow] = {}

    def place(row: JournalRow, tried: set[int]) -> bool:
        fitting = [index for index, call in enumerate(calls) if _fits(row, call)]
        for index in sorted(fitting, key=pairs.__contains__):  # one that is free, or one whose row finds another
            if index not in tried:
                tried.add(index)
                if index not in pairs or place(pairs[index], tried):
                    pairs[index] = row
                    return True
        return False

    for row in sorted(rows, key=lambda row: not _succeeded(row)):
        place(row, set())
    return pairs


def _unknown(provider: str, call: RecordedCall) -> Difference:
    ids = {"provider": provider, "reference": call.reference}
    return Difference(PAID_IS_JOURNALLED, ids, f"{call.kind} accepted {call.accepted_at:%Y-%m-%d %H:%M:%S} UTC")


def _unpaid(provider: str, row: JournalRow) -> Difference:
    ids = {"provider": provider, "call": str(row.id), "job": str(row.job_id)}
    reference = row.provider_task_id or row.provider_request_id or "no id"
    return Difference(JOURNAL_IS_PAID, ids, f"{row.kind} is {row.state} ({reference}); the provider has no such call")


def _cost(provider: str, row: JournalRow, call: RecordedCall) -> list[Difference]:
    settled = row.state is CallState.SETTLED and not row.cost_is_estimate
    if not settled or call.charged_micros is None or call.charged_micros == row.cost_micros:
        return []
    ids = {"provider": provider, "call": str(row.id), "reference": call.reference}
    return [Difference(COST_IS_CHARGED, ids, f"booked {row.cost_micros} micros, charged {call.charged_micros}")]
