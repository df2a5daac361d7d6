"""Amounts of money: Decimal on the way in, whole USD micros, rounded up, on the way out."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal


def whole_micros(amount: Decimal) -> int:
    return int(amount.to_integral_value(rounding=ROUND_CEILING))
