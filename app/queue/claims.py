"""What a claim brought, read from the rows of its statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.domain.jobs import AssetSlot, Claim, ClaimedJob, KeptResult


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """``more`` is true when claimable work was left that this claim had room for but could not take."""

    jobs: tuple[ClaimedJob, ...]
    more: bool
    full: bool  # work is left that only the caller's own limit kept back
    outputs: Mapping[UUID, Sequence[AssetSlot]]  # of each job, unfinished, by number


def claim_result(rows: Sequence[asyncpg.Record]) -> ClaimResult:
    """The first row says of the whole claim what was left; there is one also where nothing was claimed."""
    taken = [row for row in rows if row["id"] is not None]
    first = rows[0]
    # what was picked and is not here was accepted in this very moment
    missed = len(taken) < len(first["picked"])
    full = first["waiting"] and first["spare"] <= 0 and not missed
    more = (first["locked"] or missed) and not full
    outputs = {row["id"]: tuple(_output(value) for value in row["outputs"] or ()) for row in taken}
    return ClaimResult(tuple(_claimed(row) for row in taken), more=more, full=full, outputs=outputs)


def _output(value: Mapping[str, Any]) -> AssetSlot:
    return AssetSlot(UUID(value["id"]), value["kind"], value["number"], value["prompt"])


def _claimed(row: asyncpg.Record) -> ClaimedJob:
    return ClaimedJob(
        claim=Claim(job_id=row["id"], worker_id=row["worker_id"], attempt=row["attempt"]),
        task_id=row["task_id"],
        request_id=row["request_id"],
        user_id=row["user_id"],
        step=row["step"],
        type=row["type"],
        provider=row["provider"],
        pool=row["pool"],
        lane=row["lane"],
        params=row["params"],
        failures=row["failures"],
        deferrals=row["deferrals"],
        crashes=row["crashes"],
        alone=row["alone"],
        age_seconds=row["age_seconds"],
        time_left_seconds=row["time_left_seconds"],
        retry_of=row["retry_of"],
        trace_id=row["trace_id"],
        kept=KeptResult.of_row(dict(row)),
    )
