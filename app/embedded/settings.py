"""Settings of the embedded stack, and the gateway's settings that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.ai_clients.registry import ProviderRegistry
from app.config import NO_SUCH_VARIABLES, Settings, environment_of, explained
from app.sandbox_settings import SandboxSettings


class EmbeddedSettings(BaseSettings):
    """Where the embedded stack lives. Everything else it derives, or takes from the variables of ``Settings``."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", populate_by_name=True, env_prefix=NO_SUCH_VARIABLES
    )

    home: Path = Field(Path(".makeit3d"), alias="MAKEIT3D_HOME")
    api_port: int = Field(8000, alias="BFF_API_PORT", ge=1, le=65535)
    sandbox_port: int = Field(8001, alias="SANDBOX_PORT", ge=1, le=65535)

    @classmethod
    def load(cls) -> Self:
        """From the environment alone: an ``.env`` file describes production. Raises ConfigurationError."""
        try:
            return cls()  # pyright: ignore[reportCallIssue]
        except ValidationError as error:
            raise explained(error) from None

    def gateway(
        self, registry: ProviderRegistry, sandbox: SandboxSettings, *, database_url: str, redis_url: str
    ) -> Settings:
        """Settings of the gateway's processes: every far end is of this machine, limits come from the environment.

        Raises ConfigurationError.
        """
        given = environment_of(registry.settings)
        derived: dict[str, object] = {}
        for spec in registry.specs:
            derived |= {name: given.get(name, value) for name, value in spec.settings.quick.items()}
            if spec.name in sandbox.provider_keys:
                derived |= spec.settings.stand_in(sandbox.public_url, sandbox.provider_keys[spec.name])
        derived |= {
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
        }
        try:
            return registry.settings(_env_file=None, **derived)  # pyright: ignore[reportCallIssue, reportArgumentType]
        except ValidationError as error:
            raise explained(error) from None
