"""Completion in shells: the scripts that `livery completion` prints, and the answer when a shell asks.

Owns: both, and what bash needs beyond click's own: it cuts words at colons, of which a SPIFFE ID has one. Does not own:
what is completed (click knows the commands, `live_ids` what is there).

Invariant: whoever presses Tab sees completions or nothing; no message, and no traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

VARIABLE = "_LIVERY_COMPLETE"


class Bash(BashComplete):
    """Bash with whole words: those cut at a colon are put together again, and only what is missing is answered."""

    _cut = ""  # what bash has already of the word, and will not replace

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and that word as far as it goes."""
        cut = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
        words = joined(cut)
        if words[-1] != cut[-1]:
            self._cut = words[-1][: words[-1].rindex(":") + 1]
        whole = [next(iter(split_arg_string(word)), "") for word in words]
        return whole[1:-1], whole[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """One line of the answer."""
        return f"{item.type},{str(item.value).removeprefix(self._cut)}"


add_completion_class(Bash)


def joined(cut: list[str]) -> list[str]:
    """The words of a command line, from what bash made of them: a colon is a word of its own there, and never here."""
    words: list[str] = []
    for part in cut:
        is_rest = words and (part.startswith(":") or words[-1].endswith(":"))
        if is_rest and len(words) > 1:
            words[-1] += part
        else:
            words.append(part)
    return words


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes livery: commands, options, and the ids of entries and agents.

    For bash and zsh: eval "$(livery completion bash)"; for fish: livery completion fish | source.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "livery", VARIABLE).source())


def answer(command: click.Command, instruction: str) -> int:
    """Answer a shell; the exit code. What goes wrong is told to nobody, unless LIVERY_TRACEBACK is set."""
    silent = instruction.endswith("_complete") and not os.environ.get("LIVERY_TRACEBACK")
    if silent:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    try:
        return shell_complete(command, {}, "livery", VARIABLE, instruction)
    except (Exception, KeyboardInterrupt):
        if not silent:
            raise
        return 1
