"""The tables of assets that a process has: what statements say of each of them is put together here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.config import Settings
from app.db.sql import Texts
from app.domain.asset_kinds import SOURCE_COLUMNS, AssetKinds
from app.errors import ConfigurationError

_IDENTIFIER = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")


@dataclass(frozen=True, slots=True)
class OutputTable:
    """One table of outputs. ``name`` is what kinds and events call it, ``actual`` what it is called here, ``n`` its
    number."""

    n: int
    name: str
    actual: str
    kinds: tuple[str, ...]
    columns: frozenset[str]

    @property
    def kind(self) -> str:
        """An expression of the kind of a row."""
        return "kind" if "kind" in self.columns else f"'{self.kinds[0]}'::text"

    def places(self) -> dict[str, str]:
        """What ``-- each table`` puts into a statement."""
        sources = {name: name if name in self.columns else f"null::uuid as {name}" for name in SOURCE_COLUMNS}
        return {"n": str(self.n), "name": self.name, "table": self.actual, "kind": self.kind, **sources}


@dataclass(frozen=True, slots=True, eq=False)
class AssetTables:
    """The table of inputs and those of the registered kinds, by checked names."""

    inputs: str
    outputs: tuple[OutputTable, ...]
    kinds: AssetKinds
    renamed: Mapping[str, str]  # the tables of migrations that an operator may call otherwise

    @classmethod
    def of(cls, settings: Settings, kinds: AssetKinds) -> AssetTables:
        """Raises ConfigurationError."""
        renamed = {"concept_images": settings.concept_images_table_name, "models": settings.models_table_name}
        for name in (settings.input_assets_table_name, *renamed.values()):
            if not _IDENTIFIER.match(name):
                raise ConfigurationError(f"{name!r} is not a plain table name; see .env.example")
        outputs = [
            OutputTable(n, name, renamed.get(name, name), tuple(kind.name for kind in of_table), of_table[0].columns)
            for n, name in enumerate(kinds.tables)
            if (of_table := kinds.of_table(name))
        ]
        return cls(settings.input_assets_table_name, tuple(outputs), kinds, renamed)

    @property
    def names(self) -> list[str]:
        """As they are called here, that of inputs first."""
        return [self.inputs, *(table.actual for table in self.outputs)]

    def texts(self) -> Texts:
        return Texts({"inputs": self.inputs, **self.renamed}, [table.places() for table in self.outputs])
