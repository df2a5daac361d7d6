"""Loaded by schemathesis: a check that knows which refusals no JSON schema can foretell.

``positive_data_acceptance`` wants every body accepted that fits the schema. Much of ours depends on what exists (the
objects behind URLs, drafts, keys used before) or on two fields at once, and is refused with a code that says so. This
check takes its place: what the schema does describe is never the reason for a refusal.
"""

from __future__ import annotations

from typing import Any

import schemathesis

# faults that say more than a schema can: two fields that do not go together, a header for another kind of caller
_BEYOND_SCHEMAS = frozenset({"value_error", "cursor_invalid", "uuid_parsing", "missing"})
# open in the document: which values there are depends on the provider that the body names
_PROVIDERS_CHOICE = frozenset({"model_version", "orientation", "texture_quality"})


@schemathesis.check
def schema_tells_what_is_refused(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    del ctx
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code != 422:
        return
    problem = response.json()
    if problem["code"] != "validation_error":
        return
    told = [fault for fault in problem["errors"] if not _is_beyond_schemas(fault)]
    if told:
        raise AssertionError(f"The schema allows what is refused: {told}")


def _is_beyond_schemas(fault: dict[str, Any]) -> bool:
    if fault["code"] == "literal_error":
        return fault["field"].split(".")[-1] in _PROVIDERS_CHOICE
    return fault["code"] in _BEYOND_SCHEMAS
