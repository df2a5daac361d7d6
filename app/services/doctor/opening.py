"""Opens the database as the gateway does, or says why that can not be."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from app import urls
from app.config import Settings
from app.db import doctor
from app.db.doctor import Server
from app.db.pool import UNREACHABLE, Database
from app.domain.asset_kinds import AssetKinds
from app.errors import ConfigurationError
from app.services.doctor.examination import CheckContext
from app.services.doctor.findings import Code, Finding, Ill


@dataclass(frozen=True, slots=True)
class DatabasePatient:
    context: CheckContext
    database: Database
    server: Server

    @property
    def settings(self) -> Settings:
        return self.context.settings


@asynccontextmanager
async def open_database(context: CheckContext) -> AsyncGenerator[DatabasePatient]:
    """Raises Ill."""
    async with open_server(context.settings, context.kinds) as (database, server):
        yield DatabasePatient(context, database, server)


@asynccontextmanager
async def open_server(settings: Settings, kinds: AssetKinds) -> AsyncGenerator[tuple[Database, Server]]:
    """Raises Ill."""
    try:
        database = await Database.open(settings, kinds, application_name="makeit3d doctor")
    except ConfigurationError as error:
        raise Ill(Finding(Code.SETTINGS_INVALID, error.detail or "a table's name")) from None
    except (OSError, ValueError, asyncpg.InterfaceError) as error:
        raise Ill(refusal(settings, error)) from None
    try:
        try:
            server = await doctor.server(database)
        except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
            raise Ill(refusal(settings, error)) from None
        yield database, server
    finally:
        await database.close()


@asynccontextmanager
async def open_migrated(context: CheckContext) -> AsyncGenerator[DatabasePatient]:
    """A database with every table of ours; without one there is nothing to look at that others would not tell.
    Raises Ill without a finding."""
    try:
        async with open_database(context) as patient:
            found = await doctor.history(patient.database)
            if found.missing or not found.migrated:
                raise Ill
            if any(table.hidden_rows or not table.ours for table in await doctor.rights(patient.database)):
                raise Ill
            yield patient
    except Ill:
        raise Ill from None


def refusal(settings: Settings, error: Exception) -> Finding:
    """Why the database could not be used. No message of the server or the driver is repeated: it may quote a secret."""
    where = urls.place(settings.database_url.get_secret_value())
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return Finding(Code.DATABASE_LOGIN, f"{where} refuses the login of DATABASE_URL ({type(error).__name__})")
        case asyncpg.InvalidCatalogNameError():
            return Finding(Code.DATABASE_MISSING, f"{where} has no database of that name")
        case asyncpg.TooManyConnectionsError():
            return Finding(Code.DATABASE_FULL, f"{where} takes no more connections")
        case asyncpg.CannotConnectNowError():
            return Finding(Code.DATABASE_UNREACHABLE, f"{where} is starting or stopping")
        case TimeoutError():
            return Finding(Code.DATABASE_UNREACHABLE, f"{where} does not answer")
        case _:
            return Finding(Code.DATABASE_UNREACHABLE, f"no connection to {where} ({type(error).__name__})")
