"""The `livery` command: names its subcommands and turns whatever they raise into an exit code, once.

Owns: the list of commands and the last line of defence. Does not own: what any command does; each noun has a module,
imported when it is asked for. No prompt is ever shown, and no traceback unless LIVERY_TRACEBACK is set.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from livery.errors import LiveryError
from livery_cli.completion import VARIABLE, answer
from livery_cli.exits import Exit, NotText, OutputLost, exit_code, tell
from livery_cli.lazy import Lazy, LazyGroup
from livery_cli.terminal.interrupts import forget, heed

COMMANDS = {
    "up": Lazy("up.command:up", "Run everything on this machine: CA, agent, policy and two demo services."),
    "ca": Lazy("commands.ca:ca", "The authority: init, run, health, config check."),
    "agent": Lazy("commands.agent:agent", "The node agent: run, health, config check."),
    "policy": Lazy("commands.policy:policy", "The decision server: run, check, explain, health, config check."),
    "entry": Lazy("commands.entry:entry", "Registration entries: who gets which identity."),
    "node": Lazy("commands.node:node", "Attested agents, seen from the CA."),
    "token": Lazy("commands.token:token", "Join tokens: one-time tickets for new agents."),
    "bundle": Lazy("commands.bundle:bundle", "Trust bundles: the authorities of a trust domain."),
    "mint": Lazy("commands.mint:mint", "Mint an SVID from the CA, as an administrator."),
    "svid": Lazy("commands.svid:svid", "Fetch, watch and validate SVIDs through the Workload API, as a workload."),
    "inspect": Lazy("commands.inspect:inspect", "On a node: identities, expiry, renewals, last error."),
    "can": Lazy("commands.can:can", "May this call be made? Exit 0 yes, 1 no, with the reason."),
    "explain": Lazy("commands.policy:explain", "Why a decision came out as it did."),
    "completion": Lazy("completion:completion", "Print the script by which a shell completes livery."),
}


@click.group(
    cls=LazyGroup,
    commands_of=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(None, "-V", "--version", package_name="livery", message="livery %(version)s")
def livery() -> None:
    """Short-lived SPIFFE identities for every service, and a policy decision for every call."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing raised inside gets past this."""
    try:
        result = livery.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except SystemExit:  # click's way with EPIPE: the reader went away (`livery ... | head`), and nobody is left to tell
        return Exit.DONE
    except (Exception, KeyboardInterrupt) as stop:  # noqa: BLE001  # the boundary of the process
        return _ending(stop)
    return int(result) if isinstance(result, int) else Exit.DONE


def _ending(stop: BaseException) -> int:
    """Tell why a command stopped; its exit code."""
    code: int
    match stop:
        case click.exceptions.Exit():
            code = stop.exit_code
        case click.exceptions.Abort() | KeyboardInterrupt():
            print("interrupted", file=sys.stderr)
            code = Exit.INTERRUPTED
        case click.ClickException():
            stop.show()
            code = Exit.USAGE
        case LiveryError():
            code = _told(stop)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO):
            fix = "make room, or write elsewhere"
            code = _told(OutputLost("the output could not be written", why=str(stop), fix=fix))
        case UnicodeEncodeError():
            why = "it holds bytes that are not UTF-8"
            code = _told(NotText("an argument is not text", why=why, fix="write it in UTF-8"))
        case _:
            code = _internal(stop)
    return code


def _told(error: LiveryError) -> int:
    tell(error)
    return exit_code(error)


def _internal(error: BaseException) -> int:
    """Tell an error that is ours, without a traceback unless it was asked for."""
    if os.environ.get("LIVERY_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    what = f"livery met an error of its own: {type(error).__name__}"
    why = str(error).splitlines()[0] if str(error) else "no further text"
    fix = "set LIVERY_TRACEBACK=1 and run it again to see where; then report it"
    return _told(LiveryError(what, why=why, fix=fix))


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def main() -> None:
    """The console script."""
    heed()
    try:
        code = _main()
    finally:
        forget()
    sys.exit(code)


def _main() -> int:
    # Where there is none (`>&-`), the next file that is opened must not become it.
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show every character
    if instruction := os.environ.get(VARIABLE):
        return answer(livery, instruction)
    return run()
