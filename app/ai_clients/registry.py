"""Which providers there are: one line each in ``build_registry``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from pydantic import create_model

from app.ai_clients.base import Capability, PolledProvider, Provider
from app.ai_clients.http.client import shared_ssl_context
from app.ai_clients.openai.spec import OPENAI
from app.ai_clients.spec import ProviderSpec, flattened
from app.ai_clients.tripo.spec import TRIPO
from app.config import Settings
from app.errors import AppError, ErrorCode

LOCAL = "local"  # the pool of work that no provider does


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool of paid (or local) work: whose it is and how many calls may be open at once."""

    provider: str
    slots: int


class ProviderRegistry:
    """The providers of a process, in order: the first that has a capability is its default. Frozen: nothing is added
    later."""

    def __init__(self, specs: Iterable[ProviderSpec]) -> None:
        self.specs: Sequence[ProviderSpec] = tuple(specs)

    @cached_property
    def settings(self) -> type[Settings]:
        """The gateway's settings with those of every provider."""
        fields = flattened([spec.settings for spec in self.specs])
        return create_model("Settings", __base__=Settings, __module__=__name__, **fields)

    def pools(self, settings: Settings) -> dict[str, PoolSpec]:
        """Every pool by name, with the slots that the accounts have by settings."""
        found = {
            pool: PoolSpec(spec.name, slots)
            for spec in self.specs
            for pool, slots in spec.settings.of(settings).pools().items()
        }
        return {**found, LOCAL: PoolSpec(LOCAL, settings.local_slots)}

    def requests_per_minute(self, settings: Settings) -> dict[str, int | None]:
        """How many requests of one user a minute a provider may get; None: no limit."""
        return {spec.name: spec.settings.of(settings).requests_per_minute for spec in self.specs}

    def build(self, settings: Settings) -> Providers:
        """The providers of this process, with their HTTP clients."""
        context = shared_ssl_context()
        return Providers(spec.build(settings, context) for spec in self.specs)


class Providers:
    """Providers by name and by capability. ``aclose`` closes them all."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = {provider.name: provider for provider in providers}

    def named(self, name: str | None) -> Provider:
        """The provider of a job. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        provider = self._providers.get(name) if name is not None else None
        if provider is None:
            raise AppError(ErrorCode.PROVIDER_NOT_AVAILABLE, "The job's provider is not one of this gateway's.")
        return provider

    def offering(self, name: str | None, capability: Capability, *, wanted: str | None = None) -> Provider:
        """The named provider, or the default of the capability. ``wanted`` is what the client asked for, where that has
        another name. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        offers = [provider for provider in self._providers.values() if capability in provider.capabilities]
        for provider in offers:
            if name in (None, provider.name):
                return provider
        known = ", ".join(sorted(provider.name for provider in offers)) or "none"
        raise AppError(
            ErrorCode.PROVIDER_NOT_AVAILABLE, f"No such provider for {wanted or capability.value}. Available: {known}."
        )

    @property
    def polled(self) -> Mapping[str, PolledProvider]:
        """Every polled provider by name; each is polled by a loop of its own."""
        return {name: found for name, found in self._providers.items() if isinstance(found, PolledProvider)}

    @property
    def all(self) -> Mapping[str, Provider]:
        return self._providers

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._providers)

    async def aclose(self) -> None:
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))


def load_settings() -> Settings:
    """Settings of this process. Raises ConfigurationError naming each setting that is missing or wrong."""
    return build_registry().settings.load()


@cache
def build_registry() -> ProviderRegistry:
    """A provider is one line here."""
    return ProviderRegistry(
        (
            OPENAI,
            TRIPO,
        )
    )
