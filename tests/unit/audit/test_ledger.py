"""The journal against a provider's record: what pairs, and what is a difference."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from app.ai_clients.base import RecordedCall
from app.db.audit.ledger import JournalRow
from app.domain.audit import Difference
from app.domain.statuses import CallState
from app.services.audit_ledger import COST_IS_CHARGED, JOURNAL_IS_PAID, PAID_IS_JOURNALLED, compare

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEGIN = NOW - timedelta(days=1)
THEN = NOW - timedelta(hours=1)


def row(**values: object) -> JournalRow:
    usual = JournalRow(
        id=uuid4(),
        job_id=uuid4(),
        kind="text-to-model",
        state=CallState.SETTLED,
        error_code=None,
        provider_task_id="task-1",
        provider_request_id=None,
        cost_micros=200_000,
        cost_is_estimate=False,
        created_at=THEN,
        deadline=THEN + timedelta(seconds=150),
    )
    return replace(usual, **values)


def call(**values: object) -> RecordedCall:
    usual = RecordedCall("task-1", "text_to_model", THEN + timedelta(seconds=1), 200_000)
    return replace(usual, **values)


def differences(calls: list[RecordedCall], rows: list[JournalRow]) -> list[Difference]:
    return compare("tripo", calls, rows, since=BEGIN, now=NOW)


def names(calls: list[RecordedCall], rows: list[JournalRow]) -> list[str]:
    return [difference.invariant.name for difference in differences(calls, rows)]


def test_what_agrees_is_no_difference() -> None:
    assert names([call()], [row()]) == []
    assert names([call(reference="req-1")], [row(provider_task_id=None, provider_request_id="req-1")]) == []


def test_a_payment_that_no_job_knows() -> None:
    (found,) = differences([call(), call(reference="task-2")], [row()])
    assert found.invariant is PAID_IS_JOURNALLED
    assert found.ids["reference"] == "task-2"


def test_an_undecided_charge_counts_as_a_payment_and_a_free_call_does_not() -> None:
    assert names([call(charged_micros=None)], []) == [PAID_IS_JOURNALLED.name]
    assert names([call(charged_micros=0)], []) == []


def test_an_answer_that_was_lost_is_paired_by_its_time() -> None:
    lost = row(provider_task_id=None, error_code="provider_outcome_unknown", cost_is_estimate=True)
    assert names([call()], [lost]) == []
    assert names([call(accepted_at=THEN + timedelta(minutes=30))], [lost]) == [PAID_IS_JOURNALLED.name]


def test_what_is_paired_by_its_time_alone_says_nothing_about_prices() -> None:
    rows = [row(provider_task_id=None, cost_micros=cost) for cost in (52_715, 52_705)]
    calls = [call(reference=f"task-{cost}", charged_micros=cost) for cost in (52_705, 52_715)]
    assert names(calls, rows) == []


def test_a_call_that_was_perhaps_never_accepted_takes_no_partner_from_one_that_succeeded() -> None:
    perhaps = row(provider_task_id=None, error_code="provider_outcome_unknown", cost_is_estimate=True)
    assert names([call()], [perhaps, row(provider_task_id=None)]) == []


def test_pairs_are_found_for_all_where_there_are_some() -> None:
    late = THEN + timedelta(minutes=2)
    long = row(provider_task_id=None, deadline=late)
    short = row(provider_task_id=None, error_code="provider_outcome_unknown", deadline=THEN + timedelta(seconds=1))
    assert names([call(), call(reference="task-2", accepted_at=late)], [long, short]) == []


def test_one_lost_answer_does_not_excuse_two_payments() -> None:
    lost = row(provider_task_id=None, error_code="provider_outcome_unknown", cost_is_estimate=True)
    assert names([call(), call(reference="task-2")], [lost]) == [PAID_IS_JOURNALLED.name]


def test_a_refused_call_excuses_no_payment() -> None:
    refused = row(provider_task_id=None, state=CallState.REFUSED, cost_micros=0)
    assert names([call()], [refused]) == [PAID_IS_JOURNALLED.name]


def test_a_result_that_the_provider_does_not_know() -> None:
    (found,) = differences([], [row()])
    assert found.invariant is JOURNAL_IS_PAID
    assert names([], [row(state=CallState.SUBMITTED, cost_micros=None)]) == []  # it may not be listed while it runs
    assert names([], [row(error_code="provider_task_failed", cost_micros=0)]) == []


def test_what_is_younger_than_the_record_or_older_than_the_question_is_not_missed() -> None:
    assert names([], [row(created_at=NOW)]) == []
    assert names([], [row(created_at=BEGIN - timedelta(seconds=1))]) == []


def test_a_cost_that_was_not_charged() -> None:
    (found,) = differences([call(charged_micros=300_000)], [row()])
    assert found.invariant is COST_IS_CHARGED
    assert found.found == "booked 200000 micros, charged 300000"
    assert names([call(charged_micros=300_000)], [row(cost_is_estimate=True)]) == []
    assert names([call(charged_micros=None)], [row()]) == []
