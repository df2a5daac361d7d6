"""Configuration, read in one place. Nothing else in the product looks at the environment.

``Settings.load()`` reads the environment and, where present, an ``.env`` file in the working directory.
``.env.example`` documents every name; a test keeps the two the same.
"""

from __future__ import annotations

import os
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import urls
from app.errors import ConfigurationError

# Variables are found by alias alone: code may use field names, but HOME or PORT of a shell must never be ours.
_NO_SUCH_VARIABLES = "makeit3d field: "

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseSettings):
    """Everything an operator can set for the gateway's API, workers, beat and command line."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=_NO_SUCH_VARIABLES
    )

    # where we run
    environment: Literal["production", "sandbox"] = Field("production", alias="MAKEIT3D_ENVIRONMENT")
    home: Path = Field(Path(".makeit3d"), alias="MAKEIT3D_HOME")
    public_base_url: str = Field("http://127.0.0.1:8000", alias="PUBLIC_BASE_URL")
    api_host: str = Field("127.0.0.1", alias="BFF_API_HOST")
    api_port: int = Field(8000, alias="BFF_API_PORT", ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", alias="BFF_LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", alias="BFF_LOG_FORMAT")
    metrics_token: SecretStr | None = Field(None, alias="BFF_METRICS_TOKEN", min_length=16)
    worker_metrics_host: str = Field("127.0.0.1", alias="BFF_WORKER_METRICS_HOST")
    worker_metrics_port: int | None = Field(None, alias="BFF_WORKER_METRICS_PORT", ge=1, le=65_520)
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), alias="BFF_CORS_ORIGINS")
    # the standard names: collectors and platforms set them for every program of a host
    otlp_endpoint: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_headers: SecretStr | None = Field(None, alias="OTEL_EXPORTER_OTLP_HEADERS")
    trace_ratio: float = Field(1.0, alias="OTEL_TRACES_SAMPLER_ARG", ge=0, le=1)

    # Supabase
    supabase_url: str = Field(alias="SUPABASE_URL")
    supabase_service_key: SecretStr = Field(alias="SUPABASE_SERVICE_KEY")
    supabase_jwt_secret: SecretStr | None = Field(None, alias="SUPABASE_JWT_SECRET")
    supabase_jwt_audience: str = Field("authenticated", alias="SUPABASE_JWT_AUDIENCE")
    supabase_timeout_seconds: float = Field(60.0, alias="BFF_SUPABASE_TIMEOUT_SECONDS", gt=0)
    generated_assets_bucket_name: str = Field("makeit3d_app_assets", alias="GENERATED_ASSETS_BUCKET_NAME")
    input_bucket_names: Annotated[tuple[str, ...], NoDecode] = Field(
        ("user_input_files_bucket",), alias="INPUT_BUCKET_NAMES", min_length=1
    )
    input_assets_table_name: str = Field("input_assets", alias="INPUT_ASSETS_TABLE_NAME")
    concept_images_table_name: str = Field("concept_images", alias="CONCEPT_IMAGES_TABLE_NAME")
    models_table_name: str = Field("models", alias="MODELS_TABLE_NAME")

    # database and broker
    database_url: SecretStr = Field(alias="DATABASE_URL")
    database_listen_url: SecretStr | None = Field(None, alias="DATABASE_LISTEN_URL")
    database_pool_size: int = Field(10, alias="BFF_DATABASE_POOL_SIZE", ge=2, le=100)
    database_statement_cache_size: int = Field(1024, alias="BFF_DATABASE_STATEMENT_CACHE_SIZE", ge=0)
    database_timeout_seconds: float = Field(10.0, alias="BFF_DATABASE_TIMEOUT_SECONDS", ge=1)
    redis_url: SecretStr = Field(alias="REDIS_URL")

    # providers
    openai_api_key: SecretStr = Field(alias="OPENAI_API_KEY")
    openai_base_url: str = Field("https://api.openai.com/v1", alias="OPENAI_BASE_URL")
    openai_image_model: str = Field("gpt-image-2", alias="OPENAI_IMAGE_MODEL")
    openai_timeout_seconds: float = Field(600.0, alias="BFF_OPENAI_TIMEOUT_SECONDS", gt=0)
    tripo_api_key: SecretStr = Field(alias="TRIPO_API_KEY")
    tripo_base_url: str = Field("https://openapi.tripo3d.ai/v3", alias="TRIPO_BASE_URL")
    tripo_model_version: str = Field("v3.1-20260211", alias="TRIPO_MODEL_VERSION")
    tripo_texture_version: str = Field("v3.5-20260815", alias="TRIPO_TEXTURE_VERSION")
    tripo_timeout_seconds: float = Field(120.0, alias="BFF_TRIPO_TIMEOUT_SECONDS", gt=0)
    tripo_poll_seconds: float = Field(3.0, alias="BFF_TRIPO_POLL_SECONDS", gt=0)
    tripo_download_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (".tripo3d.ai", ".tripo3d.com"), alias="BFF_TRIPO_DOWNLOAD_HOSTS"
    )
    sketch_renderer: Literal["openai", "tripo", "none"] = Field("openai", alias="BFF_SKETCH_RENDERER")

    # limits
    openai_requests_per_minute: int | None = Field(60, alias="BFF_OPENAI_REQUESTS_PER_MINUTE", ge=1)
    tripo_requests_per_minute: int | None = Field(30, alias="BFF_TRIPO_REQUESTS_PER_MINUTE", ge=1)
    user_max_in_flight: int | None = Field(None, alias="BFF_USER_MAX_IN_FLIGHT", ge=1)
    user_max_unfinished: int | None = Field(None, alias="BFF_USER_MAX_UNFINISHED", ge=1)
    user_daily_budget_usd: Decimal | None = Field(None, alias="BFF_USER_DAILY_BUDGET_USD", gt=0)
    connections_per_address: int = Field(512, alias="BFF_CONNECTIONS_PER_ADDRESS", ge=0)
    user_max_uploads: int = Field(6, alias="BFF_USER_MAX_UPLOADS", ge=1)
    upload_idle_seconds: float = Field(20.0, alias="BFF_UPLOAD_IDLE_SECONDS", gt=0)
    upload_bytes_per_second: int = Field(8192, alias="BFF_UPLOAD_BYTES_PER_SECOND", ge=1)
    upload_seconds: float = Field(600.0, alias="BFF_UPLOAD_SECONDS", gt=0)
    openai_slots: int = Field(20, alias="BFF_OPENAI_SLOTS", ge=1)
    tripo_h_slots: int = Field(10, alias="BFF_TRIPO_H_SLOTS", ge=1)
    tripo_p_slots: int = Field(3, alias="BFF_TRIPO_P_SLOTS", ge=1)
    tripo_image_slots: int = Field(1, alias="BFF_TRIPO_IMAGE_SLOTS", ge=1)
    tripo_texture_slots: int = Field(5, alias="BFF_TRIPO_TEXTURE_SLOTS", ge=1)
    local_slots: int = Field(1000, alias="BFF_LOCAL_SLOTS", ge=1)
    max_input_bytes: int = Field(20 * 1024 * 1024, alias="BFF_MAX_INPUT_BYTES", ge=1024)
    max_input_pixels: int = Field(64_000_000, alias="BFF_MAX_INPUT_PIXELS", ge=65_536)
    picture_processes: int = Field(2, alias="BFF_PICTURE_PROCESSES", ge=1, le=64)
    picture_cpu_seconds: int = Field(20, alias="BFF_PICTURE_CPU_SECONDS", ge=1)
    max_model_bytes: int = Field(500 * 1024 * 1024, alias="BFF_MAX_MODEL_BYTES", ge=1024)
    max_image_bytes: int = Field(64 * 1024 * 1024, alias="BFF_MAX_IMAGE_BYTES", ge=1024)
    spool_keep_hours: float = Field(24.0, alias="BFF_SPOOL_KEEP_HOURS", ge=0)
    spool_bytes: int = Field(4 * 1024 * 1024 * 1024, alias="BFF_SPOOL_BYTES", ge=16 * 1024 * 1024)

    # workers
    worker_slots: int = Field(500, alias="BFF_WORKER_SLOTS", ge=1)
    worker_ttl_seconds: float = Field(15.0, alias="BFF_WORKER_TTL_SECONDS", ge=1)
    sweep_seconds: float = Field(5.0, alias="BFF_SWEEP_SECONDS", ge=0.05)
    settle_window_ms: float = Field(4.0, alias="BFF_SETTLE_WINDOW_MS", ge=0)
    shutdown_grace_seconds: float = Field(630.0, alias="BFF_SHUTDOWN_GRACE_SECONDS", ge=1)
    max_attempts: int = Field(4, alias="BFF_MAX_ATTEMPTS", ge=1)
    max_crashes: int = Field(5, alias="BFF_MAX_CRASHES", ge=1)
    generate_images_seconds: float = Field(1800.0, alias="BFF_TIME_LIMIT_GENERATE_IMAGES_SECONDS", gt=0)
    render_sketch_seconds: float = Field(1800.0, alias="BFF_TIME_LIMIT_RENDER_SKETCH_SECONDS", gt=0)
    generate_model_seconds: float = Field(3600.0, alias="BFF_TIME_LIMIT_GENERATE_MODEL_SECONDS", gt=0)
    refine_model_seconds: float = Field(3600.0, alias="BFF_TIME_LIMIT_REFINE_MODEL_SECONDS", gt=0)
    call_give_up_seconds: float = Field(21_600.0, alias="BFF_CALL_GIVE_UP_SECONDS", gt=0)
    retry_base_seconds: float = Field(2.0, alias="BFF_RETRY_BASE_SECONDS", gt=0)
    retry_cap_seconds: float = Field(120.0, alias="BFF_RETRY_CAP_SECONDS", gt=0)
    max_wait_seconds: float = Field(3600.0, alias="BFF_MAX_WAIT_SECONDS", gt=0)
    breaker_failures: int = Field(5, alias="BFF_BREAKER_FAILURES", ge=1)
    breaker_cool_down_seconds: float = Field(10.0, alias="BFF_BREAKER_COOL_DOWN_SECONDS", gt=0)
    breaker_longest_cool_down_seconds: float = Field(300.0, alias="BFF_BREAKER_LONGEST_COOL_DOWN_SECONDS", gt=0)
    openai_paid_retry: bool = Field(default=False, alias="BFF_OPENAI_PAID_RETRY")
    reconcile_first_seconds: float = Field(30.0, alias="BFF_RECONCILE_FIRST_SECONDS", ge=0)
    reconcile_window_seconds: float = Field(900.0, alias="BFF_RECONCILE_WINDOW_SECONDS", gt=0)
    priority_threshold: int = Field(90, alias="BFF_PRIORITY_THRESHOLD", ge=0, le=100)

    @field_validator("cors_origins", "input_bucket_names", "tripo_download_hosts", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object, info: ValidationInfo) -> object:
        """An empty variable is no value, where a setting may have none."""
        field = cls.model_fields[str(info.field_name)]
        return None if value == "" and type(None) in get_args(field.annotation) else value

    @field_validator("supabase_url", "public_base_url", "openai_base_url", "tripo_base_url", "otlp_endpoint")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        urls.refuse(urls.web_fault, value)
        return value.rstrip("/")

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _database_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.refuse(urls.database_fault, value.get_secret_value())
        return value

    @field_validator("supabase_service_key", "openai_api_key", "tripo_api_key")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        if not all("!" <= letter <= "~" for letter in value.get_secret_value()):
            raise ValueError("it has a character that no key has, such as the … of .env.example or a blank")
        return value

    @field_validator("redis_url")
    @classmethod
    def _broker_address(cls, value: SecretStr) -> SecretStr:
        urls.refuse(urls.broker_fault, value.get_secret_value())
        return value

    @classmethod
    def load(cls) -> Self:
        """Settings of this process. Raises ConfigurationError naming each setting that is missing or wrong."""
        settings = cls.read()
        settings.refuse_sandbox_in_production()
        return settings

    @classmethod
    def read(cls) -> Self:
        """As ``load``, also where production would use the sandbox: for whoever examines them."""
        files: tuple[Path, ...] = (Path(".env"),)
        if not files[0].exists() and "SUPABASE_URL" not in os.environ:
            # nothing was configured: the embedded stack of this directory says where it is
            files = (Path(os.environ.get("MAKEIT3D_HOME", ".makeit3d")) / "settings.env",)
        try:
            return cls(_env_file=files)  # pyright: ignore[reportCallIssue]
        except ValidationError as error:
            raise _explained(error) from None

    def refuse_sandbox_in_production(self) -> None:
        """A production start with a stand-in's address or key is refused by name."""
        if self.environment != "production":
            return
        suspects = {
            "SUPABASE_URL": self.supabase_url,
            "OPENAI_BASE_URL": self.openai_base_url,
            "TRIPO_BASE_URL": self.tripo_base_url,
        }
        for name, url in suspects.items():
            if urlsplit(url).hostname in LOOPBACK:
                raise ConfigurationError(
                    f"{name} is {url}, an address of this machine, but MAKEIT3D_ENVIRONMENT is production. "
                    f"Set {name} to the real service, or MAKEIT3D_ENVIRONMENT=sandbox."
                )
        secrets = {
            "SUPABASE_SERVICE_KEY": self.supabase_service_key,
            "OPENAI_API_KEY": self.openai_api_key,
            "TRIPO_API_KEY": self.tripo_api_key,
        }
        for name, secret in secrets.items():
            value = secret.get_secret_value()
            if not value.strip() or "sandbox" in value:
                raise ConfigurationError(f"{name} is empty or a sandbox key: set the real one.")

    @property
    def is_sandbox(self) -> bool:
        return self.environment == "sandbox"

    @property
    def time_limits(self) -> dict[str, float]:
        """How long a job may take once work began, in seconds by job type."""
        return {
            "generate_images": self.generate_images_seconds,
            "render_sketch": self.render_sketch_seconds,
            "generate_model": self.generate_model_seconds,
            "refine_model": self.refine_model_seconds,
        }

    @cached_property
    def jwt_issuer(self) -> str:
        return f"{self.supabase_url}/auth/v1"

    @property
    def jwks_url(self) -> str:
        return f"{self.jwt_issuer}/.well-known/jwks.json"

    @property
    def spool_directory(self) -> Path:
        """Where replies and downloads lie while they pass through; emptied of leftovers at start."""
        return self.home / "spool"


