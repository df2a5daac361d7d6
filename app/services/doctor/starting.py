"""What a process that starts says at once, instead of a traceback or of silence."""

from __future__ import annotations

from app.config import Settings
from app.db import doctor
from app.domain.asset_kinds import AssetKinds
from app.services.doctor.broker import open_broker
from app.services.doctor.findings import Code, Finding, Ill
from app.services.doctor.opening import open_server


async def database_obstacle(settings: Settings, *, migrated: bool = True) -> Finding | None:
    """Why nothing of the gateway can work with its database; None where it can. Not ``migrated`` is good enough for
    who is about to do that."""
    try:
        async with open_server(settings, AssetKinds(())) as (database, _):
            if migrated and not await doctor.is_migrated(database):
                return Finding(Code.NOT_MIGRATED, "there is no table makeit3d.jobs")
    except Ill as error:
        return error.finding
    return None


async def broker_obstacle(settings: Settings) -> Finding | None:
    """Why the broker can not be used; None where it can."""
    try:
        async with open_broker(settings):
            return None
    except Ill as error:
        return error.finding
