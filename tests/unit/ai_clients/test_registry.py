"""Providers are found by name and by operation, and every pool they name exists."""

from __future__ import annotations

import pytest
from app.ai_clients.base import Capability, ImageRequest, ModelRequest, PolledProvider, SynchronousProvider
from app.ai_clients.registry import Providers, build_registry
from app.ai_clients.tripo.limits import CAPABILITIES
from app.domain.operations import ModelOptions
from app.errors import AppError, ErrorCode

from tests.fake_providers import FakeImages, FakeModels
from tests.unit.ai_clients.support import make_settings


async def test_the_real_providers() -> None:
    providers = build_registry().build(make_settings())
    assert providers.offering(None, Capability.TEXT_TO_IMAGE).name == "openai"
    assert providers.offering("openai", Capability.IMAGE_TO_IMAGE).name == "openai"
    assert providers.offering(None, Capability.SKETCH_TO_IMAGE).name == "openai"
    assert providers.offering("tripo", Capability.SKETCH_TO_IMAGE).name == "tripo"
    for capability in (
        Capability.TEXT_TO_MODEL,
        Capability.IMAGE_TO_MODEL,
        Capability.MULTIVIEW_TO_MODEL,
        Capability.IMPORT_MODEL,
        Capability.TEXTURE_MODEL,
    ):
        assert providers.offering(None, capability).name == "tripo"
    assert isinstance(providers.named("openai"), SynchronousProvider)
    assert not isinstance(providers.named("openai"), PolledProvider)
    assert providers.named("tripo") is providers.polled["tripo"]
    assert not isinstance(providers.named("tripo"), SynchronousProvider)
    assert list(providers.polled) == ["tripo"]
    await providers.aclose()


def test_the_first_that_offers_is_the_default() -> None:
    first: SynchronousProvider = FakeImages("one")
    model: PolledProvider = FakeModels("three")
    providers = Providers([first, FakeImages("two"), model])
    assert providers.offering(None, Capability.TEXT_TO_IMAGE).name == "one"
    assert providers.offering("two", Capability.TEXT_TO_IMAGE).name == "two"


@pytest.mark.parametrize(
    ("name", "capability"),
    [(None, Capability.TEXT_TO_MODEL), ("nobody", Capability.TEXT_TO_IMAGE), ("one", Capability.TEXTURE_MODEL)],
)
def test_what_nobody_offers(name: str | None, capability: Capability) -> None:
    providers = Providers([FakeImages("one")])
    with pytest.raises(AppError) as caught:
        providers.offering(name, capability)
    assert caught.value.error is ErrorCode.PROVIDER_NOT_AVAILABLE


@pytest.mark.parametrize("name", [None, "nobody"])
def test_a_job_of_a_provider_that_is_gone(name: str | None) -> None:
    providers = Providers([FakeImages("one"), FakeModels("two")])
    with pytest.raises(AppError) as caught:
        providers.named(name)
    assert caught.value.error is ErrorCode.PROVIDER_NOT_AVAILABLE


async def test_every_pool_that_is_named_has_slots() -> None:
    settings = make_settings(tripo_h_slots=7)
    known = build_registry().pools(settings)
    assert known["tripo_h"].slots == 7
    assert "local" in known
    providers = build_registry().build(settings)
    assert known[providers.named("openai").pool(ImageRequest("x"))].provider == "openai"
    for kind in CAPABILITIES:
        for version in (None, "P1-20260311", "P2-20260801"):
            spec = ModelRequest(kind, options=ModelOptions(model_version=version))
            assert known[providers.named("tripo").pool(spec)].provider == "tripo"
    await providers.aclose()
