"""The database server: can it be used, and will it do what the gateway relies on?"""

from __future__ import annotations

import time

import asyncpg

from app import urls
from app.db import doctor
from app.db.pool import UNREACHABLE
from app.services.doctor.examination import Group, Seen
from app.services.doctor.findings import Code, Finding
from app.services.doctor.opening import DatabasePatient, open_database

_OLDEST = 150_000
_SKEW_SECONDS = 5.0  # half of what tokens may be off
_HEARING_SECONDS = 2


async def _server(patient: DatabasePatient) -> Seen:
    server = patient.server
    if server.version_number < _OLDEST:
        return [Finding(Code.DATABASE_OLD, f"Postgres {server.version}")]
    if server.read_only:
        return [Finding(Code.DATABASE_READ_ONLY, "it is in recovery, or its transactions are read-only")]
    return [f"Postgres {server.version}"]


async def _clock(patient: DatabasePatient) -> Seen:
    before = time.time()
    server = await doctor.server(patient.database)
    after = time.time()
    skew = max(before - server.clock, server.clock - after, 0.0)
    if skew > _SKEW_SECONDS:
        direction = "behind" if server.clock < before else "ahead of"
        return [Finding(Code.CLOCK_SKEW, f"the database is {skew:.0f} s {direction} this machine")]
    return []


async def _notifications(patient: DatabasePatient) -> Seen:
    if patient.server.read_only:
        return []  # a replica can not send any
    settings = patient.settings
    dsn = (settings.database_listen_url or settings.database_url).get_secret_value()
    try:
        heard = await doctor.hears(patient.database, dsn, seconds=_HEARING_SECONDS)
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        return [Finding(Code.LISTEN_DEAF, f"{urls.place(dsn)} can not be listened to ({type(error).__name__})")]
    if heard:
        return ["notifications arrive"]
    return [Finding(Code.LISTEN_DEAF, f"nothing sent reached {urls.place(dsn)} within {_HEARING_SECONDS} s")]


DATABASE = Group("database", open_database, (_server, _clock, _notifications), silence=Code.DATABASE_UNREACHABLE)
