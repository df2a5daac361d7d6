"""Directories of one's own on a disk that all transfers of a process share."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from prometheus_client import Gauge

RESERVED = Gauge("makeit3d_spool_reserved_bytes", "Disk that transfers of this process may be using")


class Workspaces:
    """``max_bytes`` bounds what this process keeps on disk at a time, by what transfers say they may need."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._free = max_bytes
        self._max = max_bytes
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def workspace(self, *, expected_bytes: int) -> AsyncGenerator[Path]:
        """A directory of one's own, removed afterwards; waits until the expected bytes fit into the budget."""
        share = min(expected_bytes, self._max)
        while self._free < share:
            self._returned.clear()
            await self._returned.wait()
        self._take(share)
        try:
            directory = self._directory / f"work-{uuid4().hex}"
            directory.mkdir()
            try:
                yield directory
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
        finally:  # without an await: a share that a cancellation kept would be missing for ever
            self._take(-share)
            self._returned.set()

    def _take(self, share: int) -> None:
        self._free -= share
        RESERVED.inc(share)
