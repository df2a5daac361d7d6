"""Fills tables in seconds: copies of a task that was accepted the normal way, with all rows that hang on it."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

import asyncpg

# what differs from copy to copy; an id is made of the original's, the salt and the number, so that rows find each other
_ID = "md5({column}::text || $2 || n)::uuid"
_CHANGED: Mapping[str, Mapping[str, str]] = {
    "makeit3d.tasks": {"id": _ID + "::text"},
    "makeit3d.requests": {"id": _ID, "task_id": _ID + "::text", "job_id": _ID, "scope": "scope || $2 || n"},
    "makeit3d.jobs": {"id": _ID, "task_id": _ID + "::text", "request_id": _ID, "fair_tag": "fair_tag + n"},
    "models": {"id": _ID, "task_id": _ID + "::text", "request_id": _ID, "job_id": _ID},
    "concept_images": {"id": _ID, "task_id": _ID + "::text", "request_id": _ID, "job_id": _ID},
}
_AT_A_TIME = 20_000


async def copy_task(connection: asyncpg.Connection, task_id: str, copies: int) -> list[str]:
    """Add copies of a task, its requests, jobs and asset rows; the ids of the new tasks."""
    salt = uuid4().hex
    for first in range(0, copies, _AT_A_TIME):
        last = min(first + _AT_A_TIME, copies)
        for table in _CHANGED:
            await connection.execute(await _statement(connection, table), task_id, salt, first, last - 1)
    await connection.execute("analyze makeit3d.tasks, makeit3d.requests, makeit3d.jobs, models, concept_images")
    rows = await connection.fetch(
        "select md5($1::text || $2 || n)::uuid::text as id from generate_series(0, $3::integer - 1) as n",
        task_id,
        salt,
        copies,
    )
    return [row["id"] for row in rows]


async def _columns(connection: asyncpg.Connection, table: str) -> list[str]:
    """Those that can be written."""
    rows = await connection.fetch(
        "select attname from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped"
        " and attidentity = '' and attgenerated = '' order by attnum",
        table,
    )
    return [row["attname"] for row in rows]


async def _statement(connection: asyncpg.Connection, table: str) -> str:
    names = await _columns(connection, table)
    changed = _CHANGED[table]
    values = [changed[name].format(column=f"t.{name}") if name in changed else f"t.{name}" for name in names]
    key = "id" if table == "makeit3d.tasks" else "task_id"
    return (
        f"insert into {table} ({', '.join(names)}) select {', '.join(values)}"  # noqa: S608 - names of the catalogue
        f" from {table} t, generate_series($3::integer, $4::integer) as n where t.{key} = $1"
    )


async def copy_job(connection: asyncpg.Connection, job_id: UUID, copies: int) -> None:
    """Add claimable copies of a job within its task: a backlog of any size."""
    names = await _columns(connection, "makeit3d.jobs")
    changed = {"id": "gen_random_uuid()", "chunk": "n", "fair_tag": "t.fair_tag + n"}
    values = [changed.get(name, f"t.{name}") for name in names]
    # the copies point where the original does: nothing is looked up a million times
    await connection.execute("set session_replication_role = replica")
    await connection.execute(
        f"insert into makeit3d.jobs ({', '.join(names)}) select {', '.join(values)}"  # noqa: S608 - names of the catalogue
        " from makeit3d.jobs t, generate_series(1, $2::integer) as n where t.id = $1",
        job_id,
        copies,
        timeout=600,
    )
    await connection.execute("set session_replication_role = default")
    await connection.execute("vacuum analyze makeit3d.jobs", timeout=600)
