# ruff: noqa: S608 - names that were checked, and columns of a fixed set
"""The statements of the queue, composed once from the registered kinds of assets.

Names of tables, checked to be plain identifiers, and columns that the kinds declare are all that is put into a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.db.asset_tables import AssetTables, OutputTable
from app.db.sql import Statement, parse
from app.queue.fair_tags import TAGGED

_UNFINISHED = "('pending', 'processing')"


class Statements:
    def __init__(self, tables: AssetTables) -> None:
        every = tables.outputs
        fragments = {
            "tagged": TAGGED,
            "inputs": tables.inputs,
            "begin_outputs": _begin(every),
            "end_outputs": _end(every),
            "insert_outputs": _insert(every),
            "sources": _sources(tables),
        }
        found: dict[str, Statement] = {}
        for name in ("transitions.sql", "accept.sql", "claim.sql", "outputs.sql", "items.sql", "dependencies.sql"):
            found |= parse(Path(__file__).with_name(name).read_text(encoding="utf-8"), fragments)
        self.accept = found["accept_request"]
        self.look_up = found["look_up"]
        self.claim = found["claim_jobs"]
        self.lock_tasks = found["lock_tasks"]
        self.lock_own_task = found["lock_own_task"]
        self.finish_jobs = found["finish_jobs"]
        self.finish_outputs = found["finish_outputs"]
        self.record_items = found["record_items"]
        self.record_progress = found["record_job_progress"]
        self.add_items = found["add_items"]
        self.pending_items = found["pending_items"]
        self.advance_steps = found["advance_steps"]
        self.refuse_jobs = found["refuse_jobs"]
        self.roll_up = found["roll_up"]
        self.keep_end = found["keep_end"]
        self.stuck_jobs = found["stuck_jobs"]
        self.expire_stuck = found["expire_stuck"]
        self.lock_own_tasks = found["lock_own_tasks"]
        self.newest_requests = found["newest_requests"]
        self.add_dependencies = found["add_dependencies"]
        self.pending_dependents = found["pending_dependents"]
        self.advance_dependents = found["advance_dependents"]
        self.unstarted_jobs = found["unstarted_jobs"]
        self.expire_unstarted = found["expire_unstarted"]
        self.requeue_jobs = found["requeue_jobs"]
        self.cancel_jobs = found["cancel_jobs"]
        self.unfinished_tasks_of = found["unfinished_tasks_of"]
        self.tasks_of = found["tasks_of"]
        self.overdue_jobs = found["overdue_jobs"]
        self.expire_deadlines = found["expire_deadlines"]
        self.lost_jobs = found["lost_jobs"]
        self.expire_leases = found["expire_leases"]
        self.stranded_jobs = found["stranded_jobs"]
        self.expire_stranded = found["expire_stranded"]


def _union(tables: Sequence[OutputTable], select: str) -> str:
    return "output as (\n  " + "\n  union all ".join(select.format(n=t.n, name=t.name) for t in tables) + "\n)"


def _begin(tables: Sequence[OutputTable]) -> str:
    """The unfinished outputs of ``taken``, locked, as ``output``; those that are pending become processing."""
    parts = [
        f"output_{t.n} as materialized (\n"
        f"  select a.id, a.job_id, a.task_id, a.user_id, a.status, {_kind(t)} as kind, a.number, a.prompt\n"
        f"  from {t.actual} a join taken on taken.id = a.job_id where a.status in {_UNFINISHED}\n"
        "  for no key update of a\n"
        f"), begun_{t.n} as (\n"
        f"  update {t.actual} a set status = 'processing', updated_at = now() from output_{t.n} o\n"
        "  where a.id = o.id and o.status = 'pending'\n"
        ")"
        for t in tables
    ]
    return ", ".join([*parts, _union(tables, "select *, '{name}'::text as table_name from output_{n}")])


def _end(tables: Sequence[OutputTable]) -> str:
    """Rows of ``file`` become complete, those of ``missed`` what they say; both are ``output``."""
    told = "a.id, a.task_id, a.user_id, a.status, a.asset_url, a.error_code"
    parts: list[str] = []
    for t in tables:
        sizes = "".join(f", {column} = x.{column}" for column in ("width", "height") if column in t.columns)
        parts.append(
            f"complete_{t.n} as (\n"
            f"  update {t.actual} a set status = 'complete', asset_url = x.url, file_id = x.file_id,\n"
            "    ai_service_task_id = x.provider_task_id, preview_url = x.preview_url, updated_at = now(),\n"
            f"    error_code = null, error_message = null{sizes}\n"
            f"  from file x where x.kind in ({_names(t)}) and a.id = x.asset_id and a.status in {_UNFINISHED}\n"
            f"  returning {told}\n"
            f"), missed_{t.n} as (\n"
            f"  update {t.actual} a set status = x.status, error_code = x.error_code,\n"
            "    error_message = x.error_message, updated_at = now()\n"
            "  from missed x where a.job_id = x.job_id and (x.asset_id is null or a.id = x.asset_id)\n"
            f"    and a.status in {_UNFINISHED}\n"
            f"  returning {told}\n"
            ")"
        )
    both = "select *, '{name}'::text as table_name from complete_{n}\n  union all select *, '{name}' from missed_{n}"
    return ", ".join([*parts, _union(tables, both)])


def _insert(tables: Sequence[OutputTable]) -> str:
    """Rows of ``plan``, pending; all of them are ``output``."""
    parts: list[str] = []
    for t in tables:
        own = sorted(t.columns - {"kind", "width", "height"})
        columns = "".join(f", {column}" for column in (*own, *(["kind"] if "kind" in t.columns else [])))
        values = "".join(f", (select kept.id from kept where kept.id = p.{column})" for column in own)
        values += ", p.kind" if "kind" in t.columns else ""
        parts.append(
            f"output_{t.n} as (\n"
            f"  insert into {t.actual} (id, task_id, user_id, prompt, style, metadata, request_id, job_id,"
            f" number{columns})\n"
            "  select p.id, task.id, request.user_id, p.prompt, p.style, p.metadata, request.id, p.job_id,"
            f" p.number{values}\n"
            f"  from plan p, task, request where p.kind in ({_names(t)})\n"
            "  returning id, status\n"
            ")"
        )
    return ", ".join([*parts, _union(tables, "select *, '{name}'::text as table_name from output_{n}")])


def _sources(tables: AssetTables) -> str:
    """Rows that outputs are made from and that still exist, locked against their deletion."""
    named = {kind.table for kind in tables.kinds if kind.names_as is not None}
    actual = [tables.inputs, *(table.actual for table in tables.outputs if table.name in named)]
    return "\n  union all ".join(
        f"select id from (select id from {table} where id = any(:sources::uuid[]) for key share) as source_{n}"
        for n, table in enumerate(actual)
    )


def _kind(table: OutputTable) -> str:
    """Of a row ``a``."""
    return "a.kind" if "kind" in table.columns else table.kind


def _names(table: OutputTable) -> str:
    return ", ".join(f"'{kind}'" for kind in table.kinds)
