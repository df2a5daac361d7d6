"""Whether the time that jobs have goes with the settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.ai_clients.registry import ProviderRegistry
from app.config import Settings
from app.errors import ConfigurationError
from app.job_types.registry import JobTypes
from app.services.doctor.examination import Group, Seen, by_settings
from app.services.doctor.findings import Code, Finding


def job_types_group(job_types: JobTypes, providers: ProviderRegistry) -> Group[Settings]:
    """Checks of the settings of these job types."""

    async def time_limits(settings: Settings) -> Seen:
        try:
            limits = job_types.time_limits(settings)
        except ConfigurationError as error:
            return [Finding(Code.SETTINGS_INVALID, error.detail or "")]
        parts = [spec.settings.of(settings) for spec in providers.specs]
        slowest = max(parts, key=lambda part: part.timeout_seconds)
        name, longest = slowest.variable("timeout_seconds"), slowest.timeout_seconds
        paid = [job_type.name for job_type in job_types if job_type.permit == "paid"]
        short = [f"BFF_TIME_LIMITS gives {kind} {limits[kind]:.0f}" for kind in paid if limits[kind] <= longest]
        if short:
            return [Finding(Code.TIME_LIMIT_SHORT, f"{', '.join(short)}; {name} is {longest:.0f}")]
        return [f"{len(limits)} registered"]

    return Group("job types", by_settings(_open), (time_limits,))


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[Settings]:
    yield settings