class SandboxSettings(BaseSettings):
    """Settings of the sandbox process (stand-ins for Supabase, OpenAI and Tripo)."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", populate_by_name=True, env_prefix=_NO_SUCH_VARIABLES
    )

    home: Path = Field(Path(".makeit3d/sandbox"), alias="SANDBOX_HOME")
    host: str = Field("127.0.0.1", alias="SANDBOX_HOST")
    port: int = Field(8001, alias="SANDBOX_PORT", ge=1, le=65535)
    public_url: str = Field("http://127.0.0.1:8001", alias="SANDBOX_PUBLIC_URL")
    database_url: SecretStr = Field(alias="SANDBOX_DATABASE_URL")
    supabase_service_key: SecretStr = Field(SecretStr("sb_secret_sandbox"), alias="SANDBOX_SERVICE_KEY")
    supabase_publishable_key: SecretStr = Field(SecretStr("sb_publishable_sandbox"), alias="SANDBOX_PUBLISHABLE_KEY")
    openai_api_key: SecretStr = Field(SecretStr("sk-sandbox"), alias="SANDBOX_OPENAI_API_KEY")
    tripo_api_key: SecretStr = Field(SecretStr("tsk_sandbox"), alias="SANDBOX_TRIPO_API_KEY")
    admin_key: SecretStr = Field(SecretStr("sandbox-admin"), alias="SANDBOX_ADMIN_KEY")
    seed: int = Field(0, alias="SANDBOX_SEED")
    storage_file_size_limit: int = Field(50 * 1024 * 1024, alias="SANDBOX_STORAGE_FILE_SIZE_LIMIT", ge=1)
    work_seconds: float = Field(2.0, alias="SANDBOX_WORK_SECONDS", ge=0)
    knobs: str = Field("{}", alias="SANDBOX_KNOBS", description="JSON: where the providers' knobs stand at start")

    @classmethod
    def beside(cls, *, home: Path, port: int, database_url: str) -> Self:
        """The sandbox of an embedded stack; ``SANDBOX_*`` variables win. Raises ConfigurationError."""
        derived = {
            "SANDBOX_HOME": home / "sandbox",
            "SANDBOX_PORT": port,
            "SANDBOX_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "SANDBOX_DATABASE_URL": database_url,
            # raised as an operator raises a project's limit: to what the gateway may store
            "SANDBOX_STORAGE_FILE_SIZE_LIMIT": os.environ.get("BFF_MAX_MODEL_BYTES")
            or Settings.model_fields["max_model_bytes"].default,
        }
        try:
            return cls.model_validate(derived | _environment_of(cls))
        except ValidationError as error:
            raise _explained(error) from None


class SandboxAdminSettings(BaseSettings):
    """How a command of ours asks a running sandbox for its books."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=_NO_SUCH_VARIABLES
    )

    admin_key: SecretStr = Field(SecretStr("sandbox-admin"), alias="SANDBOX_ADMIN_KEY")


