"""What a provider brings along: everything that the core asks of it, in one value."""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretStr

from app.ai_clients.base import Capability, Provider
from app.ai_clients.limits import Limits
from app.config import Settings


class Trouble(StrEnum):
    """What can be wrong with a provider, by the names of the doctor's findings."""

    PROVIDER_UNREACHABLE = "provider_unreachable"
    PROVIDER_KEY_REFUSED = "provider_key_refused"
    PROVIDER_FORBIDS = "provider_forbids"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_UNKNOWN = "model_unknown"
    BALANCE_EMPTY = "balance_empty"
    BALANCE_LOW = "balance_low"
    SLOTS_ABOVE_ACCOUNT = "slots_above_account"
    POLLING_FAST = "polling_fast"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a check saw. Without ``trouble`` it is worth a word when nothing is wrong."""

    seen: str
    trouble: Trouble | None = None


class ProviderSettings(BaseModel):
    """A provider's settings. They lie in a process's ``Settings`` under ``<prefix>_<name>``; the alias is the
    environment variable. Types and validators belong into the annotation, such as ``config.Key``."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, protected_namespaces=())

    prefix: ClassVar[str]
    quick: ClassVar[Mapping[str, object]] = {}  # variables and their defaults beside the sandbox, which is quick

    timeout_seconds: float  # how long a paid call may stay open
    requests_per_minute: int | None  # of one user

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """This provider's part of a process's settings."""
        return cls.model_validate({name: getattr(settings, f"{cls.prefix}_{name}") for name in cls.model_fields})

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a field."""
        return str(cls.model_fields[name].alias)

    @abstractmethod
    def pools(self) -> Mapping[str, int]:
        """Every pool with the calls that may be open in it at once. A pool's setting is ``BFF_<POOL>_SLOTS``."""

    def observations(self, *, in_production: bool) -> Sequence[Observation]:
        """What does not fit what is known of the provider."""
        del in_production
        return ()

    @classmethod
    def stand_in(cls, url: str, key: SecretStr) -> Mapping[str, object]:
        """The variables that lead to the provider's stand-in in the sandbox at this address."""
        del url, key
        return {}


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """``price_version`` names the table that estimates and costs come from. ``check`` asks the provider, for nothing,
    whether it can work. ``build`` is called once per process."""

    name: str
    settings: type[ProviderSettings]
    capabilities: Mapping[Capability, Limits]
    price_version: str
    build: Callable[[Settings, ssl.SSLContext], Provider]
    check: Callable[[Settings], Awaitable[Sequence[Observation]]]


def flattened(parts: Sequence[type[ProviderSettings]]) -> dict[str, Any]:
    """The fields of these settings as ``Settings`` has them."""
    return {
        f"{part.prefix}_{name}": (field.annotation, field)
        for part in parts
        for name, field in part.model_fields.items()
    }
