"""Numbers about this process, in Prometheus' text format.

Owns: one registry per process (never the library's global one), the `livery_` prefix and the default buckets. Does not
own: which numbers exist; each component asks for its own, and asking twice for the same one gives the same one.

Invariant: labels have few values. An identity, a path or an address is never a label; those belong to the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PREFIX = "livery_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds: from a cached decision (tens of microseconds) to a call that waited for another machine.
SECONDS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)

_M = TypeVar("_M", Counter, Gauge, Histogram)


class Metrics:
    """One process's numbers."""

    __slots__ = ("_known", "_registry")

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._known: dict[str, Counter | Gauge | Histogram] = {}
        ProcessCollector(registry=self._registry)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only grows; its exported name ends in `_total`."""
        return self._once(Counter, name, labels) or self._keep(
            name, Counter(PREFIX + name, documentation, labels, registry=self._registry)
        )

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that goes up and down."""
        return self._once(Gauge, name, labels) or self._keep(
            name, Gauge(PREFIX + name, documentation, labels, registry=self._registry)
        )

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """A distribution; with the default buckets, of seconds."""
        return self._once(Histogram, name, labels) or self._keep(
            name, Histogram(PREFIX + name, documentation, labels, registry=self._registry, buckets=buckets)
        )

    def render(self) -> bytes:
        """Every number in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def _once(self, kind: type[_M], name: str, labels: Sequence[str]) -> _M | None:
        known = self._known.get(name)
        if known is None:
            return None
        if not isinstance(known, kind) or known._labelnames != tuple(labels):  # noqa: SLF001 - no public reader
            raise ValueError(f"metric {name} exists with another type or other labels")
        return known

    def _keep(self, name: str, metric: _M) -> _M:
        self._known[name] = metric
        return metric
