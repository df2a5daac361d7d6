"""Structured logs without secrets, and the metrics of the HTTP layer."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, cast

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

from app.config import Settings

REQUESTS = Counter("makeit3d_http_requests_total", "Answered HTTP requests", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "makeit3d_http_request_seconds",
    "Time from a request's head to the end of its answer",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
POLLS = Counter("makeit3d_polls_total", "Polls answered before the framework is asked", ["source"])
OPEN_POLLS = Gauge("makeit3d_http_open_long_polls", "Requests for a status that wait for a change")
OPEN_STREAMS = Gauge("makeit3d_http_open_event_streams", "Event streams being served")

_MASK = "[hidden]"
_WORD = 40  # characters: a name or an id
_WORDS_REMEMBERED = 4096
_LEAST_SECRET = 8  # characters; a shorter value would hide ordinary words
_SECRET_NAMES = frozenset(
    {"authorization", "apikey", "api_key", "token", "access_token", "refresh_token", "secret", "password", "passwd"}
    | {"cookie", "set-cookie", "jwt", "content_key", "service_key", "dsn", "signature"}
)
_SECRETS = re.compile(
    r"(?i:bearer\s+)\S+"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # JWT
    r"|\b(?:sk|tsk|rk)[-_][A-Za-z0-9_-]{8,}"
    r"|\bsb_(?:secret|publishable)_[A-Za-z0-9_-]+"
    r"|\bwhsec_\S+"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"  # user and password of a URL
    r"|(?i:(?<=[?&]key=)|(?<=[?&]token=)|(?<=[?&]apikey=)|(?<=[?&]signature=)|(?<=[?&]x-amz-signature=))[^&\s\"']+"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_QUIET = (
    "celery",  # two lines per bell
    "httpx",
    "httpcore",
    "hpack",
    "asyncio",
    "urllib3",
    "sse_starlette",
    "multipart",
    "python_multipart",
    "PIL",
)


def configure_logging(settings: Settings) -> None:
    """Send structlog and the standard library's loggers to stderr, in one format, one line per event."""
    hide = secret_dropper(settings.secrets())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide,
    ]
    last: list[Processor] = (
        [structlog.processors.JSONRenderer(serializer=_to_json)]
        if settings.log_format == "json"
        else [escape_control_characters, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
        logger_factory=partial(_Lines, handler),
        cache_logger_on_first_use=True,
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:-1], structlog.stdlib.ExtraAdder(), _drop_colors, hide],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(capture=True)
    for name in _QUIET:  # they log much, also URLs and chunks of bodies
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # our own line says it without the query


class _Lines:
    """Writes structlog's lines beside those of the standard library, without making a record of each first, which
    would cost as much as the line."""

    def __init__(self, handler: logging.StreamHandler[Any], name: str = "root") -> None:
        self._handler = handler
        self.name = name

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads: work goes on
            self._handler.acquire()
            try:
                self._handler.stream.write(line + "\n")
                self._handler.flush()
            finally:
                self._handler.release()

    debug = info = warning = error = critical = exception = log = msg


def _drop_colors(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn says everything twice
    return event


def drop_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide values under names of secrets, and whatever looks like one inside any text."""
    return cast("EventDict", _hide(event, partial(_SECRETS.sub, _MASK)))


def secret_dropper(secrets: Iterable[str]) -> Processor:
    """As ``drop_secrets``, and also these very values, whatever a key of a provider looks like."""
    known = [re.escape(secret) for secret in secrets if len(secret) >= _LEAST_SECRET]
    clean = partial(re.compile("|".join((*known, _SECRETS.pattern))).sub, _MASK)
    clean_word = lru_cache(_WORDS_REMEMBERED)(clean)  # most texts of a line were in one before

    def drop(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return cast("EventDict", _hide(event, lambda text: clean_word(text) if len(text) <= _WORD else clean(text)))

    return drop


def escape_control_characters(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep one event on one line, so that what a client sent can not pretend to be another event."""
    return {key: _escape(value, keep_lines=key in ("exception", "stack")) for key, value in event.items()}


def _hide(value: object, clean: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, MutableMapping):
        items = cast("MutableMapping[object, object]", value).items()
        return {key: _MASK if str(key).lower() in _SECRET_NAMES else _hide(item, clean) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hide(item, clean) for item in cast("Iterable[object]", value)]
    return value


def _escape(value: object, *, keep_lines: bool) -> object:
    if not isinstance(value, str):
        return value
    if keep_lines:
        # indented, a line of a message can not look like an event of its own
        return "\n    ".join(str(_escape(line, keep_lines=False)) for line in value.split("\n"))
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def _to_json(event: Any, **_: Any) -> str:  # noqa: ANN401 - structlog's serializer
    line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    # JSON allows them plain, but terminals obey some and tools break lines at others
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
