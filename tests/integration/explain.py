"""What a statement reads, as EXPLAIN ANALYZE counts it: pages and rows, never time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from app.db.pool import Connection

Plan = dict[str, Any]


async def explain(connection: Connection, text: str, arguments: Sequence[object], *, before: str = "") -> Plan:
    """The executed plan; its changes are undone, and those of ``before``, which makes something so beforehand. Of the
    second time: the first reads catalogs for functions' plans."""
    await _explain_once(connection, text, arguments, before)
    return await _explain_once(connection, text, arguments, before)


async def _explain_once(connection: Connection, text: str, arguments: Sequence[object], before: str) -> Plan:
    undo = connection.driver.transaction()
    await undo.start()
    try:
        if before:
            await connection.execute(before)
        await connection.execute(f"prepare hot as {text.rstrip().rstrip(';')}")
        types: list[str] = await connection.fetchval(
            "select parameter_types::text[] from pg_prepared_statements where name = 'hot'"
        )
        values = ", ".join(_literal(value, kind) for value, kind in zip(arguments, types, strict=True))
        given = f"({values})" if values else ""
        explained = await connection.fetchval(
            f"explain (analyze, buffers, timing off, costs off, format json) execute hot{given}"
        )
        await connection.execute("deallocate hot")
    finally:
        await undo.rollback()
    return (explained if isinstance(explained, list) else orjson.loads(explained))[0]["Plan"]


def _literal(value: object, kind: str) -> str:
    """As a parameter of the type."""
    if value is None:
        return "null"
    if kind in ("json", "jsonb"):
        text = orjson.dumps(value).decode()
    elif isinstance(value, list | tuple):
        text = "{" + ",".join(orjson.dumps(str(item)).decode() for item in value) + "}"
    else:
        text = str(value)
    return "'" + text.replace("'", "''") + "'"


def pages(plan: Plan) -> int:
    """Read, whether from memory or not."""
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def widest(plan: Plan) -> float:
    """The most rows that any node of the plan touched, thrown away or not."""
    removed = sum(value for name, value in plan.items() if name.startswith("Rows Removed"))
    own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return max([own, *(widest(child) for child in plan.get("Plans", []))])


def scans(plan: Plan) -> set[str]:
    """Relations that are read whole somewhere in a plan."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set[str]()
    return found.union(*(scans(child) for child in plan.get("Plans", ())))
