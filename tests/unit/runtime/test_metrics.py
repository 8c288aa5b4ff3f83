"""Numbers about one process, in a registry of its own."""

from __future__ import annotations

import prometheus_client
import pytest

from livery.runtime.metrics import Metrics


def test_names_carry_the_prefix_and_values_are_rendered() -> None:
    metrics = Metrics()
    metrics.counter("issued", "SVIDs issued.", ["profile"]).labels("workload").inc(3)
    metrics.gauge("streams", "Open streams.").set(7)
    metrics.histogram("sign_seconds", "Time to sign.").observe(0.003)
    text = metrics.render().decode()
    assert 'livery_issued_total{profile="workload"} 3.0' in text
    assert "livery_streams 7.0" in text
    assert 'livery_sign_seconds_bucket{le="0.005"} 1.0' in text


def test_asking_twice_gives_the_same_number() -> None:
    metrics = Metrics()
    metrics.counter("calls", "Calls.", ["method"]).labels("a").inc()
    metrics.counter("calls", "Calls.", ["method"]).labels("a").inc()
    assert 'livery_calls_total{method="a"} 2.0' in metrics.render().decode()


def test_one_name_cannot_be_two_things() -> None:
    metrics = Metrics()
    metrics.counter("calls", "Calls.")
    with pytest.raises(ValueError, match="another type"):
        metrics.gauge("calls", "Calls.")
    with pytest.raises(ValueError, match="other labels"):
        metrics.counter("calls", "Calls.", ["method"])


def test_two_roles_in_one_process_do_not_mix_and_the_global_registry_stays_empty() -> None:
    first, second = Metrics(), Metrics()
    first.counter("calls", "Calls.").inc()
    assert b"livery_calls" not in second.render()
    assert b"livery_calls" not in prometheus_client.generate_latest()


def test_the_process_itself_is_measured() -> None:
    assert b"process_resident_memory_bytes" in Metrics().render()
