"""The kinds of assets that clients read today."""

from __future__ import annotations

from app.domain.sniff import GLB_FILE, JPEG_FILE, PNG_FILE, WEBP_FILE
from app.queue.contracts import AssetKind

CONCEPT = AssetKind(
    name="concept",
    table="concept_images",
    columns=frozenset({"source_input_asset_id", "source_concept_image_id", "width", "height"}),
    key_template="concepts/{task_id}/{number}.{extension}",
    result_field="image_urls",
    many=True,
    media_types=(PNG_FILE, JPEG_FILE, WEBP_FILE),
    names_as="source_concept_image_id",
)

_MODEL_COLUMNS = frozenset({"kind", "source_input_asset_id", "source_concept_image_id", "source_model_id"})

MODEL = AssetKind(
    name="model",
    table="models",
    columns=_MODEL_COLUMNS,
    key_template="models/{task_id}/model{_number}.{extension}",
    result_field="model_url",
    media_types=(GLB_FILE,),
    names_as="source_model_id",
)

REFINED_MODEL = AssetKind(
    name="refined_model",
    table="models",
    columns=_MODEL_COLUMNS,
    key_template="models/{task_id}/refined_model{_number}.{extension}",
    result_field="model_url",
    media_types=(GLB_FILE,),
    names_as="source_model_id",
)

KINDS = (CONCEPT, MODEL, REFINED_MODEL)
