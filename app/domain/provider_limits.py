"""What is known of the providers' versions and usual accounts. Source: Tripo v3's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ModelVersion = Literal["v3.1-20260211", "v3.0-20250812", "v2.5-20250123", "P1-20260311", "P2-20260801"]
TextureVersion = Literal["v3.5-20260815", "v3.0-20250812", "v2.5-20250123"]

# calls that an account may have under way, by pool
TRIPO_CALLS_AT_A_TIME: Mapping[str, int] = {"tripo_h": 10, "tripo_p": 5, "tripo_image": 1, "tripo_texture": 5}

TRIPO_POLL_SECONDS = 1.0  # no more often than this
