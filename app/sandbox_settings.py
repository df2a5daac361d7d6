"""Settings of the sandbox process, and of who talks to its own interface."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config import NO_SUCH_VARIABLES, Settings, environment_of, explained


class SandboxSettings(BaseSettings):
    """Settings of the sandbox process (stand-ins for Supabase, OpenAI and Tripo)."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", populate_by_name=True, env_prefix=NO_SUCH_VARIABLES
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

    @property
    def provider_keys(self) -> dict[str, SecretStr]:
        """The key of each provider's stand-in."""
        return {"openai": self.openai_api_key, "tripo": self.tripo_api_key}

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
            return cls.model_validate(derived | environment_of(cls))
        except ValidationError as error:
            raise explained(error) from None


class SandboxAdminSettings(BaseSettings):
    """How a command of ours asks a running sandbox for its books."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, env_prefix=NO_SUCH_VARIABLES
    )

    admin_key: SecretStr = Field(SecretStr("sandbox-admin"), alias="SANDBOX_ADMIN_KEY")
