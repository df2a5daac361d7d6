"""Kinds of outputs: each is declared once, and everything that is said or done about outputs follows from that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.domain.sniff import MediaType

# columns that name the row that an asset is made from
SOURCE_COLUMNS = ("source_input_asset_id", "source_concept_image_id", "source_model_id")

# columns that a table of assets may have beside those that all have, which the queue fills
OPTIONAL_COLUMNS = frozenset({"kind", *SOURCE_COLUMNS, "width", "height"})

# what ``files.kind`` says of files that are no outputs
OTHER_FILES = frozenset({"input", "preview"})

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_TEMPLATE = re.compile(r"(?P<folder>[a-z][a-z0-9_-]*)/\{task_id\}/[a-z0-9_-]*\{_?number\}\.\{extension\}")
_OTHER_FOLDERS = frozenset({"projects", "spaces"})


@dataclass(frozen=True, slots=True)
class AssetKind:
    """A kind of output: where its row stands, what its file is called, and where a status document shows it.

    Several kinds may share a table that has the column ``kind``. ``key_template`` is a folder, ``{task_id}`` and a
    name that has ``{number}``, or ``{_number}`` (empty for the first, else ``_1``, ``_2``, …), and ``{extension}``.
    """

    name: str
    table: str
    columns: frozenset[str]  # of OPTIONAL_COLUMNS
    key_template: str
    result_field: str  # of ``result`` in a status document
    media_types: tuple[MediaType, ...]
    many: bool = False  # the field is a list
    names_as: str | None = None  # the column of SOURCE_COLUMNS by which a row names one of this kind as its source

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or not _NAME.match(self.table) or not _NAME.match(self.result_field):
            raise ValueError(f"{self.name!r} in {self.table!r}: names are plain identifiers")
        if self.name in OTHER_FILES:
            raise ValueError(f"{self.name!r} names files that are no outputs")
        if unknown := self.columns - OPTIONAL_COLUMNS:
            raise ValueError(f"{self.name}: the queue does not know how to fill {sorted(unknown)}")
        if self.names_as not in (None, *SOURCE_COLUMNS):
            raise ValueError(f"{self.name}: no row names its source as {self.names_as}")
        template = _TEMPLATE.fullmatch(self.key_template)
        if template is None or template["folder"] in _OTHER_FOLDERS:
            raise ValueError(f"{self.name}: {self.key_template} makes no keys of its own for each task and number")

    @property
    def folder(self) -> str:
        """The first part of its keys."""
        return self.key_template.partition("/")[0]

    def key(self, task_id: str, number: int, extension: str) -> str:
        """The key of an output within its bucket, without the prefix of an owner."""
        suffix = f"_{number}" if number else ""
        return self.key_template.format(task_id=task_id, number=number, _number=suffix, extension=extension)

    def extension_of(self, content_type: str) -> str:
        """Raises ValueError for a type that no file of this kind has."""
        for media_type in self.media_types:
            if media_type.name == content_type:
                return media_type.extension
        raise ValueError(f"no {self.name} is {content_type}")

    def sniff(self, head: bytes) -> str | None:
        """Which of its types a file has, by its first bytes; None for any other."""
        return next((media_type.name for media_type in self.media_types if media_type.matches(head)), None)


class AssetKinds:
    """The registered kinds, in order. Statements, documents and checks are composed from them once."""

    def __init__(self, kinds: Iterable[AssetKind]) -> None:
        self._kinds: dict[str, AssetKind] = {}
        for kind in kinds:
            if kind.name in self._kinds:
                raise ValueError(f"{kind.name} names two kinds of assets")
            self._kinds[kind.name] = kind
        self._check_tables()
        templates = [kind.key_template for kind in self]
        if len(set(templates)) < len(templates):
            raise ValueError(f"kinds share their keys: {sorted(templates)}")
        for field in self.result_fields:
            if len({kind.many for kind in self if kind.result_field == field}) > 1:
                raise ValueError(f"{field} is a list for one kind and not for another")

    def _check_tables(self) -> None:
        for table in self.tables:
            sharing = self.of_table(table)
            if len({kind.columns for kind in sharing}) > 1:
                raise ValueError(f"kinds of one table have the same columns: {[kind.name for kind in sharing]}")
            if len(sharing) > 1 and "kind" not in sharing[0].columns:
                raise ValueError(f"{table} is shared and has no column that says of which kind a row is")

    def __iter__(self) -> Iterator[AssetKind]:
        return iter(self._kinds.values())

    def __getitem__(self, name: str) -> AssetKind:
        """Raises KeyError for a kind that nobody registered."""
        return self._kinds[name]

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind.table for kind in self))

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind.folder for kind in self))

    @property
    def result_fields(self) -> Mapping[str, bool]:
        """The fields of ``result`` in a status document, and whether each is a list."""
        return {kind.result_field: kind.many for kind in self}

    def of_table(self, table: str) -> tuple[AssetKind, ...]:
        return tuple(kind for kind in self if kind.table == table)
