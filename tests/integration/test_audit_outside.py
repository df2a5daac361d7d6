"""The audit beyond the rows: the bucket and the providers' records, each violation found and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.domain.operations import Operation
from app.services.audit_files import BucketAudit
from app.services.audit_ledger import PAID_IS_JOURNALLED, audit_ledger

from tests.integration.workshop import BUCKET, Workshop, workshop

__all__ = ["workshop"]


async def found(workshop: Workshop, *, deep: bool = False) -> list[tuple[str, str]]:
    audit = BucketAudit(workshop.db, workshop.storage, workshop.settings)
    return [(d.invariant.name, d.ids["key"]) for d in (await audit.run(deep=deep)).differences]


async def put(workshop: Workshop, key: str, content: bytes) -> None:
    source = workshop.settings.home / "planted"
    source.write_bytes(content)
    await workshop.storage.upload(BUCKET, key, source, content_type="image/png")


async def taken(workshop: Workshop, key: str, target: Path) -> bytes:
    await workshop.storage.download(BUCKET, key, target, max_bytes=10**8)
    return target.read_bytes()


async def test_the_bucket_against_the_manifest(workshop: Workshop, tmp_path: Path) -> None:
    task = await workshop.ask(Operation.TEXT_TO_IMAGE, "task-audit-1", n=2)
    await workshop.finished(task)
    await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-audit-2"))
    first, second = f"concepts/{task}/0.png", f"concepts/{task}/1.png"
    content = await taken(workshop, first, tmp_path / "content")
    assert await found(workshop, deep=True) == []

    await put(workshop, "models/nobody/model.glb", b"nobody's")
    await put(workshop, ".trash/models/nobody/model.glb", b"in the trash nothing is looked for")
    assert await found(workshop) == [("object_has_row", "models/nobody/model.glb")]
    await workshop.storage.remove(BUCKET, ["models/nobody/model.glb"])

    await put(workshop, first, content[:-1])
    assert await found(workshop) == [("row_has_object", first)]
    await put(workshop, first, content[:-1] + b"!")
    assert await found(workshop) == []
    assert await found(workshop, deep=True) == [("digest", first)]
    await put(workshop, first, content)

    await workshop.storage.remove(BUCKET, [second])
    assert await found(workshop) == [("row_has_object", second)]
    await workshop.db.execute("update makeit3d.files set state = 'uploading' where key = $1", second)
    assert await found(workshop) == []
    await workshop.db.execute("delete from makeit3d.files where key = $1", first)
    assert await found(workshop) == [("object_has_row", first)]


async def test_a_user_may_remove_what_they_uploaded(workshop: Workshop) -> None:
    """Even where inputs and results share a bucket."""
    await workshop.db.execute(
        "insert into makeit3d.files (id, bucket, key, kind, state, content_type, size, sha256, stored_at)"
        " values (gen_random_uuid(), $1, 'user/gone.png', 'input', 'stored', 'image/png', 1, 'x', now())",
        BUCKET,
    )
    assert await found(workshop, deep=True) == []


async def test_an_upload_that_ends_meanwhile_is_no_difference(workshop: Workshop) -> None:
    await put(workshop, "concepts/task-audit-3/0.png", b"on its way")

    async def again() -> None:
        await workshop.storage.remove(BUCKET, ["concepts/task-audit-3/0.png"])

    audit = BucketAudit(workshop.db, workshop.storage, workshop.settings)
    assert (await audit.run(deep=False, again=again)).differences == []


async def test_the_journal_against_the_record_of_a_provider(workshop: Workshop) -> None:
    await workshop.finished(await workshop.ask(Operation.TEXT_TO_MODEL, "task-audit-4"))
    now = datetime.now(UTC)
    since = now - timedelta(days=1)
    findings = await audit_ledger(workshop.db, "tripo", workshop.models, since=since, now=now + timedelta(hours=1))
    assert findings.differences == []
    assert findings.rows == 2
    await workshop.db.execute("delete from makeit3d.provider_calls")
    findings = await audit_ledger(workshop.db, "tripo", workshop.models, since=since, now=now + timedelta(hours=1))
    assert [difference.invariant for difference in findings.differences] == [PAID_IS_JOURNALLED]
