"""A job type and checks that the product does not know are one file each and one line of a registry."""

from __future__ import annotations

import re
from pathlib import Path

import app
import pytest
from app.container import build_registry as build_product

from tests.unit.extension.pebbles import POLISH_PEBBLES, Pebbles
from tests.unit.extension.registry import build_registry

HERE = Path(__file__).parent
GUIDE = HERE.parents[2] / "docs" / "extending.md"


def test_no_file_of_the_product_names_it() -> None:
    files = [path for path in Path(next(iter(app.__path__))).rglob("*") if path.suffix in (".py", ".sql", ".json")]
    assert len(files) > 100
    assert [path for path in files if "pebble" in path.read_text(encoding="utf-8").lower()] == []
    assert POLISH_PEBBLES.name not in build_product().job_types.names


def test_it_is_registered_with_its_permit_and_parameters() -> None:
    job_types = build_registry().job_types
    assert job_types.permits[POLISH_PEBBLES.name] == "none"
    assert job_types.named("polish_pebbles").parse({"pebbles": ["grey"]}) == Pebbles(pebbles=["grey"])


@pytest.mark.parametrize("name", ["pebbles.py", "pebble_checks.py"])
def test_the_guide_shows_what_runs_here(name: str) -> None:
    shown = re.findall(rf'^```python title="{re.escape(name)}"\n(.*?)^```$', GUIDE.read_text("utf-8"), re.M | re.S)
    assert shown == [(HERE / name).read_text("utf-8")]
