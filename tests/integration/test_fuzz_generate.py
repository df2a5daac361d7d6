"""Whatever is sent to the six operations, the answer is one that the document describes."""

from __future__ import annotations

from tests.integration.fuzzing import Fuzz


async def test_generate(fuzz: Fuzz) -> None:
    cases = await fuzz.run("--include-path-regex", "^/generate/", phases="examples,coverage,fuzzing")
    assert cases > 500
