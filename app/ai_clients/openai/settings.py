"""OpenAI's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, SecretStr

from app.ai_clients.spec import ProviderSettings
from app.config import Key, ServiceAddress


class OpenAISettings(ProviderSettings):
    prefix: ClassVar[str] = "openai"

    api_key: Key = Field(alias="OPENAI_API_KEY")
    base_url: ServiceAddress = Field("https://api.openai.com/v1", alias="OPENAI_BASE_URL")
    image_model: str = Field("gpt-image-2", alias="OPENAI_IMAGE_MODEL")
    timeout_seconds: float = Field(600.0, alias="BFF_OPENAI_TIMEOUT_SECONDS", gt=0)
    requests_per_minute: int | None = Field(60, alias="BFF_OPENAI_REQUESTS_PER_MINUTE", ge=1)
    slots: int = Field(20, alias="BFF_OPENAI_SLOTS", ge=1)
    paid_retry: bool = Field(default=False, alias="BFF_OPENAI_PAID_RETRY")

    def pools(self) -> Mapping[str, int]:
        return {"openai": self.slots}

    @classmethod
    def stand_in(cls, url: str, key: SecretStr) -> Mapping[str, object]:
        return {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": key}
