"""Addresses that can not be read are refused at once, in words that do not repeat them."""

from __future__ import annotations

import pytest
from app.ai_clients.registry import build_registry, load_settings
from app.errors import ConfigurationError
from app.urls import broker_fault, database_fault, place, web_fault

from tests.unit.config.settings import COMPLETE

SECRET = "hunter2"

GOOD_DATABASES = (
    "postgresql://x",
    "postgres://u@h/db",
    "postgresql:///db",
    f"postgresql://u:{SECRET}%40%23@h:5432/db?sslmode=require",
    "postgresql://app@/postgres?host=%2Frun%2Fx",
    "postgresql://u@a:5432,b:5433/db?target_session_attrs=read-write",
    "postgresql://u@[::1]:5432/db",
)
BAD_DATABASES = {
    "": "empty",
    "db.example.com:5432/db": "begin with",
    f"mysql://u:{SECRET}@h/db": "begin with",
    f"postgresql:u:{SECRET}@h/db": "begin with",
    f"postgresql://u:{SECRET}@h:five/db": "port",
    f"postgresql://u:{SECRET}@h:543210/db": "port",
    f"postgresql://u:{SECRET}#1@h/db": "%23",
    f"postgresql://u:{SECRET}/1@h/db": "%2F",
    f"postgresql://u:{SECRET}?1@h/db": "%3F",
    f"postgresql://u:{SECRET}@1@h/db": "%40",
    f"postgresql://u:[{SECRET}]@h/db": "%40",
    "postgresql://u:[YOUR-PASSWORD]@h/db": "YOUR-PASSWORD",
    f"postgresql://u:{SECRET}@h/db ": "white space",
    f"postgresql://u:{SECRET}@h/db?sslmode": "name=value",
    f"postgresql://u:{SECRET}@h/db?sslmode=required": "sslmode",
}
GOOD_BROKERS = (
    "redis://h",
    f"rediss://:{SECRET}@h:6380/2",
    "unix:///run/v.sock?db=3",
    "redis+socket:///run/v.sock?virtual_host=1",
)
BAD_BROKERS = {
    "": "empty",
    "localhost:6379": "begin with",
    f"http://:{SECRET}@h": "begin with",
    f"redis://:{SECRET}@h:sixk/0": "port",
    f"redis://:{SECRET}@h/first": "number",
    f"redis://:{SECRET}/x@h/0": "%2F",
    "unix:///run/v.sock?db=first": "number",
}
BAD_WEBS = {"ref.supabase.co": "begin with", "https://": "host", "ftp://h": "begin with"}


@pytest.mark.parametrize("url", GOOD_DATABASES)
def test_good_database_addresses(url: str) -> None:
    assert database_fault(url) is None


@pytest.mark.parametrize("url", GOOD_BROKERS)
def test_good_broker_addresses(url: str) -> None:
    assert broker_fault(url) is None


@pytest.mark.parametrize(
    ("name", "url", "word"),
    [
        *(("DATABASE_URL", url, word) for url, word in BAD_DATABASES.items()),
        *(("DATABASE_LISTEN_URL", url, word) for url, word in BAD_DATABASES.items() if url),
        *(("REDIS_URL", url, word) for url, word in BAD_BROKERS.items()),
        *(("SUPABASE_URL", url, word) for url, word in BAD_WEBS.items()),
    ],
)
def test_unreadable_addresses_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, word: str
) -> None:
    for variable, value in {**COMPLETE, name: url}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refusal:
        load_settings()
    said = str(refusal.value.detail)
    assert name in said
    assert word in said
    assert SECRET not in said


def test_a_listening_address_without_a_value_is_none() -> None:
    assert web_fault("https://ref.supabase.co") is None
    settings = build_registry().settings.model_validate(
        {
            "SUPABASE_URL": "https://ref.supabase.co",
            "SUPABASE_SERVICE_KEY": "sb_secret_real",
            "DATABASE_URL": "postgresql://x",
            "DATABASE_LISTEN_URL": "",
            "REDIS_URL": "redis://x",
            "OPENAI_API_KEY": "sk-real",
            "TRIPO_API_KEY": "tsk_real",
        }
    )
    assert settings.database_listen_url is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"postgresql://u:{SECRET}@h:5432/db?sslmode=require", "h:5432"),
        ("postgresql://app@/postgres?host=%2Frun%2Fx", "/run/x"),
        (f"redis://:{SECRET}@h:6379/0", "h:6379"),
        ("unix:///run/v.sock?db=3", "/run/v.sock"),
        ("postgresql:///db", "/db"),
    ],
)
def test_places_are_named_without_secrets(url: str, name: str) -> None:
    assert place(url) == name
