"""What a task type plans: steps in their order, each with what it makes, as data. Planning writes and asks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.ai_clients.base import Capability, ImageRequest, ModelRequest, Provider
from app.ai_clients.limits import Fault
from app.db.assets import Sources
from app.domain.asset_kinds import AssetKind
from app.domain.jobs import ITEMS_PER_JOB
from app.domain.params import ImageJob, ModelJob, ObjectRef
from app.errors import AppError, ErrorCode

if TYPE_CHECKING:
    from app.ai_clients.registry import Providers


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request's inputs are, checked to be the caller's: objects by the key of the input they were sent as."""

    objects: Mapping[str, tuple[ObjectRef, ...]] = field(default_factory=dict[str, tuple[ObjectRef, ...]])
    sources: Sources = field(default_factory=Sources)

    def all(self, key: str) -> tuple[ObjectRef, ...]:
        return self.objects.get(key, ())

    def one(self, key: str) -> ObjectRef | None:
        return next(iter(self.all(key)), None)


@dataclass(frozen=True, slots=True)
class Output:
    """An asset that a step makes. ``from_step`` is the step that made what it is made from: the first output of a kind
    that a row can name as its source."""

    kind: AssetKind
    prompt: str = ""
    style: str | None = None
    from_step: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request: its pool, its parameters and what it is to make.

    It is one job, unless it has more than ``items_per_job`` items to work through: its own, or those that the earlier
    step ``items_from`` yields. Several jobs make one output for each item, or none; a step of yielded items, whose
    number nobody knows before, makes none.
    """

    type: str  # of its jobs
    provider: str | None
    pool: str
    params: Mapping[str, Any]
    outputs: tuple[Output, ...] = ()
    estimate_micros: int = 0  # what its paid calls may cost, USD micros
    items: tuple[str, ...] = ()
    items_from: int | None = None
    items_per_job: int = ITEMS_PER_JOB
    participants: tuple[str, ...] = ()  # who takes part when its jobs are accepted and end
    price: Mapping[str, Any] | None = None  # None: its share of the price of the task type, by estimates

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.items_per_job < 1 or (self.items and self.items_from is not None):
            raise ValueError("a step works through items of its own, or through those of one other step")
        if len(set(self.items)) < len(self.items):
            raise ValueError("a step has two items of one key")
        if self.outputs and self.items_from is not None:
            raise ValueError("a step of yielded items makes no outputs: their number is not known before")
        if len(self.items) > self.items_per_job and len(self.outputs) not in (0, len(self.items)):
            raise ValueError("several jobs of a step make one output for each item, or none")


class ParamsRefused(AppError):
    """Parameters that the chosen provider does not take."""

    def __init__(self, faults: Sequence[Fault], *, within: str = "") -> None:
        """``within`` is the member of the body that the parameters are."""
        self.faults = tuple(faults)
        whole = within or "body"
        told = [
            {
                "field": whole if fault.field == "body" else f"{within}.{fault.field}".lstrip("."),
                "code": fault.code,
                "message": fault.message,
            }
            for fault in faults
        ]
        super().__init__(ErrorCode.VALIDATION_ERROR, extra={"errors": told})


_IMAGE_OPTIONS = ("size", "quality", "background", "output_format")


@dataclass(frozen=True, slots=True)
class Planning:
    """What a plan chooses from: providers, each with its pools, prices and limits."""

    providers: Providers
    wanted: str  # the task type, as a refusal names it
    words: str = ""  # the client's prompt
    safety_identifier: str | None = None  # a hash that stands for the user

    def offering(self, name: str | None, capability: Capability) -> Provider:
        """The named provider, or the default one. Raises AppError(PROVIDER_NOT_AVAILABLE)."""
        return self.providers.offering(name, capability, wanted=self.wanted)

    def images(self, job: ImageJob, *outputs: Output, provider: str | None = None) -> Step:
        """Pictures by one paid call. Raises AppError: PROVIDER_NOT_AVAILABLE, VALIDATION_ERROR."""
        drawn = Capability.IMAGE_TO_IMAGE if job.inputs else Capability.TEXT_TO_IMAGE
        capability = Capability.SKETCH_TO_IMAGE if job.sketch else drawn
        chosen = self.offering(provider, capability)
        options = {name: getattr(job, name) for name in _IMAGE_OPTIONS}
        self._check(chosen, capability, job.prompt, options)
        job = replace(job, safety_identifier=self.safety_identifier)
        request = ImageRequest(job.prompt, n=job.n, size=job.size, quality=job.quality, sketch=job.sketch)
        estimate = chosen.estimate(request, inputs=len(job.inputs)).micros
        pool = chosen.pool(request)
        return Step("generate_images", chosen.name, pool, job.as_json(), outputs, estimate)

    def model(
        self,
        capability: Capability,
        job: ModelJob,
        *outputs: Output,
        type: str = "generate_model",  # noqa: A002 - as the field it becomes
        provider: str | None = None,
    ) -> Step:
        """A model, or a step on the way to one. Raises AppError: PROVIDER_NOT_AVAILABLE, VALIDATION_ERROR."""
        chosen = self.offering(provider, capability)
        self._check(chosen, capability, job.prompt, asdict(job.options))
        request = ModelRequest(capability, options=job.options)
        estimate = chosen.estimate(request).micros
        return Step(type, chosen.name, chosen.pool(request), job.as_json(), outputs, estimate)

    def _check(self, provider: Provider, capability: Capability, text: str, options: Mapping[str, object]) -> None:
        """Hold a request to the limits of its own provider, and of no other. Raises ParamsRefused."""
        limits = provider.capabilities[capability]
        set_options = {name: value for name, value in options.items() if value is not None}
        # a prompt that is only kept with the asset is not sent
        faults = limits.prompt_faults(self.words, text) if text else []
        faults += limits.option_faults(set_options)
        if faults:
            raise ParamsRefused(faults)
