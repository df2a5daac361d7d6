"""Each misconfiguration that settings alone can show is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app.ai_clients.registry import build_registry
from app.config import Settings
from app.container import build_registry as build_product
from app.services.doctor.examination import examine
from app.services.doctor.findings import Finding
from app.services.doctor.rounds import read_settings
from app.services.doctor.settings import SETTINGS
from pydantic import SecretStr

from tests.integration.factories import settings_for

SECRET = "hunter2"

Make = Callable[..., Settings]


def sandbox(home: Path, **changes: Any) -> Settings:  # noqa: ANN401 - values of any field
    return settings_for("postgresql://app@db/postgres", home, **changes)


def production(home: Path, **changes: Any) -> Settings:  # noqa: ANN401
    good: dict[str, Any] = {
        "environment": "production",
        "supabase_url": "https://ref.supabase.co",
        "public_base_url": "https://api.example.com",
        "metrics_token": SecretStr("a-token-of-16-characters"),
        "redis_url": SecretStr(f"rediss://:{SECRET}@cache.example.com:6379/0"),
    }
    dsn = f"postgresql://app:{SECRET}@db.example.com:5432/postgres?sslmode=require"
    return settings_for(dsn, home, **(good | changes))


async def found(settings: Settings) -> list[Finding]:
    context = build_product().check_context(settings)
    return [f async for seen in examine(context, [SETTINGS], patience_seconds=60) for f in seen.findings]


def pooled(port: int) -> SecretStr:
    return SecretStr(f"postgresql://app:{SECRET}@pooler.example.com:{port}/postgres?sslmode=require")


# code, whose settings, what is changed, words of what was seen
PLANTS: list[tuple[str, Make, dict[str, Any], tuple[str, ...]]] = [
    ("sandbox_in_production", production, {"tripo_base_url": "http://127.0.0.1:8001/tripo/v3"}, ("TRIPO_BASE_URL",)),
    ("sandbox_in_production", production, {"supabase_url": "http://localhost:8001"}, ("SUPABASE_URL",)),
    ("sandbox_in_production", production, {"openai_api_key": SecretStr("sk-sandbox")}, ("OPENAI_API_KEY",)),
    ("public_url_local", production, {"public_base_url": "http://127.0.0.1:8000"}, ("127.0.0.1",)),
    ("public_url_local", production, {"public_base_url": "https://localhost"}, ("localhost",)),
    ("plain_http", production, {"public_base_url": "http://api.example.com"}, ("PUBLIC_BASE_URL",)),
    ("plain_http", production, {"supabase_url": "http://ref.supabase.co"}, ("SUPABASE_URL",)),
    ("database_plain", production, {"database_url": SecretStr("postgresql://app@db.example.com/x")}, ("DATABASE_URL",)),
    (
        "database_plain",
        production,
        {"database_listen_url": SecretStr("postgresql://app@db.example.com/x?sslmode=prefer")},
        ("DATABASE_LISTEN_URL",),
    ),
    ("broker_open", production, {"redis_url": SecretStr("redis://cache.example.com:6379/0")}, ("password",)),
    ("metrics_open", production, {"metrics_token": None}, ("BFF_METRICS_TOKEN",)),
    ("grace_short", sandbox, {"shutdown_grace_seconds": 599.0}, ("599", "600")),
    ("grace_short", sandbox, {"tripo_timeout_seconds": 900.0}, ("BFF_TRIPO_TIMEOUT_SECONDS", "900")),
    ("slots_above_account", sandbox, {"tripo_h_slots": 11}, ("BFF_TRIPO_H_SLOTS", "11", "10")),
    ("slots_above_account", sandbox, {"tripo_image_slots": 2}, ("BFF_TRIPO_IMAGE_SLOTS",)),
    ("polling_fast", production, {"tripo_poll_seconds": 0.5}, ("0.5",)),
    ("model_unknown", sandbox, {"tripo_model_version": "v3.1"}, ("TRIPO_MODEL_VERSION", "v3.1-20260211")),
    ("model_unknown", sandbox, {"tripo_texture_version": "v9-20300101"}, ("TRIPO_TEXTURE_VERSION",)),
    ("pooler_cache", production, {"database_url": pooled(6543), "database_listen_url": pooled(5432)}, ("1024",)),
    (
        "listen_pooled",
        production,
        {"database_url": pooled(6543), "database_statement_cache_size": 0},
        ("DATABASE_URL",),
    ),
    ("listen_pooled", production, {"database_listen_url": pooled(6543)}, ("DATABASE_LISTEN_URL",)),
    ("spool_short", sandbox, {"max_model_bytes": 2**60}, ("bytes free",)),
]
GOOD: list[tuple[Make, dict[str, Any]]] = [
    (sandbox, {}),
    (production, {}),
    # one machine: nothing travels
    (production, {"database_url": SecretStr("postgresql:///x"), "redis_url": SecretStr("redis://127.0.0.1/0")}),
    (production, {"database_url": SecretStr("postgresql://app@/x?host=%2Frun"), "redis_url": SecretStr("unix:///v")}),
    (
        production,
        {
            "database_url": pooled(6543),
            "database_listen_url": pooled(5432),
            "database_statement_cache_size": 0,
        },
    ),
]


@pytest.mark.parametrize(("code", "make", "changes", "words"), PLANTS)
async def test_each_is_found_alone(
    tmp_path: Path, code: str, make: Make, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    findings = await found(make(tmp_path, **changes))
    assert [finding.entry.code for finding in findings] == [code]
    assert [word for word in words if word not in findings[0].seen] == []
    assert SECRET not in findings[0].seen


@pytest.mark.parametrize(("make", "changes"), GOOD)
async def test_good_settings_have_no_findings(tmp_path: Path, make: Make, changes: dict[str, Any]) -> None:
    assert await found(make(tmp_path, **changes)) == []


async def test_a_home_that_is_no_directory(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    findings = await found(sandbox(home))
    assert [finding.entry.code for finding in findings] == ["spool_not_writable"]
    assert str(home) in findings[0].seen


def test_settings_that_can_not_be_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in build_registry().settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("SUPABASE_URL", "https://ref.supabase.co")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://app:{SECRET}#@db/postgres")
    monkeypatch.setenv("REDIS_URL", f"localhost/{SECRET}")
    seen = read_settings(build_registry())
    assert not isinstance(seen, Settings)
    (finding,) = seen.findings
    assert finding.entry.code == "settings_invalid"
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "TRIPO_API_KEY", "SUPABASE_SERVICE_KEY"):
        assert name in finding.seen
    assert SECRET not in finding.seen
