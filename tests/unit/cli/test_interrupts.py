"""A SIGINT ends a command that waits in a loop, whatever the interpreter was doing when it came."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from livery_cli.terminal import interrupts


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the interpreter dropped; SIGINT is heeded within the test, and is as before after it."""
    dropped: list[object] = []
    monkeypatch.setattr(interrupts, "_came", [])
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield dropped
    signal.signal(signal.SIGINT, before)


class EndsWhenInterrupted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def slept(seconds: float) -> None:
    raise AssertionError("it sleeps")


def test_an_interrupt_that_came_within_a_destructor_is_raised_at_the_next_pause(
    lost: list[object], monkeypatch: pytest.MonkeyPatch
):
    interrupts.heed()
    EndsWhenInterrupted()
    assert lost == [], "where it would be lost it is not raised, for that would be printed"
    monkeypatch.setattr("time.sleep", slept)
    with pytest.raises(KeyboardInterrupt):
        interrupts.pause(1)


def test_an_interrupt_is_raised_at_once_as_ever(lost: list[object]):
    interrupts.heed()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert lost == []


def test_without_an_interrupt_a_pause_is_a_sleep(lost: list[object], monkeypatch: pytest.MonkeyPatch):
    interrupts.heed()
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    interrupts.pause(0.2)
    assert (naps, lost) == ([0.2], [])


def test_where_a_shell_has_interrupts_ignored_they_stay_ignored(lost: list[object]):
    """POSIX 2.11: what a script runs in the background does not take part in its Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.heed()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert lost == []
