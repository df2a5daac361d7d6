"""The registry of job types: names, parameters, time limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from app.config import Settings
from app.container import build_registry
from app.domain.operations import ModelOptions
from app.domain.params import ImageJob, ModelJob, ObjectRef, StepOutput
from app.errors import ConfigurationError
from app.job_types.doctor import job_types_group
from app.job_types.generate_images import GENERATE_IMAGES
from app.job_types.generate_model import GENERATE_MODEL
from app.job_types.registry import JobType, JobTypes
from app.services.doctor.examination import examine
from pydantic import ValidationError

from tests.integration.factories import settings_for

REGISTRY = build_registry()
TYPES = REGISTRY.job_types
PICTURE = ObjectRef("inputs", "fox.png", etag='"1"', size=9)


def settings(home: Path, **changes: Any) -> Settings:  # noqa: ANN401 - values of any field
    return settings_for("postgresql://app@db/postgres", home, **changes)


def test_every_name_is_registered_once() -> None:
    assert set(TYPES.names) == {"generate_images", "render_sketch", "generate_model", "refine_model"}
    with pytest.raises(ValueError, match="generate_model names two job types"):
        JobTypes([GENERATE_MODEL, GENERATE_MODEL])


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'generate_video' is no job type .* generate_images"):
        TYPES.named("generate_video")


@pytest.mark.parametrize("name", ["", "Generate", "generate-model", "generate_", "_x", "1st"])
def test_a_name_is_a_plain_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        JobType(name=name, handler=GENERATE_MODEL.handler, params=ModelJob, permit="paid")


@pytest.mark.parametrize(
    ("job_type", "params"),
    [
        (GENERATE_IMAGES, ImageJob("a fox", 2, quality="low", inputs=(PICTURE,), sketch=True)),
        (GENERATE_IMAGES, ImageJob("a fox", 1)),
        (GENERATE_MODEL, ModelJob("a fox", options=ModelOptions(face_limit=20_000, texture=False))),
        (GENERATE_MODEL, ModelJob("", views={"front": StepOutput(1), "left": PICTURE}, source_step=1)),
        (GENERATE_MODEL, ModelJob("", model=PICTURE, source_task_id="task-1")),
    ],
)
def test_parameters_come_back_from_their_column(job_type: JobType[Any], params: ImageJob | ModelJob) -> None:
    assert job_type.parse(params.as_json()) == params


def test_parameters_that_lack_something_are_refused() -> None:
    with pytest.raises(ValidationError, match="prompt"):
        GENERATE_IMAGES.parse({"n": 1})


def test_the_setting_wins_over_the_limit_of_the_type(tmp_path: Path) -> None:
    limits = TYPES.time_limits(settings(tmp_path, time_limits="generate_model = 90.5, render_sketch=2"))
    assert limits == {
        "generate_images": 1800.0,
        "render_sketch": 2.0,
        "generate_model": 90.5,
        "refine_model": 3600.0,
    }


def test_a_limit_of_no_job_type_stops_the_worker(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"BFF_TIME_LIMITS.*generate_video"):
        TYPES.time_limits(settings(tmp_path, time_limits={"generate_video": 5.0}))


@pytest.mark.parametrize("text", ["generate_model=0", "generate_model", "generate_model=soon"])
def test_a_limit_is_more_than_no_time(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValidationError, match=r"time_limits|BFF_TIME_LIMITS"):
        settings(tmp_path, time_limits=text)


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        ({"generate_images": 600.0}, "time_limit_short", ("generate_images", "600", "BFF_OPENAI_TIMEOUT_SECONDS")),
        ({"generate_video": 600.0}, "settings_invalid", ("BFF_TIME_LIMITS", "generate_video")),
    ],
)
async def test_the_doctor_finds_limits_that_fit_nothing(
    tmp_path: Path, limits: dict[str, float], code: str, words: tuple[str, ...]
) -> None:
    group = job_types_group(TYPES, REGISTRY.providers)
    context = REGISTRY.check_context(settings(tmp_path, time_limits=limits))
    seen = [item async for item in examine(context, [group], patience_seconds=60)]
    findings = [finding for item in seen for finding in item.findings]
    assert [finding.entry.code for finding in findings] == [code]
    assert [word for word in words if word not in findings[0].seen] == []
