"""The schema: migrated, unharmed, and closed to those it is closed to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from app.db import doctor, storage_policies
from app.services.doctor.examination import CheckContext, Group, Seen
from app.services.doctor.findings import Code, Finding, Ill
from app.services.doctor.opening import DatabasePatient, open_database


@asynccontextmanager
async def _open(context: CheckContext) -> AsyncGenerator[DatabasePatient]:
    """Raises Ill: where migrations are missing, the rest follows from that."""
    try:
        async with open_database(context) as patient:
            found = await doctor.history(patient.database)
            if not found.migrated:
                raise Ill(Finding(Code.NOT_MIGRATED, "there is no table makeit3d.jobs"))
            if found.missing:
                raise Ill(Finding(Code.MIGRATIONS_MISSING, f"lacks {', '.join(found.missing)}"))
            yield patient
    except Ill as error:
        is_ours = error.finding is not None and error.finding.code in (Code.NOT_MIGRATED, Code.MIGRATIONS_MISSING)
        raise error if is_ours else Ill from None  # the group of the server tells the rest


async def _history(patient: DatabasePatient) -> Seen:
    found = await doctor.history(patient.database)
    findings: list[Finding] = []
    if found.unknown:
        findings.append(Finding(Code.SCHEMA_NEWER, ", ".join(found.unknown)))
    if found.changed:
        findings.append(Finding(Code.MIGRATION_CHANGED, ", ".join(found.changed)))
    return findings or ["migrated"]


async def _tables(patient: DatabasePatient) -> Seen:
    findings: list[Finding] = []
    for table, expected in doctor.expected_columns(patient.database.tables).items():
        there = await doctor.columns(patient.database, table)
        if there is None:
            findings.append(Finding(Code.TABLE_MISSING, f"public.{table}"))
        elif wrong := _differences(expected, there):
            findings.append(Finding(Code.COLUMNS_WRONG, f"{table}: {', '.join(wrong)}"))
    return findings


def _differences(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    missing = [f"no {name} ({kind})" for name, kind in wanted.items() if name not in there]
    return missing + [
        f"{name} is {there[name]}, not {kind}" for name, kind in wanted.items() if name in there and there[name] != kind
    ]


async def _rights(patient: DatabasePatient) -> Seen:
    found = await doctor.rights(patient.database)
    assets = set(patient.database.tables.names)
    inputs = patient.database.tables.inputs
    seen: list[Finding] = []
    if open_tables := [table.name for table in found if not table.row_security]:
        seen.append(Finding(Code.ROW_SECURITY_OFF, ", ".join(open_tables)))
    if limited := [table.name for table in found if not table.ours or table.hidden_rows]:
        seen.append(Finding(Code.ROLE_LIMITED, ", ".join(limited)))
    if unread := [table.name for table in found if table.name in assets and not table.users_read]:
        seen.append(Finding(Code.BROWSERS_MAY_NOT_READ, ", ".join(unread)))
    wide = [
        f"{table.name} ({rights})"
        for table in found
        if (rights := _too_much(table, may_delete=table.name == inputs, may_read=table.name in assets))
    ]
    if wide:
        seen.append(Finding(Code.BROWSERS_MAY_WRITE, ", ".join(wide)))
    return seen


def _too_much(table: doctor.Rights, *, may_delete: bool, may_read: bool) -> str:
    rights = [right for right in table.browsers_write.split() if right != "delete" or not may_delete]
    return " ".join([*rights, *(["select"] if table.browsers_read and not may_read else [])])


async def _storage_policies(patient: DatabasePatient) -> Seen:
    buckets = list(patient.settings.input_bucket_names)
    missing = await patient.database.fetch(storage_policies.MISSING, buckets=buckets)
    words = ", ".join(f"{row['command']} in {row['bucket']}" for row in missing)
    return [Finding(Code.STORAGE_POLICIES_MISSING, f"no policy for {words}")] if missing else []


async def _realtime(patient: DatabasePatient) -> Seen:
    missing = await doctor.unpublished(patient.database)
    if missing is None:
        return [Finding(Code.REALTIME_MISSING, "there is no publication supabase_realtime")]
    return [Finding(Code.REALTIME_MISSING, f"not published: {', '.join(missing)}")] if missing else []


SCHEMA = Group("schema", _open, (_history, _tables, _rights, _storage_policies, _realtime))
