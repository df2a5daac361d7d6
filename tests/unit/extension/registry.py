"""The registry of a gateway with plugins: everything that the product has, and one line for each plugin."""

from __future__ import annotations

from dataclasses import replace

from app.container import build_registry as build_product
from app.registry import Registry
from app.task_types.registry import TaskTypes

from tests.unit.extension.obelisk import OBELISK


def build_registry() -> Registry:
    product = build_product()
    return replace(product, task_types=TaskTypes([*product.task_types, OBELISK]))
