"""The sandbox's ledger as a provider's own record: what its stand-ins accepted and charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
from pydantic import SecretStr

from app.ai_clients.base import RecordedCall
from app.ai_clients.errors import Advice, Refused
from app.domain.money import whole_micros
from app.errors import ErrorCode

_PATIENCE = 30.0  # seconds
_MICROS_PER_CREDIT = 10_000  # where a stand-in charges in credits


class SandboxRecord:
    """The calls of one provider in the ledger at ``url``, the sandbox's address."""

    def __init__(self, url: str, admin_key: SecretStr, provider: str) -> None:
        self._url = url.rstrip("/")
        self._key = admin_key
        self._provider = provider

    async def recorded_calls(self, *, since: datetime) -> Sequence[RecordedCall]:
        """Raises Refused when the ledger can not be read."""
        try:
            async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as http:
                answer = await http.get(
                    f"{self._url}/admin/ledger", headers={"X-Admin-Key": self._key.get_secret_value()}
                )
            answer.raise_for_status()
            rows: list[dict[str, Any]] = answer.json()
            calls = [_call(row) for row in rows if row["provider"] == self._provider]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Refused(
                ErrorCode.PROVIDER_UNAVAILABLE,
                f"The sandbox's ledger can not be read ({type(error).__name__}): is this its address and admin key?",
                advice=Advice.CONFIGURATION,
            ) from None
        return [call for call in calls if call.accepted_at >= since]


def _call(row: Mapping[str, Any]) -> RecordedCall:
    charged = Decimal(row["charged"])
    micros = whole_micros(charged * _MICROS_PER_CREDIT) if row["unit"] == "credits" else int(charged)
    accepted_at = datetime.fromtimestamp(row["accepted_at"], UTC)
    decided = row["state"] != "frozen"
    return RecordedCall(str(row["reference"]), str(row["kind"]), accepted_at, micros if decided else None)
