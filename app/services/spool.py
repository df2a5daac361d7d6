"""A directory on disk through which results pass, so that none is ever whole in memory.

Replies of paid calls are named after their call, so that another run of the job, also after a crash, finds them. So are
the slips of calls about to be made: ``<call>.announced`` until right before the first byte, ``<call>.left`` after that,
or ``<call>.held`` from the moment it was decided that no byte ever leaves until the journal has it.
Only one of two processes can move a slip or take it away: the one that sends the call, or the one that finds that its
sender died before. No slip proves nothing.

What was paid and storage refused for good is kept in ``<call>.kept/`` for an operator's retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from prometheus_client import Gauge

from app.domain.jobs import KeptResult

RESERVED = Gauge("makeit3d_spool_reserved_bytes", "Disk that transfers of this process may be using")

_LEFTOVER_SECONDS = 24 * 3600
_GRACE_SECONDS = 3600.0  # a retry that began at the last moment still finds what it is to store
_REPLY = "reply"


class Spool:
    """``max_bytes`` bounds what this process keeps on disk at a time, by what transfers say they may need. Paid results
    that storage refused are kept beyond that, on this ``host``, for ``keep_seconds``; ``open`` adds a name that
    lies beside the directory to the host's, for two machines may be called the same."""

    def __init__(self, directory: Path, *, max_bytes: int, host: str = "", keep_seconds: float = 0.0) -> None:
        self._directory = directory
        self.host = host
        self._keep_seconds = keep_seconds
        self._free = max_bytes
        self._max = max_bytes
        self._returned = asyncio.Event()

    def open(self) -> None:
        """Make the directory and remove what crashed runs left long ago."""
        self._directory.mkdir(parents=True, exist_ok=True)
        name = self._directory.with_suffix(".name")
        with contextlib.suppress(FileExistsError):
            name.symlink_to(uuid4().hex[:8])  # a link is made whole or not at all
        self.host = f"{self.host}/{name.readlink()}"
        for path in self._directory.iterdir():
            if path.suffix != ".kept":
                _remove_older(path, _LEFTOVER_SECONDS)
        self.remove_expired()

    def reply(self, call_id: UUID) -> Path:
        """Where the reply of a paid call is put when it is whole, or where it is kept since storage refused it."""
        return self.kept(call_id, _REPLY) or self._directory / f"{call_id}.reply"

    def require(self, expected_bytes: int) -> None:
        """Ask before a reply is paid that could not be kept. Raises OSError where the disk has less room."""
        if shutil.disk_usage(self._directory).free < expected_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))

    def has_reply(self, call_id: UUID) -> bool:
        return self.reply(call_id).exists()

    def drop_reply(self, call_id: UUID) -> None:
        self.reply(call_id).unlink(missing_ok=True)

    # --- what storage refused -------------------------------------------------------------------------------

    def kept(self, call_id: UUID, name: str) -> Path | None:
        """A kept file of a paid call, if it is here."""
        path = self._kept(call_id) / name
        return path if path.exists() else None

    def keep_reply(self, call_id: UUID, pictures: Sequence[int]) -> KeptResult | None:
        """Keep the reply of a call for the pictures of it that storage refused."""
        return self.keep(call_id, {_REPLY: self.reply(call_id)}, pictures)

    def keep(self, call_id: UUID, files: Mapping[str, Path], pictures: Sequence[int] = ()) -> KeptResult | None:
        """Keep files of a paid call under these names; they move. None where nothing is to be kept. What is kept
        already stays for as long as it was to stay at first."""
        if not self._keep_seconds:
            return None
        directory = self._kept(call_id)
        directory.mkdir(exist_ok=True)
        for name, path in files.items():
            if path.parent != directory:
                path.rename(directory / name)
        until = datetime.fromtimestamp(directory.stat().st_mtime, UTC) + timedelta(seconds=self._keep_seconds)
        return KeptResult(call_id, self.host, until, tuple(pictures))

    def all_kept(self) -> list[UUID]:
        """Calls whose result is kept here."""
        return [UUID(path.stem) for path in self._directory.glob("*.kept")]

    def remove_expired(self) -> None:
        """Remove what was kept for long enough."""
        for path in self._directory.glob("*.kept"):
            _remove_older(path, self._keep_seconds + _GRACE_SECONDS)

    def _kept(self, call_id: UUID) -> Path:
        return self._directory / f"{call_id}.kept"

    # --- slips ----------------------------------------------------------------------------------------------

    def announce(self, call_id: UUID) -> None:
        """A paid call is about to be made here. Raises OSError."""
        self._slip(call_id, "announced").touch()

    async def depart(self, call_id: UUID) -> None:
        """Its first byte comes next. Raises FileNotFoundError when it was held back, OSError."""
        await asyncio.to_thread(self._depart, call_id)

    def _depart(self, call_id: UUID) -> None:
        self._slip(call_id, "announced").rename(self._slip(call_id, "left"))
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # not even a power cut may make it look unsent
        finally:
            os.close(directory)

    def hold_back(self, call_id: UUID) -> bool:
        """Keep an announced call from leaving. True is proof that no byte of it left, nor ever will."""
        try:
            self._slip(call_id, "announced").rename(self._slip(call_id, "held"))
        except FileNotFoundError:
            return self._slip(call_id, "held").exists()
        return True

    def announced(self) -> list[UUID]:
        """Calls that were announced here and have not left."""
        return [UUID(path.stem) for state in ("announced", "held") for path in self._directory.glob(f"*.{state}")]

    def replied(self) -> list[UUID]:
        """Calls whose whole reply is here."""
        return [UUID(path.stem) for path in self._directory.glob("*.reply")] + self.all_kept()

    def drop_slip(self, call_id: UUID) -> None:
        for state in ("announced", "held", "left"):
            self._slip(call_id, state).unlink(missing_ok=True)

    def _slip(self, call_id: UUID, state: str) -> Path:
        return self._directory / f"{call_id}.{state}"

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


def _remove_older(path: Path, seconds: float) -> None:
    with contextlib.suppress(FileNotFoundError):  # other processes of this host are at work here
        if path.stat().st_mtime < time.time() - seconds:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
