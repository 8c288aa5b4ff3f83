"""Ctrl-C that is not lost.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. Where that is a destructor (gRPC's channels
have some) or a callback of a weak reference (the import system has some), nobody hears of it: the interpreter prints it
and goes on. A command that waits would then wait for ever. So an interrupt that was lost, or would have been, comes
again a moment later; and the loop of a command that looks again and again rests in `pause`, which remembers.

Owns: the handlers of SIGINT and SIGALRM, and having been interrupted. Does not own: what an interrupt does (`main` ends
with 130).
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

_came: list[int] = []  # the signals that came; a handler may only do what is one step, and this is
_SOON = 0.01  # seconds until an interrupt comes again


def heed() -> None:
    """From now on remember each SIGINT, and raise it where that has an effect."""
    # Not where it is ignored: after `nohup`, or in the background of a script.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    tell = sys.unraisablehook

    def lost(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            _come_again(_SOON)
        else:
            tell(what)

    sys.unraisablehook = lost
    signal.signal(signal.SIGALRM, _remember)
    signal.signal(signal.SIGINT, _remember)


def forget() -> None:
    """Let no interrupt come again: nothing waits any more. (An interpreter that ends would be ended by it.)"""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    _come_again(0)


def pause(seconds: float) -> None:
    """Sleep; raises `KeyboardInterrupt` at a SIGINT, be it one that came before and was lost."""
    if not _came:
        time.sleep(seconds)
    if _came:
        _come_again(0)
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            _come_again(_SOON)
            return
        frame = frame.f_back
    _come_again(0)
    raise KeyboardInterrupt


def _come_again(seconds: float) -> None:
    """Have SIGALRM sent then; at 0, not at all."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
