"""The Logger service: how much this process logs, changed while it runs.

Owns: `spire.api.server.logger.v1.Logger`, and SPIRE's seven levels as our five. Does not own: the log.

Invariant: the level at launch is remembered, and Reset goes back to it.
"""
# ruff: noqa: N802, ARG002 - methods and parameters are the wire's

from __future__ import annotations

import logging
from typing import Any

from grpc.aio import ServicerContext

from livery.runtime.audit import Audit
from livery.wire import logger_api, types_api
from livery_ca.doors.guard.gate import admission_of
from livery_ca.doors.refusals import InvalidArgument

Context = ServicerContext[Any, Any]

# The quieter of two levels of SPIRE's that are one of ours comes first: it is the one we answer with.
_LEVELS = (
    (types_api.LogLevel.FATAL, logging.CRITICAL),
    (types_api.LogLevel.PANIC, logging.CRITICAL),
    (types_api.LogLevel.ERROR, logging.ERROR),
    (types_api.LogLevel.WARN, logging.WARNING),
    (types_api.LogLevel.INFO, logging.INFO),
    (types_api.LogLevel.DEBUG, logging.DEBUG),
    (types_api.LogLevel.TRACE, logging.DEBUG),
)


class LoggerDoor(logger_api.LoggerServicer):
    """Answers for the log's level."""

    def __init__(self, logger: logging.Logger, audit: Audit) -> None:
        self._logger = logger
        self._launched = logger.level
        self._audit = audit

    async def GetLogger(self, request: logger_api.GetLoggerRequest, context: Context) -> types_api.Logger:
        """The level in force and the one at launch."""
        return types_api.Logger(current_level=_to_wire(self._logger.level), launch_level=_to_wire(self._launched))

    async def SetLogLevel(self, request: logger_api.SetLogLevelRequest, context: Context) -> types_api.Logger:
        """Log as much as this from now on."""
        if request.new_level == types_api.LogLevel.UNSPECIFIED:
            raise InvalidArgument("newLevel value cannot be LogLevel_UNSPECIFIED")
        for theirs, ours in _LEVELS:
            if theirs == request.new_level:
                return self._set(ours, context)
        raise InvalidArgument("unsupported log level")

    async def ResetLogLevel(self, request: logger_api.ResetLogLevelRequest, context: Context) -> types_api.Logger:
        """Log as much as at launch."""
        return self._set(self._launched, context)

    def _set(self, level: int, context: Context) -> types_api.Logger:
        name = logging.getLevelName(level).lower()
        self._audit.record("log.level", "granted", level=name, caller=admission_of(context).asked_by)
        self._logger.setLevel(level)
        return types_api.Logger(current_level=_to_wire(level), launch_level=_to_wire(self._launched))


def _to_wire(level: int) -> types_api.LogLevel.ValueType:
    return next((theirs for theirs, ours in _LEVELS if ours == level), types_api.LogLevel.UNSPECIFIED)
