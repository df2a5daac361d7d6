"""The doctor as a whole, and what it finds outside of the gateway: broker, storage, identity, providers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import pytest
import redis
from app.ai_clients.openai.settings import OpenAISettings
from app.config import Settings, child_environment
from app.domain.broker_url import redis_py_url
from app.embedded.valkey import EmbeddedValkey
from app.services.doctor.api import API
from app.services.doctor.broker import BROKER
from app.services.doctor.examination import Examined, Group, Seen, by_settings, examine
from app.services.doctor.findings import Code, Finding
from app.services.doctor.identity import IDENTITY
from app.services.doctor.providers import providers_group
from app.services.doctor.storage import STORAGE
from pydantic import SecretStr

from tests.chaos.databases import run_sql
from tests.integration import test_doctor_database
from tests.integration.doctor_world import REGISTRY, Outside, answering, examined
from tests.servers import PostgresServer, free_port
from tests.unit.doctor import test_settings

PROVIDERS = providers_group(REGISTRY.providers)
SUPABASE = (STORAGE, IDENTITY)

Plant = Callable[[Outside], AbstractContextManager[Settings]]


@pytest.fixture(scope="module")
def outside(
    postgres18: PostgresServer, valkey_server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Outside]:
    with Outside.built(postgres18, valkey_server, tmp_path_factory.mktemp("doctor")) as healthy:
        yield healthy


def changed(**changes: Any) -> Plant:  # noqa: ANN401 - values of any field
    return lambda outside: nullcontext(outside.world.changed(**changes))


def nowhere(**templates: str) -> Plant:
    """Addresses at which nobody listens."""
    return lambda outside: nullcontext(
        outside.world.changed(**{name: text.format(port=free_port()) for name, text in templates.items()})
    )


def broker(command: tuple[str, ...], undo: tuple[str, ...]) -> Plant:
    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        with redis.Redis.from_url(redis_py_url(outside.valkey.url())) as client:
            client.execute_command(*command)
            try:
                yield outside.settings
            finally:
                client.execute_command(*undo)

    return plant


def bucket(which: str, undo: dict[str, Any], **properties: Any) -> Plant:  # noqa: ANN401 - JSON
    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        settings = outside.settings
        name = settings.generated_assets_bucket_name if which == "results" else settings.input_bucket_names[0]
        outside.bucket("PUT", name, **properties)
        try:
            yield settings
        finally:
            outside.bucket("PUT", name, **undo)

    return plant


@contextlib.contextmanager
def gone_private(outside: Outside) -> Generator[Settings]:
    """Results are there from the time when the bucket was public."""
    bucket_name = outside.settings.generated_assets_bucket_name
    url = f"{outside.settings.supabase_url}/storage/v1/object/public/{bucket_name}/models/a/model.glb"
    run_sql(outside.world.dsn, "insert into models (task_id, status, asset_url) values ('a', 'complete', $1)", url)
    try:
        with bucket("results", {"public": True}, public=False)(outside) as settings:
            yield settings
    finally:
        run_sql(outside.world.dsn, "delete from models")


@contextlib.contextmanager
def small_project(outside: Outside) -> Generator[Settings]:
    """A project that takes 50 MiB, whatever its buckets say; a killed doctor left its bucket there, and another doctor
    takes its own away just now."""
    settings = outside.settings

    def bucket(name: str, *, public: bool = False) -> dict[str, object]:
        moment = "2026-11-28T00:00:00+00:00"
        times = {"created_at": moment, "updated_at": moment}
        bounds = {"file_size_limit": None, "allowed_mime_types": None}
        return {"id": name, "name": name, "owner": "", "public": public, **times, **bounds}

    results, inputs = settings.generated_assets_bucket_name, settings.input_bucket_names[0]
    left, gone = bucket("makeit3d-doctor-probe-left"), bucket("makeit3d-doctor-probe-gone")
    not_found = {"statusCode": "404", "error": "Bucket not found", "message": "Bucket not found"}
    too_large = {"statusCode": "413", "error": "Payload too large", "message": "The object exceeded the maximum size"}
    answers: dict[str, tuple[int, object]] = {
        f"/storage/v1/bucket/{results}": (200, bucket(results, public=True)),
        f"/storage/v1/bucket/{inputs}": (200, bucket(inputs)),
        "/storage/v1/bucket": (200, [bucket(results), gone, left]),
        "POST /storage/v1/bucket": (413, too_large),
        f"DELETE /storage/v1/bucket/{gone['id']}": (404, not_found),
        f"DELETE /storage/v1/bucket/{left['id']}": (200, {"message": "Successfully deleted"}),
    }
    with answering(answers) as url:
        yield outside.world.changed(supabase_url=url)


def struck(where: str, kind: str, **how: Any) -> Plant:  # noqa: ANN401 - JSON
    """The provider's stand-in misbehaves, for as long as it is asked."""

    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        outside.admin("POST", "/faults", {"where": where, "kind": kind, "count": None, **how})
        try:
            yield outside.settings
        finally:
            outside.admin("DELETE", "/faults")

    return plant


