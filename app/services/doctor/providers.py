"""Providers: do they answer, take the keys, have the models, and is there money?"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from app.ai_clients.registry import ProviderRegistry
from app.ai_clients.spec import Observation, ProviderSpec
from app.config import Settings
from app.services.doctor.examination import Group, Seen, by_settings
from app.services.doctor.findings import Code, Finding


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[Settings]:
    yield settings


def seen_of(observations: Sequence[Observation]) -> Seen:
    """A provider's observations as findings: both have the same names."""
    return [item.seen if item.trouble is None else Finding(Code[item.trouble.name], item.seen) for item in observations]


def _check_of(spec: ProviderSpec) -> Callable[[Settings], Awaitable[Seen]]:
    async def check(settings: Settings) -> Seen:
        return seen_of(await spec.check(settings))

    check.__name__ = spec.name  # by which silence is told
    return check


def providers_group(registry: ProviderRegistry) -> Group[Settings]:
    """One check for each provider, with a time of its own."""
    checks = tuple(_check_of(spec) for spec in registry.specs)
    return Group("providers", by_settings(_open), checks, silence=Code.PROVIDER_UNREACHABLE)
