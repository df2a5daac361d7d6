"""The groups that look at the installation, and where settings come from."""

from __future__ import annotations

from typing import Any

from app.ai_clients.registry import ProviderRegistry
from app.config import Settings
from app.errors import ConfigurationError
from app.services.doctor.api import API
from app.services.doctor.broker import BROKER
from app.services.doctor.database import DATABASE
from app.services.doctor.examination import Examined, Group
from app.services.doctor.findings import Code, Finding
from app.services.doctor.identity import IDENTITY
from app.services.doctor.providers import providers_group
from app.services.doctor.schema import SCHEMA
from app.services.doctor.settings import SETTINGS
from app.services.doctor.storage import STORAGE
from app.services.doctor.workers import WORKERS


def groups(providers: ProviderRegistry) -> tuple[Group[Any], ...]:
    """Of every installation with these providers."""
    return (SETTINGS, DATABASE, SCHEMA, BROKER, STORAGE, IDENTITY, providers_group(providers), API, WORKERS)


def read_settings(providers: ProviderRegistry) -> Settings | Examined:
    """The settings, or, where they can not be read, all that can be said."""
    try:
        return providers.settings.read()
    except ConfigurationError as error:
        return Examined(SETTINGS.name, (Finding(Code.SETTINGS_INVALID, error.detail or ""),))
