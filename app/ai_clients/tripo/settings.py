"""Tripo's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import NoDecode

from app.ai_clients.spec import Observation, ProviderSettings, Trouble
from app.ai_clients.tripo.limits import CALLS_AT_A_TIME, LEAST_POLL_SECONDS, ModelVersion, TextureVersion
from app.config import Commas, Key, ServiceAddress


class TripoSettings(ProviderSettings):
    prefix: ClassVar[str] = "tripo"
    quick: ClassVar[Mapping[str, object]] = {"BFF_TRIPO_POLL_SECONDS": 1.0}

    api_key: Key = Field(alias="TRIPO_API_KEY")
    base_url: ServiceAddress = Field("https://openapi.tripo3d.ai/v3", alias="TRIPO_BASE_URL")
    model_version: str = Field("v3.1-20260211", alias="TRIPO_MODEL_VERSION")
    texture_version: str = Field("v3.5-20260815", alias="TRIPO_TEXTURE_VERSION")
    timeout_seconds: float = Field(120.0, alias="BFF_TRIPO_TIMEOUT_SECONDS", gt=0)
    poll_seconds: float = Field(3.0, alias="BFF_TRIPO_POLL_SECONDS", gt=0)
    download_hosts: Annotated[tuple[str, ...], NoDecode, Commas] = Field(
        (".tripo3d.ai", ".tripo3d.com"), alias="BFF_TRIPO_DOWNLOAD_HOSTS"
    )
    requests_per_minute: int | None = Field(30, alias="BFF_TRIPO_REQUESTS_PER_MINUTE", ge=1)
    h_slots: int = Field(10, alias="BFF_TRIPO_H_SLOTS", ge=1)
    p_slots: int = Field(3, alias="BFF_TRIPO_P_SLOTS", ge=1)
    image_slots: int = Field(1, alias="BFF_TRIPO_IMAGE_SLOTS", ge=1)
    texture_slots: int = Field(5, alias="BFF_TRIPO_TEXTURE_SLOTS", ge=1)

    def pools(self) -> Mapping[str, int]:
        return {
            "tripo_h": self.h_slots,
            "tripo_p": self.p_slots,
            "tripo_image": self.image_slots,
            "tripo_texture": self.texture_slots,
        }

    def observations(self, *, in_production: bool) -> Sequence[Observation]:
        seen = [
            Observation(
                f"BFF_{name.upper()}_SLOTS is {slots}, an account usually has {CALLS_AT_A_TIME[name]}",
                Trouble.SLOTS_ABOVE_ACCOUNT,
            )
            for name, slots in self.pools().items()
            if CALLS_AT_A_TIME[name] < slots
        ]
        versions = {
            "TRIPO_MODEL_VERSION": (self.model_version, get_args(ModelVersion)),
            "TRIPO_TEXTURE_VERSION": (self.texture_version, get_args(TextureVersion)),
        }
        seen += [
            Observation(f"{name} is {value!r}; known: {', '.join(known)}", Trouble.MODEL_UNKNOWN)
            for name, (value, known) in versions.items()
            if value not in known
        ]
        if in_production and self.poll_seconds < LEAST_POLL_SECONDS:
            seen.append(Observation(f"BFF_TRIPO_POLL_SECONDS is {self.poll_seconds:g}", Trouble.POLLING_FAST))
        return seen

    @classmethod
    def stand_in(cls, url: str, key: SecretStr) -> Mapping[str, object]:
        return {
            "TRIPO_BASE_URL": f"{url}/tripo/v3",
            "TRIPO_API_KEY": key,
            "BFF_TRIPO_DOWNLOAD_HOSTS": urlsplit(url).hostname,
        }
