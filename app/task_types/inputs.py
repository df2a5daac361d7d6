"""Inputs that several task types take, and the parameters they are sent as."""

from __future__ import annotations

from app.domain.operations import View
from app.task_types.registry import Input

VIEW_ORDER: tuple[View, ...] = ("front", "left", "back", "right")

PICTURE = Input(
    "input_image_asset_urls", "picture", ("input_image_asset_url",), option="image", upload_as="uploaded_photo"
)
VIEWS = Input(
    "input_image_asset_urls",
    "picture",
    ("input_image_asset_urls", "input_image_asset_url"),
    option="image",
    upload_as="uploaded_photo",
    most=len(VIEW_ORDER),
)
SKETCH = Input(
    "input_sketch_asset_url", "picture", ("input_sketch_asset_url",), option="sketch", upload_as="uploaded_sketch"
)
MODEL = Input("input_model_asset_url", "model", ("input_model_asset_url",), option="model", upload_as="uploaded_model")
DRAFT = Input("tripo_draft_task_id", "draft", ("tripo_draft_task_id",), option="draft")
