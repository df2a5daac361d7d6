"""One request after the other, each with what the one before it answered."""

from __future__ import annotations

from tests.integration.fuzzing import Fuzz


async def test_sequences(fuzz: Fuzz) -> None:
    cases = await fuzz.run("--exclude-path", "/health/ready", phases="stateful", stopping=True)
    assert cases > 100
