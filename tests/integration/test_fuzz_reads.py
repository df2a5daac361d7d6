"""Whatever is sent to the routes that read, cancel and upload, the answer is one that the document describes."""

from __future__ import annotations

from tests.integration.fuzzing import Fuzz

_PHASES = "examples,coverage,fuzzing"


async def test_reads_and_uploads(fuzz: Fuzz) -> None:
    # without a broker /health/ready is 503 and says so, which schemathesis counts as a fault
    cases = await fuzz.run(
        *("--exclude-path-regex", "^/generate/", "--exclude-path", "/events", "--exclude-path", "/health/ready"),
        phases=_PHASES,
        stopping=True,
    )
    assert cases > 300


async def test_event_streams(fuzz: Fuzz) -> None:
    cases = await fuzz.run("--include-path", "/events", phases=_PHASES, stopping=True)
    assert cases > 50
