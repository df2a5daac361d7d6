"""Statements that the code asks for are there, and those that are there are asked for."""

from __future__ import annotations

import re
from pathlib import Path

import app
import pytest
from app.db.asset_tables import AssetTables
from app.db.sql import load
from app.domain.asset_kinds import AssetKinds
from app.outputs.kinds import KINDS
from app.queue.fair_tags import TAGGED

from tests.unit.ai_clients.support import make_settings

ROOT = Path(next(iter(app.__path__))).parent
# each beside its module; the others of the queue are composed by app/queue/statements.py
QUEUE = ("maintenance", "numbers", "permits", "slots", "waits")
FILES = sorted(
    [
        *ROOT.glob("app/db/**/*.sql"),
        *ROOT.glob("app/calls/*.sql"),
        *(ROOT / "app" / "queue" / f"{name}.sql" for name in QUEUE),
    ]
)
TEXTS = AssetTables.of(make_settings(), AssetKinds(KINDS)).texts()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_those_of_the_module(path: Path) -> None:
    asked = set(re.findall(r'_SQL\["(\w+)"\]', path.with_suffix(".py").read_text(encoding="utf-8")))
    assert asked == set(load(str(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_can_be_made(path: Path) -> None:
    for name, statement in load(str(path), tagged=TAGGED).items():
        if name == "check_frame":  # it has a place for the check
            continue
        assert re.search(r"\{[a-z_]+\}", TEXTS.of(statement)) is None


def test_a_name_stands_for_one_statement() -> None:
    names = [name for path in FILES for name in load(str(path))]
    assert len(names) == len(set(names))
