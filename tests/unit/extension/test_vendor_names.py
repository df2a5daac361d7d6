"""Everything of a vendor lies in its folder: nothing else of the product names one."""

from __future__ import annotations

import re
from pathlib import Path

APP = Path(__file__).resolve().parents[3] / "app"
VENDORS = re.compile(r"openai|tripo", re.IGNORECASE)

# the vendors' folders, their lines in the registry, and the stand-ins, which are the vendors' other side
OWN = ("ai_clients/openai/", "ai_clients/tripo/", "ai_clients/registry.py", "sandbox/", "sandbox_settings.py")

# names of the public contract
CONTRACT = re.compile(r"tripo_draft_task_id")


def test_no_other_file_names_a_vendor() -> None:
    named = [
        f"{path.relative_to(APP)}:{number}: {line.strip()}"
        for path in sorted((*APP.rglob("*.py"), *APP.rglob("*.sql"), *APP.rglob("*.json")))
        if not str(path.relative_to(APP)).startswith(OWN)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if VENDORS.search(CONTRACT.sub("", line))
    ]
    assert named == []


def test_every_exception_is_needed() -> None:
    files = [str(path.relative_to(APP)) for path in APP.rglob("*.py") if VENDORS.search(path.read_text("utf-8"))]
    assert [part for part in OWN if not any(name.startswith(part) for name in files)] == []
