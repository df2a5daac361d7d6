"""Configuration, read in one place. Nothing else in the product looks at the environment.

``Settings.load()`` reads the environment and, where present, an ``.env`` file in the working directory.
``.env.example`` documents every name; a test keeps the two the same.
"""

from __future__ import annotations

import os
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import urls
from app.errors import ConfigurationError

# Variables are found by alias alone: code may use field names, but HOME or PORT of a shell must never be ours.
NO_SUCH_VARIABLES = "makeit3d field: "

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class FarEnd(Enum):
    """Marks what leads to a service that is not ours: in production never a stand-in's."""

    ADDRESS = "address"
    KEY = "key"


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _web_address(value: str) -> str:
    urls.refuse(urls.web_fault, value)
    return value.rstrip("/")


def _key(value: SecretStr) -> SecretStr:
    if not all("!" <= letter <= "~" for letter in value.get_secret_value()):
        raise ValueError("it has a character that no key has, such as the … of .env.example or a blank")
    return value


Commas = BeforeValidator(_split_commas)  # beside NoDecode
ServiceAddress = Annotated[str, AfterValidator(_web_address), FarEnd.ADDRESS]
Key = Annotated[SecretStr, AfterValidator(_key), FarEnd.KEY]


class Settings(BaseSettings):
    """What an operator can set for the gateway's API, workers, beat and command line. The processes' settings are
    ``ProviderRegistry.settings``: these, and those of every provider."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=NO_SUCH_VARIABLES
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
    cors_origins: Annotated[tuple[str, ...], NoDecode, Commas] = Field((), alias="BFF_CORS_ORIGINS")
    # the standard names: collectors and platforms set them for every program of a host
    otlp_endpoint: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_headers: SecretStr | None = Field(None, alias="OTEL_EXPORTER_OTLP_HEADERS")
    trace_ratio: float = Field(1.0, alias="OTEL_TRACES_SAMPLER_ARG", ge=0, le=1)

    # Supabase
    supabase_url: ServiceAddress = Field(alias="SUPABASE_URL")
    supabase_service_key: Key = Field(alias="SUPABASE_SERVICE_KEY")
    supabase_jwt_secret: SecretStr | None = Field(None, alias="SUPABASE_JWT_SECRET")
    supabase_jwt_audience: str = Field("authenticated", alias="SUPABASE_JWT_AUDIENCE")
    supabase_timeout_seconds: float = Field(60.0, alias="BFF_SUPABASE_TIMEOUT_SECONDS", gt=0)
    generated_assets_bucket_name: str = Field("makeit3d_app_assets", alias="GENERATED_ASSETS_BUCKET_NAME")
    input_bucket_names: Annotated[tuple[str, ...], NoDecode, Commas] = Field(
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
    sketch_renderer: str | None = Field(None, alias="BFF_SKETCH_RENDERER", pattern=r"^[a-z0-9_-]{1,32}$")

    # limits
    user_max_in_flight: int | None = Field(None, alias="BFF_USER_MAX_IN_FLIGHT", ge=1)
    user_max_unfinished: int | None = Field(None, alias="BFF_USER_MAX_UNFINISHED", ge=1)
    user_daily_budget_usd: Decimal | None = Field(None, alias="BFF_USER_DAILY_BUDGET_USD", gt=0)
    connections_per_address: int = Field(512, alias="BFF_CONNECTIONS_PER_ADDRESS", ge=0)
    user_max_uploads: int = Field(6, alias="BFF_USER_MAX_UPLOADS", ge=1)
    upload_idle_seconds: float = Field(20.0, alias="BFF_UPLOAD_IDLE_SECONDS", gt=0)
    upload_bytes_per_second: int = Field(8192, alias="BFF_UPLOAD_BYTES_PER_SECOND", ge=1)
    upload_seconds: float = Field(600.0, alias="BFF_UPLOAD_SECONDS", gt=0)
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
    time_limits: Annotated[dict[str, Annotated[float, Field(gt=0)]], NoDecode] = Field(
        default_factory=dict[str, float], alias="BFF_TIME_LIMITS"
    )
    call_give_up_seconds: float = Field(21_600.0, alias="BFF_CALL_GIVE_UP_SECONDS", gt=0)
    retry_base_seconds: float = Field(2.0, alias="BFF_RETRY_BASE_SECONDS", gt=0)
    retry_cap_seconds: float = Field(120.0, alias="BFF_RETRY_CAP_SECONDS", gt=0)
    max_wait_seconds: float = Field(3600.0, alias="BFF_MAX_WAIT_SECONDS", gt=0)
    breaker_failures: int = Field(5, alias="BFF_BREAKER_FAILURES", ge=1)
    breaker_cool_down_seconds: float = Field(10.0, alias="BFF_BREAKER_COOL_DOWN_SECONDS", gt=0)
    breaker_longest_cool_down_seconds: float = Field(300.0, alias="BFF_BREAKER_LONGEST_COOL_DOWN_SECONDS", gt=0)
    reconcile_first_seconds: float = Field(30.0, alias="BFF_RECONCILE_FIRST_SECONDS", ge=0)
    reconcile_window_seconds: float = Field(900.0, alias="BFF_RECONCILE_WINDOW_SECONDS", gt=0)
    priority_threshold: int = Field(90, alias="BFF_PRIORITY_THRESHOLD", ge=0, le=100)

    @field_validator("time_limits", mode="before")
    @classmethod
    def _name_is_seconds(cls, value: object) -> object:
        """``generate_images=900,refine_model=7200``"""
        if not isinstance(value, str):
            return value
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        return {name.strip(): seconds.strip() for name, _, seconds in parts}

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object, info: ValidationInfo) -> object:
        """An empty variable is no value, where a setting may have none."""
        field = cls.model_fields[str(info.field_name)]
        return None if value == "" and type(None) in get_args(field.annotation) else value

    @field_validator("public_base_url", "otlp_endpoint")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        return None if value is None else _web_address(value)

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _database_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.refuse(urls.database_fault, value.get_secret_value())
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
            raise explained(error) from None

    def refuse_sandbox_in_production(self) -> None:
        """A production start with a stand-in's address or key is refused by name."""
        if self.environment != "production":
            return
        for name, url in self.service_addresses().items():
            if urlsplit(url).hostname in LOOPBACK:
                raise ConfigurationError(
                    f"{name} is {url}, an address of this machine, but MAKEIT3D_ENVIRONMENT is production. "
                    f"Set {name} to the real service, or MAKEIT3D_ENVIRONMENT=sandbox."
                )
        for name, secret in self._marked(FarEnd.KEY).items():
            value = secret.get_secret_value()
            if not value.strip() or "sandbox" in value:
                raise ConfigurationError(f"{name} is empty or a sandbox key: set the real one.")

    def service_addresses(self) -> dict[str, str]:
        """The addresses of the services that the gateway works with, by variable."""
        return self._marked(FarEnd.ADDRESS)

    def secrets(self) -> list[str]:
        """Every secret value, such as may never be logged."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    def _marked(self, mark: FarEnd) -> dict[str, Any]:
        fields = type(self).model_fields.items()
        return {str(field.alias): getattr(self, name) for name, field in fields if mark in field.metadata}

    @property
    def is_sandbox(self) -> bool:
        return self.environment == "sandbox"

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


class ClientSettings(BaseSettings):
    """Who the command line is when it talks to a gateway as an app would."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=NO_SUCH_VARIABLES
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


def explained(error: ValidationError) -> ConfigurationError:
    """Names each setting that is missing or wrong; never shows a value."""
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]
    return ConfigurationError(f"{'; '.join(faults)}. Set these in the environment or in .env (see .env.example).")


def environment_of(kind: type[BaseSettings]) -> dict[str, str]:
    aliases = {str(field.alias) for field in kind.model_fields.values()}
    return {name: value for name, value in os.environ.items() if name in aliases}


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return ",".join(f"{name}={part}" for name, part in value.items())  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
