"""A directory on disk through which results pass, so that none is ever whole in memory.

Replies of paid calls are named after their call, so that another run of the job, also after a crash, finds them. Send
markers lie beside them.

What was paid and storage refused for good is kept in ``<call>.kept/`` for an operator's retry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from app.calls.send_marker import SendMarkers
from app.domain.jobs import KeptResult
from app.services.workspaces import Workspaces

_LEFTOVER_SECONDS = 24 * 3600
_GRACE_SECONDS = 3600.0  # a retry that began at the last moment still finds what it is to store
_REPLY = "reply"


class Spool(Workspaces):
    """``max_bytes`` bounds what this process keeps on disk at a time, by what transfers say they may need. Paid results
    that storage refused are kept beyond that, on this ``host``, for ``keep_seconds``; ``open`` adds a name that
    lies beside the directory to the host's, for two machines may be called the same."""

    def __init__(self, directory: Path, *, max_bytes: int, host: str = "", keep_seconds: float = 0.0) -> None:
        super().__init__(directory, max_bytes=max_bytes)
        self.markers = SendMarkers(directory)
        self.host = host
        self._keep_seconds = keep_seconds

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

    def replied(self) -> list[UUID]:
        """Calls whose whole reply is here."""
        return [UUID(path.stem) for path in self._directory.glob("*.reply")] + self.all_kept()


def _remove_older(path: Path, seconds: float) -> None:
    with contextlib.suppress(FileNotFoundError):  # other processes of this host are at work here
        if path.stat().st_mtime < time.time() - seconds:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
