"""What subscribers to table changes see, read from logical replication of the ``supabase_realtime`` publication."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import pytest
from app.db import assets
from app.db.pool import Database
from app.domain.jobs import Completed, Settlement, StoredFile

from tests import kernel
from tests.integration.factories import accept, make_user, make_worker, sketch_plan

pytestmark = pytest.mark.generate


@dataclass
class ChangeReader:
    """Decodes the pgoutput messages that Realtime itself reads: relations, inserts and updates."""

    tables: dict[int, tuple[str, list[str]]] = field(default_factory=dict[int, tuple[str, list[str]]])
    seen: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])  # table, id, status

    def read(self, message: bytes) -> None:
        match message[:1]:
            case b"R":
                self._relation(message)
            case b"I":
                self._row(message, 5)
            case b"U":
                self._update(message)
            case _:
                pass

    def _relation(self, message: bytes) -> None:
        (oid,) = struct.unpack_from(">I", message, 1)
        at = message.index(b"\0", 5) + 1
        end = message.index(b"\0", at)
        name = message[at:end].decode()
        at = end + 2
        (count,) = struct.unpack_from(">H", message, at)
        at += 2
        columns: list[str] = []
        for _ in range(count):
            end = message.index(b"\0", at + 1)
            columns.append(message[at + 1 : end].decode())
            at = end + 9
        self.tables[oid] = (name, columns)

    def _update(self, message: bytes) -> None:
        at = 5
        if message[at : at + 1] in (b"K", b"O"):
            at = self._skip(message, at + 1)
        self._row(message, at)

    def _skip(self, message: bytes, at: int) -> int:
        return self._values(message, at)[1]

    def _row(self, message: bytes, at: int) -> None:
        (oid,) = struct.unpack_from(">I", message, 1)
        name, columns = self.tables[oid]
        values, _ = self._values(message, at + 1)
        row = dict(zip(columns, values, strict=True))
        self.seen.append((name, str(row["id"]), str(row["status"])))

    @staticmethod
    def _values(message: bytes, at: int) -> tuple[list[str | None], int]:
        (count,) = struct.unpack_from(">H", message, at)
        at += 2
        values: list[str | None] = []
        for _ in range(count):
            kind = message[at : at + 1]
            at += 1
            if kind == b"t":
                (size,) = struct.unpack_from(">I", message, at)
                values.append(message[at + 4 : at + 4 + size].decode())
                at += 4 + size
            else:
                values.append(None)
        return values, at


async def complete(db: Database, worker_id: UUID) -> None:
    (job,) = (await kernel.claim(db, worker_id=worker_id, lanes=("normal",), limit=1)).jobs
    slots = (await assets.slots_of(db, [job.claim.job_id]))[job.claim.job_id]
    files = tuple(
        StoredFile(slot.id, slot.id, slot.kind, "b", f"{slot.id}", f"http://x/{slot.id}", "image/png", 1, None)
        for slot in slots
    )
    for file in files:
        await db.execute(
            "insert into makeit3d.files (id, bucket, key, kind, content_type)"
            " values ($1, 'b', $2, 'concept', 'image/png')",
            file.file_id,
            file.key,
        )
    await kernel.finish(db, [Settlement(job, Completed(files, "req"))])


async def test_subscribers_see_pending_processing_complete_of_both_tables(db: Database, database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("select pg_create_logical_replication_slot('subscriber', 'pgoutput')")
    try:
        user = await make_user(db)
        plan = await accept(db, sketch_plan(user, "task-realtime"))
        worker = await make_worker(db)
        await complete(db, worker.id)
        await complete(db, worker.id)
        # test servers commit without waiting for the disk, and decoding reads only what was flushed
        await connection.execute("set synchronous_commit = on; create table flushed ()")
        reader = ChangeReader()
        for row in await connection.fetch(
            "select data from pg_logical_slot_get_binary_changes('subscriber', null, null,"
            " 'proto_version', '1', 'publication_names', 'supabase_realtime')"
        ):
            reader.read(row["data"])
        concept, model = (str(asset.id) for asset in plan.assets)
        for table, row_id in (("concept_images", concept), ("models", model)):
            statuses = [status for name, id_, status in reader.seen if (name, id_) == (table, row_id)]
            assert statuses == ["pending", "processing", "complete"]
    finally:
        await connection.execute("select pg_drop_replication_slot('subscriber')")
        await connection.close()
