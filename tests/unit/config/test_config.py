"""Configuration: documented as it is, complete or refused by name, and never a sandbox in production."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from app.ai_clients.registry import build_registry, load_settings
from app.config import ClientSettings, child_environment
from app.container import user_limits
from app.domain.user_limits import UserLimits
from app.embedded.settings import EmbeddedSettings
from app.errors import ConfigurationError
from app.sandbox_settings import SandboxSettings
from pydantic_core import PydanticUndefined

from tests.unit.config.settings import COMPLETE

EXAMPLE = Path(__file__).resolve().parents[3] / ".env.example"
Settings = build_registry().settings
KINDS = (Settings, ClientSettings, EmbeddedSettings, SandboxSettings)


def documented() -> dict[str, str]:
    lines = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(lines)


def test_the_example_and_the_settings_name_the_same_variables() -> None:
    known = {str(field.alias) for kind in KINDS for field in kind.model_fields.values()}
    assert set(documented()) == known


def test_the_example_shows_the_defaults() -> None:
    shown = documented()
    for field in Settings.model_fields.values():
        default = field.get_default()
        if default in (None, PydanticUndefined, ()) or str(field.alias) in ("PUBLIC_BASE_URL",):
            continue
        text = ",".join(default) if isinstance(default, tuple) else str(default)  # pyright: ignore[reportUnknownArgumentType]
        wanted = shown[str(field.alias)]
        assert text.lower() == wanted.lower() or float(text) == float(wanted), field.alias


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        for field in kind.model_fields.values():
            monkeypatch.delenv(str(field.alias), raising=False)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_loads(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("INPUT_BUCKET_NAMES", "one, two")
    settings = load_settings()
    assert settings.input_bucket_names == ("one", "two")
    assert "real" not in repr(settings)


@pytest.mark.parametrize("name", sorted(COMPLETE))
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_URL", "http://127.0.0.1:8001/supabase"),
        ("OPENAI_BASE_URL", "http://localhost:8001/openai/v1"),
        ("TRIPO_BASE_URL", "http://127.0.0.1:8001/tripo/v3"),
        ("SUPABASE_SERVICE_KEY", "sb_secret_sandbox"),
        ("OPENAI_API_KEY", ""),
        ("TRIPO_API_KEY", "tsk_sandbox"),
    ],
)
def test_production_refuses_the_sandbox_by_name(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()
    environment.setenv("MAKEIT3D_ENVIRONMENT", "sandbox")
    assert load_settings().is_sandbox


@pytest.mark.parametrize("name", ["SUPABASE_SERVICE_KEY", "OPENAI_API_KEY", "TRIPO_API_KEY"])
@pytest.mark.parametrize("value", ["sk-hunter2…", "sk-hunter2\n", "sk hunter2"])
def test_a_key_that_can_not_be_sent_is_refused_by_name(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert name in str(refused.value.detail)
    assert "hunter2" not in str(refused.value.detail)


def test_an_embedded_stack_is_found_only_when_nothing_else_is_configured(environment: pytest.MonkeyPatch) -> None:
    home = Path(".makeit3d")
    home.mkdir()
    values: dict[str, Any] = COMPLETE | {"MAKEIT3D_ENVIRONMENT": "sandbox", "OPENAI_API_KEY": "sk-sandbox"}
    (home / "settings.env").write_text("".join(f"{k}='{v}'\n" for k, v in values.items()), encoding="utf-8")
    environment.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        load_settings()
    for name in COMPLETE:
        environment.delenv(name, raising=False)
    assert load_settings().is_sandbox


def test_variables_of_a_shell_are_not_ours(environment: pytest.MonkeyPatch) -> None:
    ours = {str(field.alias) for kind in KINDS for field in kind.model_fields.values()}
    for name in {name.upper() for kind in KINDS for name in kind.model_fields} - ours:
        environment.setenv(name, "7")
    assert EmbeddedSettings().home == Path(".makeit3d")  # pyright: ignore[reportCallIssue]
    assert ClientSettings().token is None  # pyright: ignore[reportCallIssue]
    assert load_settings().home == Path(".makeit3d")


def test_a_limit_without_a_value_is_none(environment: pytest.MonkeyPatch) -> None:
    for name in ("BFF_USER_MAX_IN_FLIGHT", "BFF_USER_MAX_UNFINISHED", "BFF_USER_DAILY_BUDGET_USD"):
        environment.setenv(name, "")
    assert not user_limits(load_settings()).any
    environment.setenv("BFF_USER_MAX_IN_FLIGHT", "3")
    environment.setenv("BFF_USER_DAILY_BUDGET_USD", "0.25")
    assert user_limits(load_settings()) == UserLimits(in_flight=3, daily_budget_micros=250_000)
    environment.setenv("BFF_USER_DAILY_BUDGET_USD", "-1")
    with pytest.raises(ConfigurationError, match="BFF_USER_DAILY_BUDGET_USD"):
        load_settings()


def test_children_have_the_settings_of_their_parent(environment: pytest.MonkeyPatch) -> None:
    nothing = {
        str(field.alias): ""
        for field in Settings.model_fields.values()
        if type(None) in get_args(field.annotation) and not field.is_required()
    }
    assert {"BFF_OPENAI_REQUESTS_PER_MINUTE", "BFF_TRIPO_REQUESTS_PER_MINUTE", "SUPABASE_JWT_SECRET"} <= set(nothing)
    for name, value in nothing.items():
        environment.setenv(name, value)
    parent = load_settings()
    assert build_registry().requests_per_minute(parent) == {"openai": None, "tripo": None}
    childs = child_environment(parent)
    for name in nothing:
        environment.delenv(name)
    for name, value in childs.items():
        environment.setenv(name, value)
    assert load_settings() == parent