def balance(amount: str) -> Plant:
    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        outside.admin("POST", "/balance", {"balance": amount})
        try:
            yield outside.settings
        finally:
            outside.admin("POST", "/balance", {"balance": "10000"})

    return plant


@contextlib.contextmanager
def silent_broker(outside: Outside) -> Generator[Settings]:
    """Accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield outside.world.changed(redis_url=SecretStr(f"redis://:hunter2@127.0.0.1:{server.getsockname()[1]}/0"))


def legacy_project(verdict: str, *, keys: int = 0, secret: SecretStr | None = None) -> Plant:
    """A project that signs with a shared secret, and what its Auth says of a token with ours."""

    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        answers: dict[str, tuple[int, object]] = {
            "/auth/v1/.well-known/jwks.json": (200, {"keys": [{"kty": "EC"}] * keys}),
            "/auth/v1/user": (403, {"code": verdict, "message": "…"}),
        }
        with answering(answers) as url:
            yield outside.world.changed(supabase_url=url, supabase_jwt_secret=secret)

    return plant


@contextlib.contextmanager
def another_gateway(outside: Outside) -> Generator[Settings]:
    with answering({"/health/live": (200, {"status": "ok", "environment": "production"})}) as url:
        yield outside.world.changed(public_base_url=url)


def openai_says(status: int, code: str) -> Plant:
    @contextlib.contextmanager
    def plant(outside: Outside) -> Generator[Settings]:
        error = {"error": {"message": "…", "type": "invalid_request_error", "param": None, "code": code}}
        with answering({f"/models/{OpenAISettings.of(outside.settings).image_model}": (status, error)}) as url:
            yield outside.world.changed(openai_base_url=url)

    return plant


def legacy_key(role: str) -> SecretStr:
    """As Supabase made them before ``sb_`` keys."""
    claims = base64.urlsafe_b64encode(json.dumps({"role": role, "iss": "supabase"}).encode()).decode().rstrip("=")
    return SecretStr(f"eyJhbGciOiJIUzI1NiJ9.{claims}.hunter2")


SHARED = SecretStr("hunter2-and-some-more-to-be-long-enough")

PLANTS: list[tuple[str, Plant, tuple[Group[Any], ...], tuple[str, ...]]] = [
    (
        "broker_unreachable",
        lambda o: nullcontext(o.world.changed(redis_url=SecretStr(f"redis://:hunter2@127.0.0.1:{free_port()}/0"))),
        (BROKER,),
        ("127.0.0.1",),
    ),
    ("broker_unreachable", silent_broker, (BROKER,), ("does not answer",)),
    ("broker_unreachable", changed(redis_url=SecretStr("redis://:hunter2@broker.invalid/0")), (BROKER,), ("invalid",)),
    (
        "broker_login",
        broker(("config", "set", "requirepass", "right"), ("config", "set", "requirepass", "")),
        (BROKER,),
        (),
    ),
    (
        "broker_read_only",
        broker(("replicaof", "127.0.0.1", "1"), ("replicaof", "no", "one")),
        (BROKER,),
        ("127.0.0.1",),
    ),
    (
        "broker_evicts",
        broker(
            ("config", "set", "maxmemory-policy", "allkeys-lru"), ("config", "set", "maxmemory-policy", "noeviction")
        ),
        (BROKER,),
        ("allkeys-lru",),
    ),
    (
        "broker_full",
        broker(("config", "set", "maxmemory", "1100kb"), ("config", "set", "maxmemory", "0")),
        (BROKER,),
        ("bytes",),
    ),
    ("publishable_key", changed(supabase_service_key=SecretStr("sb_publishable_sandbox")), SUPABASE, ()),
    ("publishable_key", changed(supabase_service_key=legacy_key("anon")), SUPABASE, ()),
    ("storage_key_refused", changed(supabase_service_key=SecretStr("sb_secret_hunter2")), SUPABASE, ("403",)),
    ("storage_key_refused", changed(supabase_service_key=legacy_key("service_role")), SUPABASE, ("403",)),
    ("storage_unreachable", nowhere(supabase_url="http://127.0.0.1:{port}"), (STORAGE,), ("127.0.0.1",)),
    ("bucket_missing", changed(generated_assets_bucket_name="no_such_bucket"), (STORAGE,), ("no_such_bucket",)),
    ("bucket_missing", changed(input_bucket_names=("user_input_files_bucket", "x")), (STORAGE,), ("x",)),
    ("input_bucket_public", bucket("inputs", {"public": False}, public=True), (STORAGE,), ("user_input_files_bucket",)),
    ("input_bucket_public", changed(input_bucket_names=("makeit3d_app_assets",)), (STORAGE,), ("makeit3d_app_assets",)),
    ("results_unreadable", gone_private, (STORAGE,), ("private",)),
    (
        "bucket_limit_small",
        bucket("inputs", {"file_size_limit": None}, file_size_limit=50 * 2**20),
        (STORAGE,),
        ("user_input_files_bucket", "52,428,800", "157,286,400"),
    ),
    (
        "bucket_types",
        bucket("inputs", {"allowed_mime_types": None}, allowed_mime_types=["image/*"]),
        (STORAGE,),
        ("user_input_files_bucket", "model/gltf-binary"),
    ),
    (
        "bucket_limit_small",
        bucket("results", {"file_size_limit": None}, file_size_limit=50 * 2**20),
        (STORAGE,),
        ("52,428,800", "524,288,000"),
    ),
    (
        "project_limit_small",
        small_project,
        (STORAGE,),
        ("524,288,000",),
    ),
    (
        "bucket_types",
        bucket("results", {"allowed_mime_types": None}, allowed_mime_types=["image/*"]),
        (STORAGE,),
        ("refuses model/gltf-binary",),
    ),
    (
        "bucket_types",
        bucket("results", {"allowed_mime_types": None}, allowed_mime_types=["*/*"]),
        (STORAGE,),
        ("refuses image/png, image/jpeg, image/webp, model/gltf-binary",),
    ),
    ("jwks_unreachable", nowhere(supabase_url="http://127.0.0.1:{port}"), (IDENTITY,), ("ConnectError",)),
    ("jwks_unreachable", lambda o: nullcontext(o.world.changed(supabase_url=o.sandbox.url)), (IDENTITY,), ("404",)),
    ("jwt_secret_missing", legacy_project("bad_jwt"), (IDENTITY,), ()),
    ("jwt_secret_wrong", legacy_project("bad_jwt", secret=SHARED), (IDENTITY,), ()),
    ("jwt_secret_wrong", changed(supabase_jwt_secret=SHARED), SUPABASE, ()),
    (
        "provider_unreachable",
        nowhere(openai_base_url="http://127.0.0.1:{port}"),
        (PROVIDERS,),
        ("openai", "ConnectError"),
    ),
    ("provider_unreachable", nowhere(tripo_base_url="http://127.0.0.1:{port}"), (PROVIDERS,), ("tripo",)),
    ("provider_unreachable", struck("tripo.account", "status", status=500), (PROVIDERS,), ("tripo",)),
    ("provider_unreachable", openai_says(500, "server_error"), (PROVIDERS,), ("openai answered 500",)),
    ("provider_key_refused", changed(openai_api_key=SecretStr("sk-hunter2")), (PROVIDERS,), ("openai",)),
    ("provider_key_refused", changed(tripo_api_key=SecretStr("tsk_hunter2")), (PROVIDERS,), ("tripo",)),
    ("provider_forbids", openai_says(403, "unsupported_country_region_territory"), (PROVIDERS,), ("openai",)),
    ("model_unavailable", changed(openai_image_model="gpt-image-1"), (PROVIDERS,), ("gpt-image-1",)),
    ("balance_empty", balance("0"), (PROVIDERS,), ("tripo: 0.00 credits left",)),
    ("balance_empty", openai_says(429, "insufficient_quota"), (PROVIDERS,), ("openai",)),
    ("balance_low", balance("599"), (PROVIDERS,), ("599.00",)),
    ("api_unreachable", nowhere(public_base_url="http://127.0.0.1:{port}"), (API,), ("ConnectError",)),
    ("api_unreachable", lambda o: nullcontext(o.world.changed(public_base_url=o.sandbox.url)), (API,), ("404",)),
    ("api_unreachable", another_gateway, (API,), ("'production'",)),
]


@pytest.mark.parametrize(
    ("code", "plant", "groups", "words"), PLANTS, ids=[f"{n}-{plant[0]}" for n, plant in enumerate(PLANTS)]
)
def test_each_is_found_alone(
    outside: Outside, code: str, plant: Plant, groups: tuple[Group[Any], ...], words: tuple[str, ...]
) -> None:
    with plant(outside) as settings:
        findings = examined(settings, groups)
    assert {finding.entry.code for finding in findings} == {code}, findings
    seen = " ".join(finding.seen for finding in findings)
    assert [word for word in words if word not in seen] == []
    assert "hunter2" not in seen


def test_a_healthy_installation_has_no_findings(outside: Outside) -> None:
    assert examined(outside.settings) == []


@pytest.mark.parametrize(
    "plant",
    [
        legacy_project("session_not_found", secret=SHARED),
        legacy_project("user_not_found", keys=1, secret=SHARED),
        legacy_project("bad_jwt", keys=1),
    ],
)
def test_shared_secrets_that_are_right_or_not_needed(outside: Outside, plant: Plant) -> None:
    with plant(outside) as settings:
        assert examined(settings, (IDENTITY,)) == []


def test_every_code_has_a_plant() -> None:
    planted = {plant[0] for plant in (*PLANTS, *test_doctor_database.PLANTS, *test_settings.PLANTS)}
    elsewhere = {"settings_invalid", "spool_not_writable", "time_limit_short"}  # tests/unit/{doctor,job_types}
    below = {"no_answer", "check_broke"}
    assert planted | elsewhere | below == {code.value.code for code in Code}


def test_warnings_alone_are_no_failure(outside: Outside) -> None:
    settings = outside.world.changed(tripo_texture_version="v9-20300101")
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "--patience", "60"],
        env=child_environment(settings),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 9  # groups, all but that of settings
    assert "! settings   model_unknown" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("doctor: 0 errors, 1 warning in")


# --- one check never stops the others ---------------------------------------------------------------------------


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[Settings]:
    yield settings


async def _hangs(settings: Settings) -> Seen:
    await asyncio.Event().wait()
    return [str(settings.home)]


async def _breaks(settings: Settings) -> Seen:
    raise ZeroDivisionError(settings.supabase_service_key.get_secret_value())


async def _finds(settings: Settings) -> Seen:
    return [Finding(Code.BALANCE_LOW, "x"), f"{settings.environment}"]


@asynccontextmanager
async def _never_opens(settings: Settings) -> AsyncGenerator[Settings]:
    await asyncio.Event().wait()
    yield settings


async def test_what_hangs_or_breaks_is_said_and_stops_nothing(outside: Outside) -> None:
    groups = [
        Group("one", by_settings(_open), (_hangs, _breaks, _finds)),
        Group("two", by_settings(_never_opens), (_finds,)),
    ]
    seen = {
        group.group: group
        async for group in examine(REGISTRY.check_context(outside.settings), groups, patience_seconds=0.2)
    }
    assert seen["one"] == Examined(
        "one",
        (
            Finding(Code.NO_ANSWER, "hangs: nothing within 0.2 s"),
            Finding(Code.CHECK_BROKE, "one, breaks: ZeroDivisionError"),
            Finding(Code.BALANCE_LOW, "x"),
        ),
        ("sandbox",),
    )
    assert seen["two"] == Examined("two", (Finding(Code.NO_ANSWER, "two: nothing within 0.2 s"),))


@pytest.mark.parametrize("group", [STORAGE, IDENTITY, PROVIDERS, API], ids=lambda group: group.name)
async def test_silence_is_said_as_what_it_means(outside: Outside, group: Group[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and says nothing
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        names = ("supabase_url", "openai_base_url", "tripo_base_url", "public_base_url")
        settings = outside.world.changed(**dict.fromkeys(names, url))
        (seen,) = [group async for group in examine(REGISTRY.check_context(settings), [group], patience_seconds=0.2)]
    assert {finding.code for finding in seen.findings} == {group.silence}
