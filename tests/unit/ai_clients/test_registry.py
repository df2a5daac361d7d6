"""Providers are found by name and by operation, and every pool they name exists."""

from __future__ import annotations

import pytest
from app.ai_clients.base import ImageProvider, ImageRequest, ModelKind, ModelProvider, ModelSpec
from app.ai_clients.fake import FakeImages, FakeModels
from app.ai_clients.registry import Providers, build_providers, pools
from app.domain.operations import ModelOptions, Operation
from app.errors import AppError, ErrorCode

from tests.unit.ai_clients.support import make_settings


async def test_the_real_providers() -> None:
    providers = build_providers(make_settings())
    assert providers.images(None, Operation.TEXT_TO_IMAGE).name == "openai"
    assert providers.images("openai", Operation.IMAGE_TO_IMAGE).name == "openai"
    assert providers.images(None, Operation.SKETCH_TO_MODEL).name == "openai"
    for operation in (
        Operation.TEXT_TO_MODEL,
        Operation.IMAGE_TO_MODEL,
        Operation.SKETCH_TO_MODEL,
        Operation.REFINE_MODEL,
    ):
        assert providers.models(None, operation).name == "tripo"
    assert providers.image_provider("openai").name == "openai"
    assert providers.model_provider("tripo") is providers.all_models["tripo"]
    await providers.aclose()


def test_the_first_that_offers_is_the_default() -> None:
    first: ImageProvider = FakeImages("one")
    model: ModelProvider = FakeModels("three")
    providers = Providers(images=[first, FakeImages("two")], models=[model])
    assert providers.images(None, Operation.TEXT_TO_IMAGE).name == "one"
    assert providers.images("two", Operation.TEXT_TO_IMAGE).name == "two"


@pytest.mark.parametrize(
    ("name", "operation"),
    [(None, Operation.TEXT_TO_MODEL), ("nobody", Operation.TEXT_TO_IMAGE), ("one", Operation.REFINE_MODEL)],
)
def test_what_nobody_offers(name: str | None, operation: Operation) -> None:
    providers = Providers(images=[FakeImages("one")])
    with pytest.raises(AppError) as caught:
        providers.images(name, operation)
    assert caught.value.error is ErrorCode.PROVIDER_NOT_AVAILABLE


@pytest.mark.parametrize("name", [None, "nobody"])
def test_a_job_of_a_provider_that_is_gone(name: str | None) -> None:
    providers = Providers(images=[FakeImages("one")], models=[FakeModels("two")])
    for find in (providers.image_provider, providers.model_provider):
        with pytest.raises(AppError) as caught:
            find(name)
        assert caught.value.error is ErrorCode.PROVIDER_NOT_AVAILABLE


async def test_every_pool_that_is_named_has_slots() -> None:
    settings = make_settings(tripo_h_slots=7)
    known = pools(settings)
    assert known["tripo_h"].slots == 7
    assert "local" in known
    providers = build_providers(settings)
    assert known[providers.image_provider("openai").pool(ImageRequest("x"))].provider == "openai"
    for kind in ModelKind:
        for version in (None, "P1-20260311", "P2-20260801"):
            spec = ModelSpec(kind, options=ModelOptions(model_version=version))
            assert known[providers.model_provider("tripo").pool(spec)].provider == "tripo"
    await providers.aclose()
