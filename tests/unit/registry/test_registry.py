"""The registry of a process refuses what would be ambiguous, and never changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from app.container import build_registry
from app.services.audit import ROW_CHECKS
from app.services.doctor.database import DATABASE

REGISTRY = build_registry()


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        REGISTRY.audit_checks = ()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("field", ["audit_checks", "doctor_checks"])
def test_a_name_that_is_there_already_is_refused(field: str) -> None:
    taken = {"audit_checks": (ROW_CHECKS[0],), "doctor_checks": (DATABASE,)}[field]
    with pytest.raises(ValueError, match="names two"):
        replace(REGISTRY, **{field: taken})  # pyright: ignore[reportArgumentType]
