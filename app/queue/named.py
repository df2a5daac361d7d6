"""Named statements of the ``.sql`` files beside this module, with their values by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import asyncpg

from app.db.pool import Connection

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_VALUE = re.compile(r"(?<![:\w]):([a-z_]+)")


class Statement:
    """``text`` has ``$1``, ``$2``, … for the names of its values."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._values: list[str] = []
        self.text = _VALUE.sub(self._number, _COMMENT.sub("", text)).strip().rstrip(";")

    def _number(self, value: re.Match[str]) -> str:
        if value[1] not in self._values:
            self._values.append(value[1])
        return f"${self._values.index(value[1]) + 1}"

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """In the order of the text. Raises TypeError unless exactly the statement's values are given."""
        if set(values) != set(self._values):
            raise TypeError(f"{self.name} takes {self._values}, not {sorted(values)}")
        return [values[name] for name in self._values]

    async def fetch(self, connection: Connection, **values: object) -> list[asyncpg.Record]:
        return await connection.fetch(self.text, *self.arguments(values))

    async def fetchrow(self, connection: Connection, **values: object) -> asyncpg.Record | None:
        return await connection.fetchrow(self.text, *self.arguments(values))

    async def fetchval(self, connection: Connection, **values: object) -> Any:  # noqa: ANN401 - the column's type
        return await connection.fetchval(self.text, *self.arguments(values))

    async def execute(self, connection: Connection, **values: object) -> None:
        await connection.execute(self.text, *self.arguments(values))


def load(*names: str, fragments: Mapping[str, str]) -> dict[str, Statement]:
    """The statements of these files; ``{name}`` stands for a fragment."""
    found: dict[str, Statement] = {}
    for name in names:
        text = files("app.queue").joinpath(name).read_text()
        for fragment, value in fragments.items():
            text = text.replace(f"{{{fragment}}}", value)
        parts = _NAME.split(text)[1:]
        found |= {key: Statement(key, body) for key, body in zip(parts[::2], parts[1::2], strict=True)}
    return found
