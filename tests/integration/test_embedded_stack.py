"""The embedded stack: addresses that are all of this machine, and every process of it in one real run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from app.ai_clients.registry import build_registry, load_settings
from app.ai_clients.tripo.settings import TripoSettings
from app.config import Settings, child_environment
from app.embedded.process import command_line, identity, spawn
from app.embedded.settings import EmbeddedSettings
from app.embedded.stack import write_settings
from app.errors import ConfigurationError
from app.sandbox_settings import SandboxSettings

from tests.loopback import loopback
from tests.servers import free_port, server_home

PATIENCE = 120.0  # seconds until a test counts as hung


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def embedded(home: Path) -> Settings:
    """The settings of a stack in this home, as the launcher derives them."""
    dsn = "postgresql://app@/postgres?host=/run/x"
    wanted = EmbeddedSettings.load().model_copy(update={"home": home})
    sandbox = SandboxSettings.beside(home=home, port=wanted.sandbox_port, database_url=dsn)
    return wanted.gateway(build_registry(), sandbox, database_url=dsn, redis_url="redis+socket:///run/x/valkey.sock")


def test_production_variables_do_not_reach_the_embedded_gateway(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    production = {
        "MAKEIT3D_ENVIRONMENT": "production",
        "PUBLIC_BASE_URL": "https://api.example.com",
        "SUPABASE_URL": "https://ref.supabase.co",
        "SUPABASE_SERVICE_KEY": "sb_secret_real",
        "SUPABASE_JWT_SECRET": "a-real-secret-of-the-project-123",
        "DATABASE_URL": "postgresql://postgres@db.example.com/postgres",
        "DATABASE_LISTEN_URL": "postgresql://postgres@direct.example.com/postgres",
        "REDIS_URL": "redis://redis.example.com/0",
        "OPENAI_API_KEY": "sk-real",
        "OPENAI_BASE_URL": "https://api.openai.com/v1",
        "TRIPO_API_KEY": "tsk_real",
        "TRIPO_BASE_URL": "https://openapi.tripo3d.ai/v3",
    }
    for name, value in production.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BFF_OPENAI_SLOTS", "7")
    settings = embedded(tmp_path)
    environment = child_environment(settings)
    for name, value in production.items():
        assert environment.get(name) != value
    assert environment["BFF_OPENAI_SLOTS"] == "7"
    assert environment["SUPABASE_JWT_SECRET"] == ""
    assert TripoSettings.of(settings).download_hosts == ("127.0.0.1",)
    write_settings(tmp_path / "settings.env", settings)
    written = (tmp_path / "settings.env").read_text()
    assert not any(f"='{value}'" in written for value in production.values())
    assert (tmp_path / "settings.env").stat().st_mode & 0o777 == 0o600


def test_settings_are_read_back_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "it's a \\ home"
    home.mkdir()
    settings = embedded(home)
    write_settings(home / "settings.env", settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAKEIT3D_HOME", str(home))
    monkeypatch.delenv("SUPABASE_URL", raising=False)
    assert load_settings() == settings


@pytest.mark.parametrize("name", ["BFF_API_PORT", "SANDBOX_PORT", "BFF_OPENAI_SLOTS", "SANDBOX_WORK_SECONDS"])
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv(name, "-3")
    with pytest.raises(ConfigurationError) as refused:
        embedded(tmp_path)
    assert name in str(refused.value.detail)


def start(home: Path, api_port: int, sandbox_port: int) -> subprocess.Popen[bytes]:
    changes = {"MAKEIT3D_HOME": str(home), "BFF_API_PORT": str(api_port), "SANDBOX_PORT": str(sandbox_port)}
    return spawn(
        [sys.executable, "-m", "app.cli", "up"],
        log=home / "up.log",
        environment=os.environ | changes,
        cwd=str(home),  # anywhere: the children import the same code
    )


def children(process: subprocess.Popen[bytes]) -> list[int]:
    listing = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True)
    pairs = (line.split() for line in listing.stdout.splitlines())
    return [int(pid) for parent, pid in pairs if int(parent) == process.pid]


def is_ready(port: int) -> bool:
    try:
        return loopback.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def buckets(settings: Settings) -> dict[str, bool]:
    key = settings.supabase_service_key.get_secret_value()
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    answer = loopback.get(f"{settings.supabase_url}/storage/v1/bucket", headers=headers)
    return {bucket["name"]: bucket["public"] for bucket in answer.raise_for_status().json()}


def test_every_process_in_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api_port, sandbox_port = free_port(), free_port()
    with server_home("stack") as home:
        process = start(home, api_port, sandbox_port)

        def log() -> str:
            return (home / "up.log").read_text()

        def refused(*ports: int) -> str:
            second = start(home, *ports)
            assert second.wait(PATIENCE) == 1
            return " ".join(log().split())

        try:
            until(lambda: process.poll() is not None or "Ctrl-C stops everything" in log())
            assert process.poll() is None, log()
            assert is_ready(api_port)

            # other commands find it by its file, and the buckets are those that an owner would make
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv("MAKEIT3D_HOME", str(home))
            settings = load_settings()
            assert settings.is_sandbox
            expected = {settings.generated_assets_bucket_name: True, settings.input_bucket_names[0]: False}
            assert buckets(settings) == expected

            # a second one says who is here
            assert f"in use by process {process.pid}" in refused(free_port(), free_port())

            # what dies comes back: the API, the broker, the database
            for name, word in (("api", "app.cli api"), ("valkey", "valkey-server"), ("postgres", "bin/postgres")):
                for pid in children(process):
                    if word in command_line(pid):
                        os.kill(pid, signal.SIGKILL)
                until(lambda name=name: f"{name} was ended by SIGKILL" in log() and is_ready(api_port))
            assert buckets(settings) == expected

            # a polite stop leaves nothing
            pids = children(process)
            assert len(pids) == 7
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert not any(identity(pid) for pid in pids)

            # a taken port is named before anything starts
            with socket.create_server(("127.0.0.1", sandbox_port)):  # also while old connections linger there
                assert f"Port {sandbox_port} is in use by another program" in refused(api_port, sandbox_port)

            # and the next start has everything
            process = start(home, api_port, sandbox_port)
            until(lambda: process.poll() is not None or log().count("Ctrl-C stops everything") == 2)
            assert buckets(settings) == expected
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
