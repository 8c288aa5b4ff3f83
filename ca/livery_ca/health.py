"""What is wrong with this authority at the moment, in words for people and one word for probes.

Owns: the list of present troubles, each with its name and reason, and what they mean: degraded (it serves, somebody
should look) or failing (it cannot issue). Does not own: finding them; each watcher reports here.

Invariants: a trouble is logged when it comes and when it goes, not in between; what is not reported is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from livery.runtime.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong. `failing`: nothing can be issued until it is mended."""

    why: str
    failing: bool = False


class Health:
    """The troubles of one authority."""

    def __init__(self, metrics: Metrics) -> None:
        self._troubles: dict[str, Trouble] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._gauge = metrics.gauge("ca_trouble", "1 while something of this name is wrong.", ("name",))

    @property
    def troubles(self) -> dict[str, Trouble]:
        """What is wrong now, by name."""
        return dict(self._troubles)

    @property
    def is_ready(self) -> bool:
        """Whether certificates can be issued."""
        return not any(trouble.failing for trouble in self._troubles.values())

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with `is_ready` whenever a trouble comes or goes."""
        self._listeners.append(listener)

    def report(self, name: str, trouble: Trouble | None) -> None:
        """Say what is wrong under this name, or (None) that nothing is."""
        before = self._troubles.get(name)
        if trouble == before:
            return
        if trouble is None:
            del self._troubles[name]
            _log.info("recovered", trouble=name)
        else:
            self._troubles[name] = trouble
            _log.error("degraded", trouble=name, why=trouble.why, failing=trouble.failing)
        self._gauge.labels(name).set(0 if trouble is None else 1)
        for listener in self._listeners:
            listener(self.is_ready)

    def as_document(self) -> dict[str, Any]:
        """The state as JSON shows it."""
        state = "failing" if not self.is_ready else "degraded" if self._troubles else "ok"
        return {"state": state, "troubles": {name: trouble.why for name, trouble in sorted(self._troubles.items())}}
