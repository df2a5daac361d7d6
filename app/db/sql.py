"""Named statements: what the ``.sql`` file beside a module says, ready to be run by name (ADR 15)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$", re.MULTILINE)
_EACH = re.compile(r"^-- each table(?: (,|[a-z ]+))?\n(.*?)^-- end\n", re.MULTILINE | re.DOTALL)
# strings, quoted names and comments are read over; a cast is no parameter
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|(?<![:\w]):([a-z][a-z0-9_]*)""")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_WRITES = re.compile(
    r"\binsert\s+into\b|(?<!for )(?<!key )(?<!do )\bupdate\s+\S+\s+(\w+\s+)?set\b|\bdelete\s+from\b|\bpg_notify\b"
)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """``name`` is also that of its failpoint. ``parameters`` are in the order of ``$1``, ``$2``, … of ``text``."""

    name: str
    description: str
    text: str
    parameters: tuple[str, ...]
    writes: bool  # only a statement that changes something is a failpoint

    def arguments(self, given: Mapping[str, object]) -> list[object]:
        """Values in the order of the parameters. Raises TypeError unless exactly those are given."""
        if len(given) != len(self.parameters) or any(name not in given for name in self.parameters):
            raise TypeError(f"{self.name} takes {', '.join(self.parameters)}; given {', '.join(given)}")
        return [given[name] for name in self.parameters]


Query: TypeAlias = str | Statement


class Texts:
    """The text of each statement, made once, for asset tables of these names, which are checked identifiers.

    ``tables`` are put in for ``{name}``. What stands between ``-- each table`` and ``-- end`` is there for each of
    ``outputs``, joined by the words (or the comma) behind ``table``, with its values put in.
    """

    def __init__(self, tables: Mapping[str, str], outputs: Sequence[Mapping[str, str]]) -> None:
        self._tables = tables
        self._outputs = outputs
        self._made: dict[Statement, str] = {}

    def of(self, statement: Statement) -> str:
        made = self._made.get(statement)
        if made is None:
            whole = _EACH.sub(self._repeat, statement.text)
            made = self._made[statement] = _PLACE.sub(lambda place: self._tables[place[1]], whole)
        return made

    def resolve(
        self, query: Query, values: Sequence[object], named: Mapping[str, object]
    ) -> tuple[str, Sequence[object]]:
        """Text and values as the driver wants them. A statement takes its values by name, plain text by position."""
        if isinstance(query, str):
            if named:
                raise TypeError(f"plain SQL has no parameters of names: {', '.join(named)}")
            return query, values
        if values:
            raise TypeError(f"{query.name} takes its values by name")
        return self.of(query), query.arguments(named)

    def _repeat(self, match: re.Match[str]) -> str:
        parts = [_PLACE.sub(lambda place, table=table: table[place[1]], match[2]) for table in self._outputs]
        return f"{match[1] or ''}\n".join(parts)


def load(module_file: str, **pieces: str) -> dict[str, Statement]:
    """The statements beside a module: ``load(__file__)``; ``pieces`` as for ``parse``."""
    return parse(Path(module_file).with_suffix(".sql").read_text(encoding="utf-8"), pieces)


def parse(source: str, pieces: Mapping[str, str] = MappingProxyType({})) -> dict[str, Statement]:
    """The value of each of ``pieces`` is put in for its ``{name}``. Raises ValueError where a statement has no
    description, or a name is used twice."""
    for piece, value in pieces.items():
        source = source.replace(f"{{{piece}}}", value)
    _, *parts = _NAME.split(source)
    found: dict[str, Statement] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        description, _, text = body.lstrip("\n").partition("\n")
        if not description.startswith("-- ") or not text.strip():
            raise ValueError(f"{name} lacks a line that says what it does, or what it does")
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = _statement(name, description.removeprefix("-- "), text.strip() + "\n")
    return found


def _statement(name: str, description: str, text: str) -> Statement:
    parameters: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        return f"${parameters.setdefault(match[1], len(parameters) + 1)}"

    numbered = _PARAMETER.sub(number, text)
    return Statement(name, description, numbered, tuple(parameters), _WRITES.search(text) is not None)
