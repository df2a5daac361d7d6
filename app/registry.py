"""What a process can do. It is built once, before the first statement is prepared, and never changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.ai_clients.registry import ProviderRegistry
from app.config import Settings
from app.db.audit.checks import AuditCheck
from app.job_types.doctor import job_types_group
from app.job_types.registry import JobTypes
from app.queue.contracts import AssetKinds, Participants
from app.services.audit import ROW_CHECKS
from app.services.doctor.examination import CheckContext, Group
from app.services.doctor.rounds import groups
from app.services.personal_data import PersonalData
from app.task_types.registry import TaskTypes


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """``audit_checks`` and ``doctor_checks`` run beside those that the product always has."""

    providers: ProviderRegistry
    task_types: TaskTypes
    job_types: JobTypes
    asset_kinds: AssetKinds
    participants: Participants
    audit_checks: tuple[AuditCheck, ...] = ()
    doctor_checks: tuple[Group[Any], ...] = ()
    personal_data: tuple[PersonalData, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where a name is there twice."""
        _unique("audit check", (check.invariant.name for check in (*ROW_CHECKS, *self.audit_checks)))
        _unique("doctor check", (group.name for group in self.doctor_groups))
        _unique("seat of personal data", (seat.name for seat in self.personal_data))

    def check_context(self, settings: Settings) -> CheckContext:
        """What the doctor's groups look at."""
        return CheckContext(settings, self.providers, self.asset_kinds)

    @property
    def doctor_groups(self) -> tuple[Group[Any], ...]:
        """All that the doctor looks at."""
        return (*groups(self.providers), job_types_group(self.job_types, self.providers), *self.doctor_checks)


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name} names two {what}s.")
        seen.add(name)
