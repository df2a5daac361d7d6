"""The registry of a gateway with plugins: everything that the product has, and one line for each plugin."""

from __future__ import annotations

from dataclasses import replace

from app.container import build_registry as build_product
from app.job_types.registry import JobTypes
from app.registry import Registry
from app.task_types.registry import TaskTypes

from tests.unit.extension.obelisk import OBELISK
from tests.unit.extension.pebble_checks import PEBBLES, PEBBLES_END, PebblesOfUsers
from tests.unit.extension.pebbles import POLISH_PEBBLES


def build_registry() -> Registry:
    product = build_product()
    return replace(
        product,
        task_types=TaskTypes([*product.task_types, OBELISK]),
        job_types=JobTypes([*product.job_types, POLISH_PEBBLES]),
        audit_checks=(*product.audit_checks, PEBBLES_END),
        doctor_checks=(*product.doctor_checks, PEBBLES),
        personal_data=(*product.personal_data, PebblesOfUsers()),
    )
