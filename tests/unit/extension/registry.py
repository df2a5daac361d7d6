"""The registry of a gateway with plugins: everything that the product has, and one line for each plugin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.ai_clients.registry import ProviderRegistry
from app.container import build_registry as build_product
from app.job_types.registry import JobTypes
from app.queue.contracts import AssetKinds
from app.registry import Registry
from app.task_types.registry import TaskTypes

from tests.unit.extension.easel import EASEL
from tests.unit.extension.obelisk import OBELISK
from tests.unit.extension.pebble_checks import PEBBLES, PEBBLES_END, PebblesOfUsers
from tests.unit.extension.pebbles import POLISH_PEBBLES
from tests.unit.extension.video import VIDEO

VIDEOS = Path(__file__).with_name("videos.sql")  # the table of the kind of assets


def build_registry() -> Registry:
    product = build_product()
    return replace(
        product,
        providers=ProviderRegistry([*product.providers.specs, EASEL]),
        task_types=TaskTypes([*product.task_types, OBELISK]),
        job_types=JobTypes([*product.job_types, POLISH_PEBBLES]),
        asset_kinds=AssetKinds([*product.asset_kinds, VIDEO]),
        audit_checks=(*product.audit_checks, PEBBLES_END),
        doctor_checks=(*product.doctor_checks, PEBBLES),
        personal_data=(*product.personal_data, PebblesOfUsers()),
    )
