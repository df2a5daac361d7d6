"""A directory on disk through which results pass, so that none is ever whole in memory.

Replies of paid calls are named after their call, so that another run of the job, also after a crash, finds them.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

_LEFTOVER_SECONDS = 24 * 3600


class Spool:
    """``max_bytes`` bounds what this process keeps on disk at a time, by what transfers say they may need."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._free = max_bytes
        self._max = max_bytes
        self._changed = asyncio.Condition()

    def open(self) -> None:
        """Make the directory and remove what crashed runs left long ago."""
        self._directory.mkdir(parents=True, exist_ok=True)
        horizon = time.time() - _LEFTOVER_SECONDS
        for path in self._directory.iterdir():
            if path.stat().st_mtime < horizon:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def reply(self, call_id: UUID) -> Path:
        """Where the reply of a paid call is put when it is whole."""
        return self._directory / f"{call_id}.reply"

    def has_reply(self, call_id: UUID) -> bool:
        return self.reply(call_id).exists()

    def drop_reply(self, call_id: UUID) -> None:
        self.reply(call_id).unlink(missing_ok=True)

    @asynccontextmanager
    async def workspace(self, *, expected_bytes: int) -> AsyncGenerator[Path]:
        """A directory of one's own, removed afterwards; waits until the expected bytes fit into the budget."""
        share = min(expected_bytes, self._max)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        directory = self._directory / f"work-{uuid4().hex}"
        directory.mkdir()
        try:
            yield directory
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            async with self._changed:
                self._free += share
                self._changed.notify_all()
