"""What an audit looks at and what it finds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Area(StrEnum):
    """What is held against what."""

    ROWS = "rows"  # rows against each other
    EVENTS = "events"  # the event log against the rows
    FILES = "files"  # the manifest against the bucket
    LEDGER = "ledger"  # the journal of paid calls against the provider's own record


@dataclass(frozen=True, slots=True)
class Invariant:
    """A sentence that is true at every moment, or (``passing``) false only for as long as housekeeping takes."""

    name: str
    area: Area
    rule: str
    remedy: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that breaks an invariant. ``ids`` find it again; ``found`` says what was there instead."""

    invariant: Invariant
    ids: Mapping[str, str]
    found: str

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Equal for the same difference seen twice."""
        return self.invariant.name, tuple(sorted(self.ids.items()))


@dataclass(slots=True)
class Findings:
    """Everything an audit did: which invariants it checked, how many rows it read, what it found, what it could not
    look at."""

    checks: list[Invariant] = field(default_factory=list[Invariant])
    rows: int = 0
    differences: list[Difference] = field(default_factory=list[Difference])
    unshown: int = 0  # differences beyond those listed
    notes: list[str] = field(default_factory=list[str])

    @property
    def count(self) -> int:
        return len(self.differences) + self.unshown

    @property
    def clean(self) -> bool:
        return self.count == 0

    def add(self, other: Findings) -> None:
        self.checks += other.checks
        self.rows += other.rows
        self.differences += other.differences
        self.unshown += other.unshown
        self.notes += other.notes
