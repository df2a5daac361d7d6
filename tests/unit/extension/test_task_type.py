"""A task type that the product does not know is one file and one line of a registry."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import app
import pytest
from app.ai_clients.registry import Providers
from app.cli import app as command_line
from app.container import build_task_types
from app.main import create_app
from app.task_types.catalogue import describe
from app.task_types.planner import Planner
from app.task_types.steps import Inputs
from typer.testing import CliRunner

from tests.fake_providers import FakeImages, FakeModels
from tests.integration.factories import settings_for
from tests.unit.extension.gateway import PROGRAM
from tests.unit.extension.obelisk import OBELISK, Obelisk
from tests.unit.extension.registry import build_registry


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    providers = Providers([FakeImages(), FakeModels()])
    return Planner(providers, settings_for("postgresql://x/y", tmp_path), build_registry().job_types.permits)


def test_no_file_of_the_product_names_it() -> None:
    files = [path for path in Path(next(iter(app.__path__))).rglob("*") if path.suffix in (".py", ".sql", ".json")]
    assert len(files) > 100
    assert [path for path in files if OBELISK.name in path.read_text(encoding="utf-8").lower()] == []
    assert build_task_types().find(OBELISK.name) is None


def test_the_document_shows_it_whole() -> None:
    here = Path(__file__).parent
    shown = (here.parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    assert (here / "obelisk.py").read_text(encoding="utf-8") in shown


def test_its_steps_become_jobs_and_rows(planner: Planner) -> None:
    params = Obelisk.model_validate({"prompt": "a fox", "style": "oak", "surface": "carved", "sides": 3})
    plan = planner.plan(OBELISK, params, Inputs(), UUID(int=7))
    drawing, polishing = plan.jobs
    assert (drawing.step, drawing.type, drawing.pool) == (1, "generate_images", "openai")
    assert drawing.params["prompt"] == "a fox. Style: oak It is carved."
    assert (polishing.step, polishing.type, polishing.pool, polishing.permit) == (2, "polish_pebbles", "local", "none")
    assert polishing.params["pebbles"] == ["side-1", "side-2", "side-3"]
    concept, film = plan.assets
    assert (concept.kind, concept.job_id) == ("concept", drawing.id)
    assert (film.kind, film.job_id, film.source_concept_image_id) == ("video", polishing.id, concept.id)
    assert plan.main_job_id == polishing.id


def test_a_plan_is_pure(planner: Planner) -> None:
    params = Obelisk.model_validate({"prompt": "a fox"})
    assert planner.steps(OBELISK, params, Inputs()) == planner.steps(OBELISK, params, Inputs())


def test_its_price_is_in_its_document(planner: Planner) -> None:
    steps = planner.steps(OBELISK, OBELISK.least_example(), Inputs())
    assert describe(OBELISK, planner)["estimates"] == [
        {"provider": "openai", "micros": sum(step.estimate_micros for step in steps) + 50_000, "default": True}
    ]


def test_it_has_routes_and_a_schema(tmp_path: Path) -> None:
    document = create_app(settings_for("postgresql://x/y", tmp_path), registry=build_registry()).openapi()
    assert document["paths"]["/generate/obelisk"]["post"]["operationId"] == "obelisk"
    variants = document["components"]["schemas"]["NewTask"]["oneOf"]
    assert "obelisk" in [variant["properties"]["task_type"]["const"] for variant in variants]
    assert document["components"]["schemas"]["ObeliskParams"]["properties"]["surface"]["default"] == "smooth"


def test_it_has_a_command_with_options_from_its_schema() -> None:
    told = CliRunner().invoke(command_line, ["generate", OBELISK.name, "--help"], obj=PROGRAM)
    assert told.exit_code == 0, told.output
    for words in ("--surface", "How its sides look.", "--sides", "--prompt", "--provider"):
        assert words in told.output
    assert CliRunner().invoke(command_line, ["generate", OBELISK.name, "--help"]).exit_code == 2
