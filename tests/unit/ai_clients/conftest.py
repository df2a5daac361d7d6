from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
from app.ai_clients.http.client import shared_ssl_context
from app.ai_clients.openai.client import OpenAIImages
from app.ai_clients.tripo.api import Pace
from app.ai_clients.tripo.client import TripoModels

from tests.unit.ai_clients.support import make_settings


@pytest.fixture(scope="session")
def context() -> ssl.SSLContext:
    return shared_ssl_context()


@pytest.fixture
async def openai(context: ssl.SSLContext) -> AsyncIterator[OpenAIImages]:
    client = OpenAIImages(make_settings(), context)
    yield client
    await client.aclose()


@pytest.fixture
async def tripo(context: ssl.SSLContext) -> AsyncIterator[TripoModels]:
    client = TripoModels(make_settings(), context, pace=Pace(base=0.001, cap=0.01))
    yield client
    await client.aclose()
