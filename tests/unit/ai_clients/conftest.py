from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
from app.ai_clients.http import shared_ssl_context
from app.ai_clients.openai_client import OpenAIImages

from tests.unit.ai_clients.support import make_settings


@pytest.fixture(scope="session")
def context() -> ssl.SSLContext:
    return shared_ssl_context()


@pytest.fixture
async def openai(context: ssl.SSLContext) -> AsyncIterator[OpenAIImages]:
    client = OpenAIImages(make_settings(), context)
    yield client
    await client.aclose()
