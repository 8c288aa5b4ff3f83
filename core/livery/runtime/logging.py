"""One JSON line per event, from our own code and from the libraries, to one sink.

Owns: the pipeline that every log record takes (ours by structlog, the libraries' by the standard library), its fields
(`time`, `level`, `event`, `role`, `request_id` while one is bound) and the sink. Does not own: what is worth saying;
audit records take another way to the same sink (`livery.runtime.audit`), because losing one of them is an error.

Invariants: nothing is written that `livery.runtime.redaction` did not see; tracebacks show no local variables; a log
line that cannot be written is counted and dropped, it never stops the work it tells of.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from livery.runtime.clock import Clock, SystemClock
from livery.runtime.redaction import redact

__all__ = ["Sink", "bind_contextvars", "bound_contextvars", "clear_contextvars", "configure", "get_logger"]

get_logger = structlog.stdlib.get_logger

LEVELS = ("debug", "info", "warning", "error", "critical")
# Libraries that bring handlers of their own, or write a line per request or (grpc) per wait: one per request is ours.
_ADOPTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "alembic", "grpc", "hvac")
_QUIET = ("uvicorn.access", "grpc._cython", "httpx2", "httpcore2", "urllib3", "asyncio", "watchfiles")


class Sink:
    """A stream that takes whole lines from any thread, and says when one could not be written.

    A file descriptor is written without a buffer, so that a line which failed is not written later by accident.
    """

    def __init__(self, stream: IO[str], patience: float = 5.0) -> None:
        """`patience` is how many seconds a full, non-blocking pipe may keep a line waiting."""
        self._stream = stream
        self._patience_ms = int(patience * 1000)
        self._lock = threading.Lock()
        self._torn = False
        self.lost = 0

    @property
    def is_terminal(self) -> bool:
        """Whether a person is reading."""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def write_line(self, line: str) -> None:
        """Write one line whole. Raises OSError or ValueError (the stream is closed) if that is not possible."""
        with self._lock:
            text = f"\n{line}\n" if self._torn else f"{line}\n"
            self._torn = True
            fd = self._descriptor()
            if fd is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                _write_all(fd, text.encode("utf-8", "backslashreplace"), self._patience_ms)
            self._torn = False

    def _descriptor(self) -> int | None:
        try:
            return self._stream.fileno()
        except (OSError, AttributeError):  # an in-memory stream has none (io.UnsupportedOperation is an OSError)
            return None


def _write_all(fd: int, data: bytes, patience_ms: int) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Somebody who shares our terminal or pipe made it non-blocking.
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(patience_ms):
                raise


class _SinkHandler(logging.Handler):
    """Hands finished lines to the sink, and drops (but counts) those it does not take."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            self._sink.write_line(line)
        except Exception:  # noqa: BLE001 - a task boundary: logging must not stop what it tells of
            self._sink.lost += 1


class _OwnLogger:
    """Renders what our own code says, and hands it to the sink.

    Not by way of the standard library's records, which cost as much again. A level that is changed there counts here:
    `disabled` and `getEffectiveLevel` are what structlog asks of a logger.
    """

    __slots__ = ("_renderers", "_sink", "getEffectiveLevel", "name")
    disabled = False

    def __init__(self, sink: Sink, renderers: Sequence[Processor], name: str) -> None:
        self._sink = sink
        self._renderers = renderers
        self.name = name
        self.getEffectiveLevel = logging.getLogger(name).getEffectiveLevel

    def write(self, event: Any) -> None:
        try:
            for render in self._renderers:
                event = render(self, "", event)
            self._sink.write_line(event)
        except Exception:  # noqa: BLE001 - a task boundary: logging must not stop what it tells of
            self._sink.lost += 1

    debug = info = warning = error = exception = critical = write


def configure(
    role: str,
    level: str = "info",
    stream: IO[str] | None = None,
    *,
    json: bool = True,
    clock: Clock | None = None,
) -> Sink:
    """Send every log record of this process to `stream` (default: stderr), and return the sink for audit records.

    `json` False gives plain lines for people. Raises ValueError for a level that is not in `LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}")
    sink = Sink(stream if stream is not None else sys.stderr)
    shared = _shared_processors(role, clock or SystemClock())
    renderers = _renderers(json=json, colors=sink.is_terminal)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, _as_argument],
        logger_factory=lambda name="livery": _OwnLogger(sink, renderers, name),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    _route_standard_library(level, sink, shared, renderers)
    return sink


def _shared_processors(role: str, clock: Clock) -> list[Processor]:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**event, "time": clock.now().isoformat(timespec="milliseconds"), "role": role}

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        stamp,
    ]


def _as_argument(_logger: WrappedLogger, _method: str, event: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    return (event,), {}


def _renderers(*, json: bool, colors: bool) -> list[Processor]:
    def hide(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return redact(event)

    # Tracebacks become text before they are searched for secrets; rich's form, which shows local variables, is unused.
    render: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    )
    return [
        structlog.processors.format_exc_info,
        hide,
        _leading_fields,
        render,
    ]


def _leading_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    leading = {name: event[name] for name in ("time", "level", "event", "role", "request_id") if name in event}
    return {**leading, **event}


def _route_standard_library(level: str, sink: Sink, shared: list[Processor], renderers: list[Processor]) -> None:
    handler = _SinkHandler(sink)
    of_libraries = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=of_libraries))
    root = logging.getLogger()
    for previous in [h for h in root.handlers if isinstance(h, _SinkHandler)]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _ADOPTED:
        adopted: Any = logging.getLogger(name)
        adopted.handlers.clear()
        adopted.propagate = True
    # Not in our lines, and looked up for each of them otherwise.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
