"""What was paid for and then goes wrong: while the provider works, while it is asked, and while its result is fetched.

The result is asked for again as often as it helps, and the call is never made again because of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from app.db.pool import Database
from app.domain.operations import Operation
from app.domain.params import ObjectRef
from PIL import Image

from tests.chaos.provider_faults import Bench, Case, expected, open_bench
from tests.integration.workshop import INPUTS
from tests.sandbox_process import SandboxProcess, running_sandbox

pytestmark = pytest.mark.chaos

REFUSED = "provider_content_refused"
SHORT = 4.0  # seconds: our timeout, where something stalls

PICTURES = [
    Case("openai", "late_after", details={"seconds": 0.5}),
    Case("openai", "fewer_images", images=("complete", "failed")),
    Case("openai", "broken_image", images=("complete", "failed")),
    Case("openai", "broken_base64", images=("complete", "failed")),
    Case("openai", "jpeg_for_png"),
    Case("openai", "no_usage"),
]

WORK = [
    *(Case("tripo.task", kind, details={"seconds": 1.0}) for kind in ("stays_queued", "stays_at_99", "new_word")),
    *(Case("tripo.task", kind) for kind in ("progress_back", "null_progress")),
    Case("tripo.task", "failed", REFUSED),
    Case("tripo.task", "failed_1001", "provider_task_failed"),
    Case("tripo.task", "banned", REFUSED),
    Case("tripo.task", "cancelled", "provider_task_canceled"),
    # what the provider gave up cost nothing, and is asked for once more
    Case("tripo.task", "expired", None, 2),
    Case("tripo.task", "failed_2018", None, 2),
    Case("tripo.task", "no_output", "provider_result_missing"),
    Case("tripo.task", "wrong_format", "provider_result_invalid"),
]


@pytest.fixture
def sandbox(database: str, tmp_path: Path) -> Generator[SandboxProcess]:
    with running_sandbox(database, tmp_path, drawing="stock") as running:
        yield running


@pytest.fixture
async def bench(db: Database, database: str, tmp_path: Path, sandbox: SandboxProcess) -> AsyncGenerator[Bench]:
    async with open_bench(db, database, tmp_path, sandbox) as opened:
        yield opened


@pytest.mark.parametrize("cases", [PICTURES, WORK], ids=["pictures", "work"])
async def test_every_fault_of_paid_work(bench: Bench, cases: list[Case]) -> None:
    assert await bench.run(cases) == expected(cases)
    await bench.settles()
    assert (await bench.accepted()).total() == sum(case.paid for case in cases)
    untold = await bench.db.fetchval("select count(*) from makeit3d.provider_calls where cost_is_estimate")
    assert untold == sum(case.kind == "no_usage" for case in cases)


async def test_every_fault_of_a_download(bench: Bench) -> None:
    # the type is read from the bytes, whatever the host calls them
    kinds = ("expired", "missing", "cut", "wrong_length", "reset", "status", "html", "truncated", "empty", "wrong_type")
    ends = {kind: await bench.struck_by("tripo.download", kind) for kind in kinds}
    assert ends == dict.fromkeys(ends, (None, 1))
    ends = {kind: await bench.struck_by("tripo.download", kind, count=50) for kind in ("redirect", "huge")}
    assert ends == {"redirect": ("provider_result_invalid", 1), "huge": ("provider_result_too_large", 1)}


async def test_every_fault_of_polling(bench: Bench) -> None:
    kinds = (
        "reset",
        "status",
        "html",
        "truncated",
        "empty",
        "missed",
        "not_found",
        "null_progress",
        "code_200",
        "rate",
    )
    ends = {kind: await bench.struck_by("tripo.poll", kind, count=3) for kind in (*kinds, "bad_key")}
    assert ends == dict.fromkeys(ends, (None, 1))


async def test_every_fault_of_the_listing_that_finds_a_lost_call(bench: Bench) -> None:
    ends: dict[str, tuple[str | None, int]] = {}
    for kind in ("empty_usage", "unordered_usage", "foreign_usage", "reset", "status", "html", "code_200", "rate"):
        await bench.arm("tripo.account", kind)
        ends[kind] = await bench.struck_by("tripo.submit", "reset_after")
    assert ends == dict.fromkeys(ends, (None, 1))


async def test_every_fault_of_an_upload(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    Image.new("RGB", (256, 256), "firebrick").save(path)
    await bench.storage.upload(INPUTS, "in.png", path, content_type="image/png")
    picture = ObjectRef(INPUTS, "in.png")
    kinds = ("reset", "status", "html", "truncated", "empty", "rate")
    ends = {kind: await bench.struck_by("tripo.upload", kind, picture=picture) for kind in kinds}
    assert ends == dict.fromkeys(ends, (None, 1))
    kinds = ("too_large", "bad_parameter", "token_lost")
    ends = {kind: await bench.struck_by("tripo.upload", kind, picture=picture) for kind in kinds}
    assert all(code is not None and paid == 0 for code, paid in ends.values()), ends


@pytest.mark.parametrize(("lost", "code"), [(1, None), (2, "provider_outcome_unknown")])
async def test_at_most_one_paid_retry_where_the_setting_allows_it(
    db: Database, database: str, tmp_path: Path, sandbox: SandboxProcess, lost: int, code: str | None
) -> None:
    async with open_bench(db, database, tmp_path, sandbox, openai_paid_retry=True) as bench:
        await bench.arm("openai", "reset_after", count=lost)
        [status] = await bench.finished([await bench.ask(Operation.TEXT_TO_IMAGE, "a boat")])
        assert status.jobs[0]["error_code"] == code
        assert (await bench.accepted()).total() == 2
        await bench.settles()
