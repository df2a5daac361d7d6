"""Whether this machine can take results: the directory through which they pass, and the disk below it."""

from __future__ import annotations

import shutil
from tempfile import TemporaryFile

from app.config import Settings
from app.services.doctor.findings import Code, Finding


def disk_obstacle(settings: Settings) -> Finding | None:
    """What is wrong with the spool directory; None where it is fine."""
    directory = settings.spool_directory.absolute()
    there = next(path for path in (directory, *directory.parents) if path.exists())  # a start makes the rest
    try:
        with TemporaryFile(dir=there) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(Code.SPOOL_NOT_WRITABLE, f"{there}: {error.strerror or type(error).__name__}")
    needed = max(settings.max_model_bytes, settings.max_image_bytes)
    if free < needed:
        return Finding(Code.SPOOL_SHORT, f"{there} has {free:,} bytes free; one result may have {needed:,}")
    return None
