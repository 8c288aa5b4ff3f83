"""Ctrl-C that is not lost.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. Where that is a destructor (gRPC's channels
have some), nobody hears of it: the interpreter prints it and goes on. A command that waits in a loop would then wait
for ever, so its loop rests in `pause`, which remembers.

Owns: the handler of SIGINT, and having been interrupted. Does not own: what an interrupt does (`main` ends with 130).
"""

from __future__ import annotations

import signal
import time
from types import FrameType

_came: list[int] = []  # the signals that came; a handler may only do what is one step, and this is


def heed() -> None:
    """From now on remember each SIGINT, and raise it where that has an effect."""
    # Not where it is ignored: after `nohup`, or in the background of a script.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def pause(seconds: float) -> None:
    """Sleep; raises `KeyboardInterrupt` at a SIGINT, be it one that came before and was lost."""
    if not _came:
        time.sleep(seconds)
    if _came:
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return
        frame = frame.f_back
    raise KeyboardInterrupt
