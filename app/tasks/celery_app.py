"""The Celery application: two queues that carry bells, nothing else. Built by a function, never at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from kombu.connection import Connection

from app.config import Settings
from app.domain.broker_url import celery_url
from app.domain.jobs import LANES, Lane

if TYPE_CHECKING:
    from app.tasks.runtime import Runtime

SHIFT_TASK = "makeit3d.run_shift"
SWEEP_TASK = "makeit3d.sweep"

_PAUSES = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}  # seconds between attempts to connect


@signals.setup_logging.connect
def _logging_is_ours(**_: object) -> None:
    """Who takes this signal keeps Celery from setting the level of all loggers."""


class BrokerConnection(Connection):
    """Kombu's own pauses grow to half a minute, and nobody would hear a bell that long after the broker came back."""

    def ensure_connection(self, *args: Any, **options: Any) -> Connection:  # noqa: ANN401 - kombu's arguments
        return super().ensure_connection(*args, **(_PAUSES | options))


def create_celery(settings: Settings, runtime: Runtime | None = None) -> Celery:
    """The application of this process. With a runtime it can work, without one it can only ring."""
    app = Celery("makeit3d", broker=celery_url(settings.redis_url.get_secret_value()))
    app.conf.update(
        task_ignore_result=True,  # the truth is in Postgres
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=True,
        task_default_queue="normal",
        task_publish_retry=False,  # a dead broker must not hold a request
        task_acks_late=False,  # bells are disposable
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_disable_rate_limits=True,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up during a long outage
        broker_transport_options={
            "visibility_timeout": 300,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        beat_schedule={
            "sweep": {
                "task": SWEEP_TASK,
                "schedule": max(5.0, settings.sweep_seconds),
                "options": {"queue": "normal", "expires": max(5.0, settings.sweep_seconds)},
            }
        },
        beat_schedule_filename=str(settings.home / "beat-schedule"),
    )
    app.amqp.Connection = BrokerConnection
    if runtime is not None:
        _register(app, runtime)
    return app


def _register(app: Celery, runtime: Runtime) -> None:
    """The two task bodies: hand a coroutine to the loop and wait for it."""

    def run_shift(lane: Lane) -> None:
        del lane  # the process works on all lanes it serves
        runtime.run_shift()

    def sweep() -> None:
        runtime.sweep()

    app.task(name=SHIFT_TASK)(run_shift)
    app.task(name=SWEEP_TASK)(sweep)


def ring(app: Celery, lane: Lane) -> None:
    """Publish one bell. Blocks for as long as the broker's timeouts allow; raises what kombu raises."""
    assert lane in LANES  # noqa: S101 - lanes are typed, a stray one would make a queue nobody reads
    app.send_task(SHIFT_TASK, args=(lane,), queue=lane, ignore_result=True)
