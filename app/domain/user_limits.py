"""What one user may have under way and spend. ``None`` means no limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from app.errors import AppError, ErrorCode

MICROS = 1_000_000  # per USD

_JOB_SECONDS = 10.0  # about the shortest time in which a paid job ends


@dataclass(frozen=True, slots=True)
class UserLimits:
    """``in_flight`` counts jobs that run or could run, each class of permit for itself; ``unfinished`` those that wait
    as well; ``daily_budget_micros`` is USD micros per UTC day."""

    in_flight: int | None = None
    unfinished: int | None = None
    daily_budget_micros: int | None = None

    @property
    def any(self) -> bool:
        return (self.in_flight, self.unfinished, self.daily_budget_micros) != (None, None, None)


NO_LIMITS = UserLimits()


@dataclass(frozen=True, slots=True)
class UserLoad:
    """What a user has under way, each counted as far as there is a limit. ``spent_micros`` is what was booked today
    and what open calls and jobs may cost."""

    in_flight: Mapping[str, int]  # by class of permit
    unfinished: int
    spent_micros: int
    day_left_seconds: float

    def admit(self, limits: UserLimits, *, jobs: int, estimate_micros: int) -> dict[str, int] | None:
        """How many more jobs may start now, by class of permit (None: any number). Raises AppError: USER_LIMIT,
        USER_BUDGET_EXCEEDED."""
        if limits.unfinished is not None and self.unfinished + jobs > limits.unfinished:
            raise AppError(
                ErrorCode.USER_LIMIT,
                f"At most {limits.unfinished} jobs may be unfinished. Wait until some have ended.",
                retry_after=_JOB_SECONDS,
            )
        budget = limits.daily_budget_micros
        if budget is not None and self.spent_micros + estimate_micros > budget:
            raise AppError(
                ErrorCode.USER_BUDGET_EXCEEDED,
                f"The budget is {_usd(budget)} a day (UTC). {_usd(self.spent_micros)} are spent or reserved today,"
                f" and this request may cost {_usd(estimate_micros)}.",
                # tomorrow does not help a request that is dearer than a whole day's budget
                retry_after=self.day_left_seconds if estimate_micros <= budget else None,
            )
        most = limits.in_flight
        return None if most is None else {permit: max(0, most - taken) for permit, taken in self.in_flight.items()}


def _usd(micros: int) -> str:
    return f"{Decimal(micros) / MICROS:.2f} USD"
