"""Tripo as a provider of the gateway."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from app.ai_clients.base import Provider
from app.ai_clients.spec import Observation, ProviderSpec
from app.ai_clients.tripo.limits import CAPABILITIES
from app.ai_clients.tripo.prices import PRICE_VERSION
from app.ai_clients.tripo.settings import TripoSettings
from app.config import Settings


def _build(settings: Settings, context: ssl.SSLContext) -> Provider:
    from app.ai_clients.tripo.client import TripoModels

    return TripoModels(settings, context)


async def _check(settings: Settings) -> Sequence[Observation]:
    from app.ai_clients.tripo.check import check

    return await check(settings)


TRIPO = ProviderSpec(
    name="tripo",
    settings=TripoSettings,
    capabilities=CAPABILITIES,
    price_version=PRICE_VERSION,
    build=_build,
    check=_check,
)
