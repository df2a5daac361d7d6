"""Policies on ``storage.objects``, by which signed-in users may use their own folder of an input bucket.

Only the owner of the table can make them, and on some projects that is not who migrates: what ``MISSING`` finds has a
``statement`` for the dashboard's SQL editor.
"""

from __future__ import annotations

from app.db.sql import load

_SQL = load(__file__)
MISSING = _SQL["missing_policies"]
