"""What a demo service reports on its standard output, one line of JSON a call.

Owns: reading that line. A line that is none is passed over: it is the service's own print, not a fact about the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from livery_cli.up.board import Call


class Report:
    """Turns a service's lines into calls."""

    def __init__(self, take: Callable[[Call], None]) -> None:
        self._take = take

    def line(self, text: str) -> None:
        """Take one line."""
        try:
            call = Call(**json.loads(text))
        except (ValueError, TypeError):
            return
        self._take(call)


def report(call: Call) -> None:
    """The service's side: print one call."""
    print(json.dumps(asdict(call)), flush=True)
