"""Whose command line it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from app.ai_clients.registry import ProviderRegistry
from app.ai_clients.registry import build_registry as built_in_providers
from app.config import Settings

if TYPE_CHECKING:
    from app.registry import Registry


@dataclass(frozen=True)
class Program:
    """The product, or a gateway with plugins: that has a registry of its own, and a module by which its processes are
    started (``python -m``)."""

    make_registry: Callable[[], Registry] | None = None
    module: str = "app.cli"

    @cached_property
    def registry(self) -> Registry:
        if self.make_registry is not None:
            return self.make_registry()
        from app.container import build_registry  # it is heavy, and most commands do without

        return build_registry()

    @property
    def providers(self) -> ProviderRegistry:
        return built_in_providers() if self.make_registry is None else self.registry.providers

    def settings(self) -> Settings:
        """Of this process. Raises ConfigurationError naming each setting that is missing or wrong."""
        return self.providers.settings.load()
