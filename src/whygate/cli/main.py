"""The command line: one table of commands, of which only the one that was called is loaded.

Loading everything takes seconds (servers, parsers, clients). Somebody who asks ``whygate why`` at night should not wait
for the gateway's own machinery.
"""

import importlib
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from whygate import __version__

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve:serve", "Run the gateway."),
    "demo": ("demo:demo", "See it at work: an agent's task through a gateway, and its story."),
    "init": ("init:init", "Write a starter configuration and policy."),
    "policy": ("policy:app", "Check, test and explain policies."),
    "why": ("why:why", "Tell why a call was allowed or refused."),
    "task": ("task:task", "Show a task as the tree of its calls."),
    "tail": ("tail:tail", "Follow decisions as they are made."),
    "tools": ("tools:app", "List the tools, and pin their definitions."),
    "approvals": ("approvals:app", "See what agents ask people, and answer."),
    "grants": ("grants:app", "See elevations, and end them."),
    "waivers": ("waivers:app", "Except somebody from a rule for a while."),
    "breakglass": ("breakglass:app", "Declare an emergency, end it, review it."),
    "agents": ("agents:app", "See agents, and switch them off."),
    "keys": ("keys:app", "Make API keys for agents."),
    "schema": ("schema:app", "Print the JSON Schemas of records and configuration."),
}
"""By name: module and what to take from it, and the line in ``whygate --help``."""


def load(name: str) -> Any:
    """The command of this name, with everything that it needs."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(f"whygate.cli.{module}"), attribute)
    # Plain help pages, for a pipe as well as for a screen, whatever the part chose for itself.
    around = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name)(found)
    return typer.main.get_group(around).commands[name]


class Lazy(TyperGroup):
    """Knows the names and lines of all commands, and loads the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the signature is the parent's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  the signature is the parent's
        """A stand-in, for the help page and for completion of names."""
        if cmd_name not in COMMANDS:
            return None
        return self.commands.setdefault(cmd_name, TyperGroup(name=cmd_name, help=COMMANDS[cmd_name][1]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        for name in COMMANDS:
            self.get_command(ctx, name)  # so that a slip of the hand gets a suggestion
        called, _, rest = super().resolve_command(ctx, args)
        return called, load(called) if called is not None else None, rest


def _version(wanted: bool) -> None:
    if wanted:
        print(f"whygate {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Lazy, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An access gateway for the tool calls of AI agents that can always say why.

    Exit codes: 0 fine, 1 the answer is no, 2 misuse. All that print know --json.
    """


def main() -> None:
    """The script ``whygate``."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
