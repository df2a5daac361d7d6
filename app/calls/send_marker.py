"""Proof of whether a paid call was sent, so that a crash before its first byte is no doubt afterwards.

The proof is a file beside the spool's: ``<call>.unsent`` from before the intent is written until right before the first
byte, ``<call>.sent`` after that, or ``<call>.revoked`` from the moment it was decided that no byte is ever sent until
the journal has it. Only one of two processes can move or remove it: the one that sends the call, or the one that finds
that its sender died before. No marker proves nothing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

from app.ai_clients.errors import SendRevoked

_STATES = ("unsent", "revoked", "sent")


class SendMarkers:
    """The markers of a host, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, call_id: UUID) -> SendMarker:
        """A paid call is about to be made here. Raises OSError."""
        self._path(call_id, "unsent").touch()
        return SendMarker(self, call_id)

    async def sent(self, call_id: UUID) -> None:
        """The call's first byte comes next. Raises FileNotFoundError when it was revoked, OSError."""
        await asyncio.to_thread(self._sent, call_id)

    def _sent(self, call_id: UUID) -> None:
        self._path(call_id, "unsent").rename(self._path(call_id, "sent"))
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # not even a power cut may make it look unsent
        finally:
            os.close(directory)

    def revoke(self, call_id: UUID) -> bool:
        """Keep a call from being sent. True is proof that no byte of it was, nor ever will be."""
        try:
            self._path(call_id, "unsent").rename(self._path(call_id, "revoked"))
        except FileNotFoundError:
            return self._path(call_id, "revoked").exists()
        return True

    def unsent(self) -> list[UUID]:
        """Calls that were about to be made here and were not sent."""
        return [UUID(path.stem) for state in ("unsent", "revoked") for path in self._directory.glob(f"*.{state}")]

    def remove(self, call_id: UUID) -> None:
        for state in _STATES:
            self._path(call_id, state).unlink(missing_ok=True)

    def _path(self, call_id: UUID, state: str) -> Path:
        return self._directory / f"{call_id}.{state}"


class SendMarker:
    """The marker of one call."""

    def __init__(self, markers: SendMarkers, call_id: UUID) -> None:
        self._markers = markers
        self._call_id = call_id

    async def sent(self) -> None:
        """To be awaited right before the first byte. Raises SendRevoked when the call may not be sent any more."""
        try:
            await self._markers.sent(self._call_id)
        except OSError as error:
            raise SendRevoked("the send was revoked") from error

    def revoke(self) -> bool:
        """As ``SendMarkers.revoke``."""
        return self._markers.revoke(self._call_id)

    def remove(self) -> None:
        self._markers.remove(self._call_id)
