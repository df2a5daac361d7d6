"""A provider is one file and one line in a registry: this one is documented, and it runs."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import respx
from app.ai_clients.base import Capability, ImageRequest, PolledProvider, ProviderTaskState, SynchronousProvider
from app.ai_clients.errors import Advice, OutcomeUnknown, Refused
from app.ai_clients.openai.spec import OPENAI
from app.ai_clients.registry import ProviderRegistry, Providers
from app.ai_clients.tripo.spec import TRIPO
from app.config import Settings
from app.errors import ConfigurationError
from app.services.doctor.findings import Code, Finding
from app.services.doctor.providers import providers_group
from PIL import Image

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import make_settings
from tests.unit.extension.easel import EASEL

REPOSITORY = Path(__file__).resolve().parents[3]
BASE = "https://api.easel.example/v1"
KEY = "plain-words-are-a-key-too"


@pytest.fixture
def registry() -> ProviderRegistry:
    return ProviderRegistry(
        (
            OPENAI,
            TRIPO,
            EASEL,
        )
    )


@pytest.fixture
def settings(registry: ProviderRegistry) -> Settings:
    values: dict[str, Any] = make_settings().model_dump()
    return registry.settings.model_validate(values | {"EASEL_API_KEY": KEY, "easel_slots": 7})


@pytest.fixture
async def providers(registry: ProviderRegistry, settings: Settings) -> AsyncIterator[Providers]:
    built = registry.build(settings)
    yield built
    await built.aclose()


@pytest.fixture
def easel(providers: Providers) -> PolledProvider:
    return providers.polled["easel"]


def test_the_document_shows_this_very_file() -> None:
    text = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python title=\"easel.py\"\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert shown == [(Path(__file__).parent / "easel.py").read_text(encoding="utf-8")]


def test_the_core_does_not_name_it() -> None:
    named = [path for path in (REPOSITORY / "app").rglob("*.py") if "easel" in path.read_text(encoding="utf-8").lower()]
    assert named == []


def test_its_settings_pools_and_rates_are_the_gateways(registry: ProviderRegistry, settings: Settings) -> None:
    assert registry.pools(settings)["easel"].slots == 7
    assert registry.pools(settings)["easel"].provider == "easel"
    assert registry.requests_per_minute(settings)["easel"] == 30
    assert settings.service_addresses()["EASEL_BASE_URL"] == BASE
    assert KEY in settings.secrets()


@pytest.mark.parametrize(("field", "value"), [("easel_base_url", "http://127.0.0.1:1"), ("easel_api_key", "sandbox")])
def test_production_refuses_its_stand_in(
    registry: ProviderRegistry, settings: Settings, field: str, value: str
) -> None:
    production = {"environment": "production", field: value}
    changed = registry.settings.model_validate(settings.model_dump() | production)
    with pytest.raises(ConfigurationError, match=field.upper()):
        changed.refuse_sandbox_in_production()


def test_it_is_chosen_by_name_and_is_no_default(providers: Providers) -> None:
    assert providers.offering("easel", Capability.TEXT_TO_IMAGE).name == "easel"
    assert providers.offering(None, Capability.TEXT_TO_IMAGE).name == "openai"
    assert isinstance(providers.named("easel"), PolledProvider)
    assert not isinstance(providers.named("easel"), SynchronousProvider)


def test_its_limits_are_its_own(providers: Providers) -> None:
    limits = providers.named("easel").capabilities[Capability.TEXT_TO_IMAGE]
    assert limits.option_faults({"size": "1024x1024"}) == []
    assert [fault.field for fault in limits.option_faults({"size": "2048x2048"})] == ["size"]
    assert [fault.code for fault in limits.prompt_faults("x" * 501, "x" * 501)] == ["string_too_long"]


@respx.mock
async def test_the_doctor_asks_it(registry: ProviderRegistry, settings: Settings) -> None:
    respx.get(f"{BASE}/account").respond(401)
    check = next(check for check in providers_group(registry).checks if check.__name__ == "easel")
    assert await check(settings) == [Finding(Code.PROVIDER_KEY_REFUSED, "easel answered 401")]


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(out, "PNG")
    return out.getvalue()


@respx.mock
async def test_pictures_are_asked_for_followed_and_fetched(easel: PolledProvider) -> None:
    request = ImageRequest("a red fox", n=2)
    assert (easel.pool(request), easel.estimate(request).micros) == ("easel", 40_000)
    create = respx.post(f"{BASE}/paintings").respond(201, json={"id": "p-1"})
    call = await easel.prepare(request)
    assert not create.called, "what is prepared is not paid"
    before: list[int] = []

    async def before_first_byte() -> None:
        before.append(create.call_count)

    assert await easel.send(call, before_first_byte=before_first_byte) == "p-1"
    assert before == [1]  # respx answers before a byte is sent
    running = {"id": "p-1", "state": "wet", "progress": 40}
    done = {"id": "p-1", "state": "dry", "urls": ["https://cdn.easel.example/1", "https://cdn.easel.example/2"]}
    listing = respx.get(f"{BASE}/paintings", params={"ids": "p-1"})
    listing.side_effect = [httpx.Response(200, json={"paintings": [now]}) for now in (running, done)]
    first = (await easel.poll(["p-1"]))["p-1"]
    assert (first.state, first.progress) == (ProviderTaskState.RUNNING, 40)
    last = (await easel.poll(["p-1"]))["p-1"]
    assert (last.state, last.cost_micros, len(last.output_urls)) == (ProviderTaskState.SUCCEEDED, 40_000, 2)


@respx.mock
async def test_a_lost_answer_is_found_by_its_tag(easel: PolledProvider) -> None:
    respx.post(f"{BASE}/paintings").mock(side_effect=httpx.ReadError("broken"))
    call = await easel.prepare(ImageRequest("a red fox"))
    with pytest.raises(OutcomeUnknown):
        await easel.send(call, before_first_byte=unwatched)
    respx.get(f"{BASE}/paintings").respond(200, json={"paintings": [{"id": "p-1"}, {"id": "known"}]})
    found = await easel.find_submitted(call.fingerprint, since=datetime.now(UTC), known_ids=frozenset({"known"}))
    assert found == ["p-1"]
    assert cast("Any", respx.calls.last.request).url.params["tag"] == call.fingerprint["tag"]


@respx.mock
@pytest.mark.parametrize(("status", "advice"), [(401, Advice.CONFIGURATION), (429, Advice.DEFER), (422, Advice.FINAL)])
async def test_what_it_refuses_is_not_paid(easel: PolledProvider, status: int, advice: Advice) -> None:
    respx.post(f"{BASE}/paintings").respond(status)
    with pytest.raises(Refused) as refused:
        await easel.send(await easel.prepare(ImageRequest("x")), before_first_byte=unwatched)
    assert refused.value.advice is advice
