"""What paid calls cost: the journal's last word on a call, and the same in this process's metrics."""

from __future__ import annotations

import structlog
from prometheus_client import Counter

from app.ai_clients.base import ProviderTask, ProviderTaskState
from app.calls import journal
from app.calls.journal import Call
from app.db.pool import Database
from app.domain.crash_points import Boundary, boundary
from app.errors import ErrorCode

log = structlog.get_logger(__name__)

COST = Counter(
    "makeit3d_cost_usd_micros_total", "Booked cost of paid calls, millionths of a USD", ["provider", "certainty"]
)
UNKNOWN_SETTLED = Counter(
    "makeit3d_unknown_calls_settled_total", "Calls with an unknown outcome that were looked up or settled", ["end"]
)

for _end in ("adopted", "absent", "given_up"):
    UNKNOWN_SETTLED.labels(_end)  # a series that begins with 1 shows monitoring no increase


def record_cost(provider: str, micros: int, *, is_estimate: bool) -> None:
    """Count a cost that the journal has taken."""
    COST.labels(provider, "estimate" if is_estimate else "actual").inc(micros)


async def settle(database: Database, call: Call, task: ProviderTask) -> None:
    """Settle a call that the provider is done with."""
    succeeded = task.state is ProviderTaskState.SUCCEEDED
    error = None if succeeded else (task.error or ErrorCode.PROVIDER_TASK_FAILED).code
    # the provider takes nothing for work that failed, and says what it took for work that did not
    assumed = call.estimate_micros if succeeded else 0
    cost = assumed if task.cost_micros is None else task.cost_micros
    is_estimate = succeeded and task.cost_micros is None
    with boundary(Boundary.BOOK, [call.task_id]):
        if await journal.settled(database, call.id, cost_micros=cost, is_estimate=is_estimate, error_code=error):
            record_cost(call.provider, cost, is_estimate=is_estimate)


async def give_up(database: Database, call: Call, error: ErrorCode) -> None:
    """Settle, by policy and at its estimate, a call whose true end nobody learns."""
    with boundary(Boundary.GIVE_UP, [call.task_id]):
        if await journal.settled(
            database, call.id, cost_micros=call.estimate_micros, is_estimate=True, error_code=error.code
        ):
            record_cost(call.provider, call.estimate_micros, is_estimate=True)


async def give_up_unknown(database: Database, call: Call) -> None:
    """The same for a call that may never have been accepted."""
    await give_up(database, call, ErrorCode.PROVIDER_OUTCOME_UNKNOWN)
    UNKNOWN_SETTLED.labels("given_up").inc()
    log.error("provider_outcome_unknown", call_id=str(call.id), job_id=str(call.job_id))


async def adopt(database: Database, call: Call, provider_task_id: str, *, last: bool) -> None:
    """An unknown call was accepted as this task; ``last`` as for ``journal.submitted``."""
    with boundary(Boundary.SUBMITTED, [call.task_id]):
        await journal.submitted(database, call.id, last=last, provider_task_id=provider_task_id)
    UNKNOWN_SETTLED.labels("adopted").inc()
    log.info("provider_call_adopted", call_id=str(call.id))


async def never_accepted(database: Database, call: Call) -> None:
    """An unknown call is not in the provider's listing: nothing was paid."""
    code = ErrorCode.PROVIDER_OUTCOME_UNKNOWN.code
    with boundary(Boundary.REFUSED, [call.task_id]):
        await journal.refused(database, call.id, error_code=code, provider_code=None, http_status=None)
    UNKNOWN_SETTLED.labels("absent").inc()
    log.info("provider_call_absent", call_id=str(call.id))
