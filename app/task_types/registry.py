"""What a task type is, and which there are. A type is one file and one line in ``container.build_task_types``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import orjson

from app.domain.storage_urls import StorageRef
from app.errors import AppError, ErrorCode
from app.task_types.params import Params
from app.task_types.steps import Inputs, Planning, Step

P = TypeVar("P", bound=Params)

Category = Literal["generation", "processing", "orchestration", "utility"]
RunType = Literal["api", "gpu"]  # our own workers, or one that claims over HTTP
InputKind = Literal["picture", "model", "draft"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_URL_FIELD = re.compile(r".*_asset_urls?")


@dataclass(frozen=True, slots=True)
class Input:
    """Something that is there already and goes into the task: an object behind a URL, or a draft by its provider's id.

    ``key`` is its name in plans and in the body's hash and never changes; ``fields`` are the parameters that it may be
    sent as. The command line takes a file or a URL as ``option`` and uploads files as ``upload_as``.
    """

    key: str
    kind: InputKind
    fields: tuple[str, ...]
    option: str
    upload_as: str | None = None
    most: int = 1

    def values(self, params: Params) -> tuple[str, ...]:
        """What was sent: URLs, or a draft's id."""
        sent: list[str | list[str] | None] = [getattr(params, name) for name in self.fields]
        return tuple(text for value in sent for text in ([value] if isinstance(value, str) else value or ()))


def estimated(params: Params, steps: Sequence[Step]) -> int:
    """The price of most types: what the chosen providers may take, USD micros."""
    del params
    return sum(step.estimate_micros for step in steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType(Generic[P]):
    """One kind of work: its parameters, its inputs, and the pure function from them to steps.

    ``price`` is what a request of these parameters and steps may cost, in USD micros. ``example`` are parameters of a
    good request; its required fields and its inputs alone are one, too.
    """

    name: str  # also the last part of its route
    label: str
    description: str
    category: Category
    params: type[P]
    plan: Callable[[P, Inputs, Planning], Sequence[Step]]
    example: Mapping[str, Any]
    inputs: tuple[Input, ...] = ()
    aliases: tuple[str, ...] = ()
    run_type: RunType = "api"
    price: Callable[[P, Sequence[Step]], int] = estimated

    def __post_init__(self) -> None:
        """Raises ValueError: a type that forgets an input would take two requests for one."""
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a task type.")
        of_inputs = {name for item in self.inputs for name in item.fields}
        links = {name for name in self.params.model_fields if _URL_FIELD.fullmatch(name)}
        if wrong := (of_inputs - self.params.model_fields.keys()) | (links - of_inputs):
            raise ValueError(f"Parameters and inputs of {self.name} disagree about {', '.join(sorted(wrong))}.")

    def input_urls(self, params: P) -> dict[str, tuple[str, ...]]:
        """URLs by input; one that was not sent is left out."""
        sent = {item.key: item.values(params) for item in self.inputs if item.kind != "draft"}
        return {key: urls for key, urls in sent.items() if urls}

    def set_fields(self, params: P) -> dict[str, Any]:
        """What was set to something else than its default, in one spelling; inputs are not here, which their objects
        stand for."""
        names = self.params.model_fields.keys() - self._links()
        return params.model_dump(mode="json", include=names, exclude_defaults=True, exclude_none=True)

    def kept(self, params: P, lasting: Mapping[str, str]) -> dict[str, Any]:
        """What is stored of a request: what was set, inputs by the URLs that ``lasting`` has for those that were sent.

        A signed URL in a row would open its object to everyone who reads the row.
        """
        sent: dict[str, str | list[str] | None] = {name: getattr(params, name) for name in self._links()}
        links = {
            name: lasting.get(value) if isinstance(value, str) else [lasting.get(url) for url in value]
            for name, value in sent.items()
            if value is not None
        }
        return self.set_fields(params) | links

    def body_hash(self, params: P, objects: Mapping[str, StorageRef]) -> str:
        """Identifies the request within its task: a repeat has the same one, whatever way the client spelled it.

        ``objects`` are what the input URLs lead to: two links to one object are one input. A URL without an object,
        which no request was ever accepted with, stands for itself. Nothing else than what was set counts, so that a
        field that is new tomorrow changes no hash of today.
        """
        inputs = {
            key: [[objects[url].bucket, objects[url].key] if url in objects else url for url in urls]
            for key, urls in self.input_urls(params).items()
        }
        body = {"operation": self.name, "fields": self.set_fields(params), "inputs": inputs}
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _links(self) -> set[str]:
        """The fields that hold URLs."""
        return {name for item in self.inputs if item.kind != "draft" for name in item.fields}

    def least_example(self) -> P:
        """The example without what may be left out: every option has its default."""
        needed = {name for name, found in self.params.model_fields.items() if found.is_required()}
        needed.update(name for item in self.inputs for name in item.fields)
        return self.params.model_validate({name: value for name, value in self.example.items() if name in needed})


AnyTaskType = TaskType[Any]


class TaskTypes:
    """The task types of a process, by name and by alias. Frozen: nothing is added later."""

    def __init__(self, types: Iterable[AnyTaskType]) -> None:
        self._types = tuple(types)
        self._spellings: dict[str, AnyTaskType] = {}
        for task_type in self._types:
            for name in (task_type.name, *task_type.aliases):
                if name in self._spellings:
                    raise ValueError(f"{name} names two task types.")
                self._spellings[name] = task_type

    def __iter__(self) -> Iterator[AnyTaskType]:
        return iter(self._types)

    @property
    def names(self) -> list[str]:
        return [task_type.name for task_type in self._types]

    def find(self, name: str) -> AnyTaskType | None:
        """By name or alias."""
        return self._spellings.get(name)

    def named(self, name: str) -> AnyTaskType:
        """By name or alias. Raises AppError(UNKNOWN_TASK_TYPE), which tells the names there are."""
        found = self.find(name)
        if found is None:
            detail = f"Known are {', '.join(self.names)}."
            raise AppError(ErrorCode.UNKNOWN_TASK_TYPE, detail, extra={"task_types": self.names})
        return found


def provider_of(params: Params) -> str | None:
    """The provider that the client named, where the type lets them."""
    return cast("str | None", getattr(params, "provider", None))
