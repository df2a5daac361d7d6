"""Runs schemathesis, as a process of its own, against the whole application on a real database."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.factories import settings_for
from tests.integration.http_gateway import gateway
from tests.integration.identities import project

_REPOSITORY = Path(__file__).resolve().parents[2]
_REQUEST_SECONDS = "60"
# fuzz_hooks says what takes its place
_NOT_OURS = "positive_data_acceptance"


@dataclass(frozen=True)
class Fuzz:
    """``examples`` is cases per operation and phase; ``stopping`` ends streams and long polls at once, which would else
    be waited for."""

    database: str
    home: Path
    examples: int
    seed: int

    async def run(self, *options: str, phases: str, stopping: bool = False) -> int:
        """The number of cases. Fails with the whole report when one of them found something."""
        async with project() as signer:
            settings = settings_for(
                self.database,
                self.home,
                supabase_url=signer.supabase_url,
                openai_requests_per_minute=None,
                tripo_requests_per_minute=None,
            )
            async with gateway(settings) as gate:
                if stopping:
                    gate.services.events.stop()
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "schemathesis.cli", "run", f"{gate.http.base_url}/openapi.json"),
                    *("--seed", str(self.seed), "--max-examples", str(self.examples), "--phases", phases),
                    *("--checks", "all", "--exclude-checks", _NOT_OURS, "--continue-on-failure", "--no-color"),
                    *("--generation-database", "none", "--request-timeout", _REQUEST_SECONDS),
                    # a header that is none is refused before the body was read: its sender may see a reset
                    *("--request-retries", "2"),
                    *("--header", f"Authorization: Bearer {signer.token(gate.user_id)}"),
                    *options,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=self.home,
                    env=os.environ
                    | {"SCHEMATHESIS_HOOKS": "tests.integration.fuzz_hooks", "PYTHONPATH": str(_REPOSITORY)},
                )
                output, _ = await process.communicate()
        report = output.decode(errors="replace")
        assert process.returncode == 0, report
        found = re.search(r"(\d+) generated", report)
        assert found is not None, report
        return int(found[1])
