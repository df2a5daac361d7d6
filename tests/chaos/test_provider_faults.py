"""Whatever a provider does with a call: the job ends truthfully, nothing is paid twice, and no slot stays held.

Each fault strikes one task; all of a table are under way at the same time, over two workers. Where what counts is that
the call was made once and followed, the provider then declines the work (``once_more``), which is cheap.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from app.db.pool import Database

from tests.chaos.provider_faults import Case, expected, open_bench
from tests.sandbox_process import SandboxProcess, running_sandbox

pytestmark = pytest.mark.chaos

UNKNOWN = "provider_outcome_unknown"
REFUSED = "provider_content_refused"
NEVER = 600.0  # seconds: long after our own timeout

IMAGES = [
    *(Case("openai", f"{kind}_before", UNKNOWN, 0) for kind in ("reset", "status", "html")),
    Case("openai", "stall_before", UNKNOWN, 0, details={"seconds": NEVER}),
    *(Case("openai", f"{kind}_after", UNKNOWN) for kind in ("reset", "html", "truncated", "empty", "no_id", "cut")),
    *(Case("openai", "status_after", UNKNOWN, details={"status": status}) for status in (408, 409, 500, 502, 504)),
    Case("openai", "stall_after", UNKNOWN, details={"seconds": NEVER}),
    Case("openai", "server_error", UNKNOWN, 0),
    Case("openai", "moderation", REFUSED, 0),
    *(
        Case("openai", kind, REFUSED, once_more="moderation_output")
        for kind in ("rate_limit", "slow_down", "overloaded")
    ),
]

SUBMISSIONS = [
    *(Case("tripo.submit", f"{kind}_before", REFUSED, once_more="failed") for kind in ("reset", "status", "html")),
    Case("tripo.submit", "stall_before", REFUSED, once_more="failed", details={"seconds": NEVER}),
    *(
        Case("tripo.submit", f"{kind}_after", REFUSED, once_more="failed")
        for kind in ("reset", "status", "html", "truncated", "empty", "no_id", "cut")
    ),
    Case("tripo.submit", "stall_after", REFUSED, once_more="failed", details={"seconds": NEVER}),
    Case("tripo.submit", "late_after", REFUSED, once_more="failed", details={"seconds": 0.5}),
    Case("tripo.submit", "moderation", REFUSED, 0),
    *(
        Case("tripo.submit", kind, REFUSED, once_more="failed")
        for kind in ("busy", "busy_503", "rate", "audit", "code_200")
    ),
]

# these open the breaker: everybody waits until a probe is accepted
CONFIGURATION = [
    *(
        Case("openai", kind, REFUSED, once_more="moderation_output")
        for kind in ("quota", "bad_key", "not_verified", "model_gone")
    ),
    *(Case("tripo.submit", kind, REFUSED, once_more="failed") for kind in ("credits", "bad_key")),
]


@pytest.fixture
def sandbox(database: str, tmp_path: Path) -> Generator[SandboxProcess]:
    with running_sandbox(database, tmp_path, drawing="stock") as running:
        yield running


Table = tuple[list[Case], dict[str, float]]

# calls that hang end by our own timeout
HURRIED = {"openai_timeout_seconds": 4.0, "tripo_timeout_seconds": 4.0}
TABLES: dict[str, Table] = {
    "images": (IMAGES, HURRIED),
    "submissions": (SUBMISSIONS, HURRIED),
    "configuration": (CONFIGURATION, {}),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
async def test_every_fault_of_a_paid_call(
    db: Database, database: str, tmp_path: Path, sandbox: SandboxProcess, table: Table
) -> None:
    cases, timeouts = table
    async with open_bench(db, database, tmp_path, sandbox, **timeouts) as bench:
        assert await bench.run(cases) == expected(cases)
        await bench.settles()
        assert (await bench.accepted()).total() == sum(case.paid for case in cases)