class EmbeddedSettings(BaseSettings):
    """Where the embedded stack lives. Everything else it derives, or takes from the variables of ``Settings``."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", populate_by_name=True, env_prefix=_NO_SUCH_VARIABLES
    )

    home: Path = Field(Path(".makeit3d"), alias="MAKEIT3D_HOME")
    api_port: int = Field(8000, alias="BFF_API_PORT", ge=1, le=65535)
    sandbox_port: int = Field(8001, alias="SANDBOX_PORT", ge=1, le=65535)
    tripo_poll_seconds: float = Field(1.0, alias="BFF_TRIPO_POLL_SECONDS", gt=0)  # the sandbox is quick

    @classmethod
    def load(cls) -> Self:
        """From the environment alone: an ``.env`` file describes production. Raises ConfigurationError."""
        try:
            return cls()  # pyright: ignore[reportCallIssue]
        except ValidationError as error:
            raise _explained(error) from None

    def gateway(self, sandbox: SandboxSettings, *, database_url: str, redis_url: str) -> Settings:
        """Settings of the gateway's processes: every far end is of this machine, limits come from the environment.

        Raises ConfigurationError.
        """
        derived = {
            "MAKEIT3D_ENVIRONMENT": "sandbox",
            "MAKEIT3D_HOME": self.home.absolute(),
            "PUBLIC_BASE_URL": f"http://127.0.0.1:{self.api_port}",
            "BFF_API_PORT": self.api_port,
            "SUPABASE_URL": f"{sandbox.public_url}/supabase",
            "SUPABASE_SERVICE_KEY": sandbox.supabase_service_key,
            "SUPABASE_JWT_SECRET": None,
            "DATABASE_URL": database_url,
            "DATABASE_LISTEN_URL": database_url,
            "REDIS_URL": redis_url,
            "OPENAI_API_KEY": sandbox.openai_api_key,
            "OPENAI_BASE_URL": f"{sandbox.public_url}/openai/v1",
            "TRIPO_API_KEY": sandbox.tripo_api_key,
            "TRIPO_BASE_URL": f"{sandbox.public_url}/tripo/v3",
            "BFF_TRIPO_DOWNLOAD_HOSTS": urlsplit(sandbox.public_url).hostname,
            "BFF_TRIPO_POLL_SECONDS": self.tripo_poll_seconds,
        }
        try:
            return Settings(_env_file=None, **derived)  # pyright: ignore[reportCallIssue, reportArgumentType]
        except ValidationError as error:
            raise _explained(error) from None


class ClientSettings(BaseSettings):
    """Who the command line is when it talks to a gateway as an app would."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=_NO_SUCH_VARIABLES
    )

    url: str = Field("http://127.0.0.1:8000", alias="MAKEIT3D_URL")
    token: SecretStr | None = Field(None, alias="MAKEIT3D_TOKEN")
    user_id: str | None = Field(None, alias="MAKEIT3D_USER_ID")


def variables(settings: BaseSettings) -> dict[str, str]:
    """Every setting as an environment variable. One without a value is empty: left out, it would get its default."""
    return {str(field.alias): _plain(getattr(settings, name)) for name, field in type(settings).model_fields.items()}


def child_environment(*settings: BaseSettings) -> dict[str, str]:
    """The environment of a child process: ours, with every setting of these spelled out."""
    env = dict(os.environ)
    for part in settings:
        env |= variables(part)
    return env


def _explained(error: ValidationError) -> ConfigurationError:
    """Names each setting that is missing or wrong; never shows a value."""
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]
    return ConfigurationError(f"{'; '.join(faults)}. Set these in the environment or in .env (see .env.example).")


def _environment_of(kind: type[BaseSettings]) -> dict[str, str]:
    aliases = {str(field.alias) for field in kind.model_fields.values()}
    return {name: value for name, value in os.environ.items() if name in aliases}


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


__all__ = ["ClientSettings", "EmbeddedSettings", "SandboxSettings", "Settings", "child_environment", "variables"]
