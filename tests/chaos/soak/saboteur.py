"""Kills processes of the stack and arms the far ends' faults, as the plan says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.soak.plan import Kill, Victim
from tests.e2e.gateway import ADMIN, Gateway

_WORDS: dict[Victim, str] = {
    "worker": "app.cli worker",
    "workers": "app.cli worker",
    "api": "app.cli api",
    "beat": "app.cli beat",
    "valkey": "valkey-server",
    "postgres": "postgres",
}

# (where, kind, share of the calls); storage has a script of its own
PROVIDER_FAULTS = (
    ("openai", "reset_after", 0.01),
    ("openai", "reset_before", 0.02),
    ("openai", "server_error", 0.01),
    ("openai", "rate_limit", 0.03),
    ("openai", "moderation", 0.02),
    ("openai", "fewer_images", 0.02),
    ("tripo.submit", "reset_after", 0.03),
    ("tripo.submit", "reset_before", 0.02),
    ("tripo.submit", "busy", 0.03),
    ("tripo.submit", "html_after", 0.02),
    ("tripo.task", "failed", 0.02),
    ("tripo.poll", "reset", 0.02),
    ("tripo.poll", "missed", 0.02),
    ("tripo.download", "cut", 0.05),
    ("tripo.download", "expired", 0.03),
    ("tripo.upload", "reset", 0.03),
)
STORAGE_FAULTS = (("error_before", 0.01), ("drop_reply", 0.02), ("truncate", 0.01), ("database_timeout", 0.005))


@dataclass
class Saboteur:
    gateway: Gateway
    faults: bool
    kills: Counter[str] = field(default_factory=Counter[str])
    last: str = "nothing yet"

    async def strike(self, kill: Kill) -> None:
        """SIGKILL, and for the launcher a new start; everything else its launcher starts again."""
        if kill.victim == "launcher":
            self.gateway.kill()
            self._count("launcher", 1)
            self.gateway.start_again()  # here: its death signal is tied to this thread
            await asyncio.to_thread(self.gateway.wait_ready)
            await self.arm()
            return
        pids = sorted(await asyncio.to_thread(self.gateway.pids, _WORDS[kill.victim]))
        if kill.victim != "workers":
            pids = pids[int(kill.chance * len(pids)) :][:1]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self._count(kill.victim, 1)

    def _count(self, victim: str, number: int) -> None:
        self.kills[victim.removesuffix("s") if victim == "workers" else victim] += number
        self.last = f"SIGKILL {victim}"

    async def arm(self) -> None:
        """Make the far ends quick and, at low rates, unwell; a new sandbox process has forgotten."""
        await self._tell("POST", "/admin/knobs", {"drawing": "stock"})
        if not self.faults:
            return
        for where, kind, share in PROVIDER_FAULTS:
            await self._tell(
                "POST", "/admin/faults", {"where": where, "kind": kind, "probability": share, "count": None}
            )
        for kind, share in STORAGE_FAULTS:
            await self._tell(
                "POST", "/admin/storage-faults", {"kind": kind, "probability": share, "path_contains": "/object/"}
            )

    async def disarm(self) -> None:
        await self._tell("DELETE", "/admin/faults")
        await self._tell("DELETE", "/admin/storage-faults")

    async def _tell(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        async with httpx.AsyncClient(base_url=self.gateway.sandbox_url, headers=ADMIN, timeout=30) as http:
            (await http.request(method, path, json=body)).raise_for_status()
