"""``makeit3d generate`` has a command for each task type, with an option for each parameter."""

from __future__ import annotations

import pytest
from app.cli import app
from app.container import build_registry
from app.task_types.registry import AnyTaskType
from typer.testing import CliRunner

TYPES = build_registry().task_types
# as they were before there was a registry, and short ones
KEPT = {
    "text-to-image": {"-p", "-n", "--background"},
    "image-to-image": {"--image", "-i"},
    "text-to-model": {"-o", "--task-id"},
    "image-to-model": {"--image", "-i"},
    "sketch-to-model": {"--sketch", "--out"},
    "refine-model": {"--draft", "--model", "--idempotency-key"},
}


@pytest.mark.parametrize("task_type", list(TYPES), ids=lambda task_type: task_type.name)
def test_each_parameter_has_an_option(task_type: AnyTaskType) -> None:
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["generate", task_type.name, "--help"])
    assert told.exit_code == 0, told.output
    words = set(told.output.split())
    of_inputs = {name for item in task_type.inputs for name in item.fields}
    parameters = task_type.params.model_fields.keys() - of_inputs - {"n"}
    assert {f"--{name.replace('_', '-')}" for name in parameters} <= words
    assert KEPT[task_type.name] <= words


def test_a_type_that_is_not_there_is_told_so() -> None:
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["generate", "text-to-video"])
    assert told.exit_code == 2
    assert "text-to-video" in told.output
