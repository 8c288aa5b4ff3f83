"""A SIGINT ends a command that waits, whatever the interpreter was doing when it came."""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from livery_cli.terminal import interrupts


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the interpreter dropped; SIGINT is heeded within the test, and is as before after it."""
    dropped: list[object] = []
    monkeypatch.setattr(interrupts, "_came", [])
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm, left = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)  # the test's own time limit
    yield dropped
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, *left)
    signal.signal(signal.SIGINT, before)


class EndsWhenInterrupted:
    """It comes to its end all the same, and says so."""

    ended = False

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        EndsWhenInterrupted.ended = True


class Referred:
    """Something to hold a weak reference to."""


def in_a_destructor() -> None:
    EndsWhenInterrupted()


def in_a_callback_of_a_weak_reference() -> None:
    gone = Referred()
    reference = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
    del gone
    assert reference() is None


def slept(seconds: float) -> None:
    raise AssertionError("it sleeps")


def test_an_interrupt_that_came_within_a_destructor_is_raised_at_the_next_pause(
    lost: list[object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(EndsWhenInterrupted, "ended", False)
    monkeypatch.setattr(interrupts, "_SOON", 600)
    interrupts.heed()
    EndsWhenInterrupted()
    assert EndsWhenInterrupted.ended, "where it would be lost it is not raised, for that would cut it short"
    assert lost == []
    monkeypatch.setattr("time.sleep", slept)
    with pytest.raises(KeyboardInterrupt):
        interrupts.pause(1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "it does not come again"


@pytest.mark.parametrize("interrupted", [in_a_destructor, in_a_callback_of_a_weak_reference])
def test_an_interrupt_that_would_be_lost_comes_again_where_it_is_heard(
    interrupted: Callable[[], None], lost: list[object]
) -> None:
    """A command that waits for its peer, and never comes to a pause."""
    interrupts.heed()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
        threading.Event().wait(60)
    assert lost == [], "nor is it printed"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_none_comes_again_once_the_command_has_ended(lost: list[object]) -> None:
    interrupts.heed()
    in_a_destructor()
    interrupts.forget()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    in_a_callback_of_a_weak_reference()
    signal.raise_signal(signal.SIGALRM)
    assert lost == []


def test_what_else_is_dropped_is_told_as_ever(lost: list[object]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ZeroDivisionError

    interrupts.heed()
    Broken()
    assert lost == [ZeroDivisionError]


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
