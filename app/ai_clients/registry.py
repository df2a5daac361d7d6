"""Which providers there are. A provider is one file and one line in ``build_providers``; the first that offers an
operation is its default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from app.ai_clients.base import ImageProvider, ModelProvider
from app.ai_clients.http import shared_ssl_context
from app.ai_clients.openai_client import OpenAIImages
from app.ai_clients.tripo_client import TripoModels
from app.config import Settings
from app.domain.operations import Operation
from app.errors import AppError, ErrorCode

_Provider = TypeVar("_Provider", ImageProvider, ModelProvider)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool of paid (or local) work: whose it is and how many calls may be open at once."""

    provider: str
    slots: int


class Providers:
    """Providers by name and by operation. ``aclose`` closes them all."""

    def __init__(self, *, images: Iterable[ImageProvider] = (), models: Iterable[ModelProvider] = ()) -> None:
        self._images = {provider.name: provider for provider in images}
        self._models = {provider.name: provider for provider in models}

    def images(self, name: str | None, operation: Operation) -> ImageProvider:
        """The named image provider, or the default of the operation. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        return _offering(self._images, name, operation)

    def models(self, name: str | None, operation: Operation) -> ModelProvider:
        """The named model provider, or the default of the operation. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        return _offering(self._models, name, operation)

    def image_provider(self, name: str | None) -> ImageProvider:
        """The image provider of a job. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        return _named(self._images, name)

    def model_provider(self, name: str | None) -> ModelProvider:
        """The model provider of a job. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        return _named(self._models, name)

    @property
    def all_models(self) -> Mapping[str, ModelProvider]:
        """Every model provider by name; each is polled by a loop of its own."""
        return self._models

    @property
    def names(self) -> frozenset[str]:
        return frozenset({*self._images, *self._models})

    async def aclose(self) -> None:
        await asyncio.gather(*(provider.aclose() for provider in (*self._images.values(), *self._models.values())))


def build_providers(settings: Settings) -> Providers:
    """The providers of this process, with their HTTP clients."""
    context = shared_ssl_context()
    return Providers(
        images=[OpenAIImages(settings, context)],
        models=[TripoModels(settings, context)],
    )


def pools(settings: Settings) -> dict[str, PoolSpec]:
    """Every pool by name, with the slots that the accounts have by settings."""
    return {
        "openai": PoolSpec("openai", settings.openai_slots),
        "tripo_h": PoolSpec("tripo", settings.tripo_h_slots),
        "tripo_p": PoolSpec("tripo", settings.tripo_p_slots),
        "tripo_image": PoolSpec("tripo", settings.tripo_image_slots),
        "tripo_texture": PoolSpec("tripo", settings.tripo_texture_slots),
        "local": PoolSpec("local", settings.local_slots),
    }


def _named(providers: Mapping[str, _Provider], name: str | None) -> _Provider:
    provider = providers.get(name) if name is not None else None
    if provider is None:
        raise AppError(ErrorCode.PROVIDER_NOT_AVAILABLE, "The job's provider is not one of this gateway's.")
    return provider


def _offering(providers: Mapping[str, _Provider], name: str | None, operation: Operation) -> _Provider:
    if name is None:
        offers = [provider for provider in providers.values() if operation in provider.operations]
    else:
        offers = [p for p in (providers.get(name),) if p is not None and operation in p.operations]
    if not offers:
        known = sorted(key for key, provider in providers.items() if operation in provider.operations)
        raise AppError(
            ErrorCode.PROVIDER_NOT_AVAILABLE,
            f"No such provider for {operation.value}. Available: {', '.join(known) or 'none'}.",
        )
    return offers[0]
