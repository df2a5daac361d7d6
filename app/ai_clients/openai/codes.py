"""Words of OpenAI that more than one module knows."""

from __future__ import annotations

# codes of a 429 that waiting does not help
NO_MONEY = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
