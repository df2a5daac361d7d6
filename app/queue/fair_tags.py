"""Fair tags: whose turn it is within lane, pool and priority. A job gets its tag when it becomes claimable, so that
nobody saves up turns while a step or a limit holds a job back; a retry keeps the tag it had.

Lock order: a user's tags come after tasks and jobs. They are held until the transaction ends.
"""

from __future__ import annotations

from pathlib import Path

# put in for {tagged} by statements that make jobs claimable: a function would be planned apart from what it is given
TAGGED = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").rstrip("\n")
