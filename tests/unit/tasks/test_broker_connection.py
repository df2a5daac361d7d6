"""How long a worker or beat waits before it asks for a broker again that is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from app.tasks.celery_app import create_celery
from kombu.exceptions import OperationalError

from tests.integration.factories import settings_for
from tests.servers import free_port


def test_a_broker_that_comes_back_is_found_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", slept.append)
    pauses: list[float] = []

    def note(_: Exception, pause: float) -> None:
        pauses.append(pause)

    app = create_celery(settings_for("postgresql://x", tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    for connection in (app.connection_for_read(), app.connection_for_write().clone()):
        pauses.clear()
        with pytest.raises(OperationalError):
            connection.ensure_connection(note, 12)  # as Celery's consumer and beat do
        assert pauses[0] < 1
        assert max(pauses) == 3
    assert slept
