"""The transition table is what the documentation draws."""

from __future__ import annotations

import re
from pathlib import Path

import app
import pytest
from app.domain.statuses import JobStatus
from app.queue.states import TRANSITIONS, Transition

_ROW = re.compile(r"^\| (?P<old>\w+|–) \| (?P<new>\w+) \| (?P<by>[\w, ]+) \|$", re.MULTILINE)
ARCHITECTURE = Path(next(iter(app.__path__))).parent / "docs" / "architecture.md"


def test_the_table_is_the_documented_one() -> None:
    drawn = ARCHITECTURE.read_text().split("| from | to | by |")[1].split("\n\n")[0]
    documented = {
        (None if row["old"] == "–" else JobStatus(row["old"]), JobStatus(row["new"])): frozenset(
            Transition(word) for word in row["by"].split(", ")
        )
        for row in _ROW.finditer(drawn)
    }
    assert documented == TRANSITIONS


@pytest.mark.parametrize("old", [status for status in JobStatus if status.is_final])
def test_final_is_final(old: JobStatus) -> None:
    assert not any(before is old for before, _ in TRANSITIONS)


def test_every_transition_changes_something() -> None:
    assert {by for who in TRANSITIONS.values() for by in who} == set(Transition)
