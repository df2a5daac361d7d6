"""What beat says when it can not ring."""

from __future__ import annotations

from pathlib import Path

import pytest
from app.tasks.beat import Schedule
from app.tasks.celery_app import create_celery
from structlog.testing import capture_logs

from tests.integration.factories import settings_for


def test_a_bell_that_fails_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_celery(settings_for("postgresql://x", tmp_path))
    app.conf.update(broker_url="nobody://")  # fails at once; a broker that refuses is asked for seconds
    schedule = Schedule(app=app, schedule_filename=app.conf.beat_schedule_filename, lazy=True)
    schedule.setup_schedule()
    with capture_logs() as logs:
        schedule.apply_entry(schedule.schedule["sweep"])
    schedule.close()
    (line,) = logs
    assert (line["event"], line["lane"]) == ("bell_failed", "normal")
    assert line["error"] != "SchedulingError"
    assert not caplog.records
