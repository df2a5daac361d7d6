"""OpenAI as a provider of the gateway."""

from __future__ import annotations

import ssl

from app.ai_clients.base import Provider
from app.ai_clients.openai.check import check
from app.ai_clients.openai.limits import CAPABILITIES
from app.ai_clients.openai.prices import PRICE_VERSION
from app.ai_clients.openai.settings import OpenAISettings
from app.ai_clients.spec import ProviderSpec
from app.config import Settings


def _build(settings: Settings, context: ssl.SSLContext) -> Provider:
    from app.ai_clients.openai.client import OpenAIImages

    return OpenAIImages(settings, context)


OPENAI = ProviderSpec(
    name="openai",
    settings=OpenAISettings,
    capabilities=CAPABILITIES,
    price_version=PRICE_VERSION,
    build=_build,
    check=check,
)
