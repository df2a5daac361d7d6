"""Statements that the code asks for are there, and those that are there are asked for."""

from __future__ import annotations

import re
from pathlib import Path

import app
import pytest
from app.db.pool import AssetTables
from app.db.sql import load

ROOT = Path(next(iter(app.__path__))).parent
FILES = sorted(ROOT.glob("app/db/**/*.sql"))
TEXTS = AssetTables("input_assets", "concept_images", "models").texts()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_are_those_of_the_module(path: Path) -> None:
    asked = set(re.findall(r'_SQL\["(\w+)"\]', path.with_suffix(".py").read_text(encoding="utf-8")))
    assert asked == set(load(str(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_can_be_made(path: Path) -> None:
    for statement in load(str(path)).values():
        assert re.search(r"\{[a-z_]+\}", TEXTS.of(statement)) is None


def test_a_name_stands_for_one_statement() -> None:
    names = [name for path in FILES for name in load(str(path))]
    assert len(names) == len(set(names))
