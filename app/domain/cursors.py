"""Places in the event log, as readers name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the log: transaction id, then event id."""

    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.xid}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises ValueError for anything that ``str`` did not make."""
        xid, separator, number = text.partition("-")
        if not separator or not xid.isascii() or not number.isascii() or not xid.isdigit() or not number.isdigit():
            raise ValueError("not a cursor")
        if len(xid) > 19 or len(number) > 19:
            raise ValueError("not a cursor")
        return cls(int(xid), int(number))
