"""Before a process or a command starts: what stands in its way, in one line that says what to do."""

from __future__ import annotations

import asyncio

import structlog

from app.config import Settings
from app.errors import ConfigurationError
from app.observability import configure_logging
from app.services.doctor.disk import disk_obstacle
from app.services.doctor.findings import Code, Finding
from app.services.doctor.starting import broker_obstacle, database_obstacle

log = structlog.get_logger(__name__)


def settings_to_start(settings: Settings, *, database: bool = True) -> Settings:
    """The same settings, with logging set up. Raises ConfigurationError where it could not work. Without its
    broker, or on a full disk, it can, later: that is only said."""
    configure_logging(settings)
    disk = disk_obstacle(settings)
    if disk is not None and disk.code is Code.SPOOL_NOT_WRITABLE:
        raise ConfigurationError(_sentence(disk))
    obstacle, broker = asyncio.run(_look(settings, database=database))
    if obstacle is not None:
        raise ConfigurationError(_sentence(obstacle))
    for lasting in (disk, broker):
        if lasting is not None:
            entry = lasting.entry
            log.error(entry.code, seen=lasting.seen, meaning=entry.meaning, do=entry.remedy)
    return settings


def require_database(settings: Settings, *, migrated: bool = True) -> None:
    """For commands that work on the database. Raises ConfigurationError where they could not."""
    configure_logging(settings.model_copy(update={"log_level": "ERROR"}))  # what they print is for people and programs
    obstacle = asyncio.run(database_obstacle(settings, migrated=migrated))
    if obstacle is not None:
        raise ConfigurationError(_sentence(obstacle))


async def _look(settings: Settings, *, database: bool) -> tuple[Finding | None, Finding | None]:
    broker = asyncio.create_task(broker_obstacle(settings))
    return await database_obstacle(settings) if database else None, await broker


def _sentence(finding: Finding) -> str:
    entry = finding.entry
    return f"{entry.code}: {finding.seen}; {entry.remedy}. `makeit3d doctor` looks further."
