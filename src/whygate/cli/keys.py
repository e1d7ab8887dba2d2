"""``whygate keys``: API keys for agents. A key is shown once and stored nowhere; the configuration keeps its hash."""

import json
import secrets
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from whygate.authn import api_key
from whygate.config import ConfigError, from_mapping

app = typer.Typer(name="keys", help="API keys for agents.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """API keys for agents."""


def new_key() -> str:
    """A fresh API key."""
    return api_key.from_random(secrets.token_bytes(api_key.RANDOM_BYTES))


@app.command()
def new(
    agent: Annotated[str, typer.Option("--agent", "-a", help="The id of the agent that it is for.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an API key, show it once, and print what to paste into whygate.yaml."""
    key = new_key()
    stored = api_key.stored(key)
    try:
        from_mapping({"ledger": "-", "policies": "-", "identities": {"agents": [{"id": agent, "api_keys": [stored]}]}})
    except ConfigError as error:
        for problem in error.problems:
            Console(stderr=True, soft_wrap=True).print(f"[red]--agent[/] {escape(problem.what)}; {escape(problem.fix)}")
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps({"agent": agent, "api_key": key, "stored": stored}))
        return
    # The lines to paste are printed plain, and so is the key: markup and wrapping would end up in somebody's file.
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"A new API key for [bold]{escape(agent)}[/]. It is shown this once:\n")
    print(f"  {key}\n")
    console.print(
        "Paste this into [bold]whygate.yaml[/], under identities.agents (add the line to an agent that is there):\n"
    )
    print(f"  - id: {json.dumps(agent)}\n    api_keys:\n      - {stored}\n")
    console.print("The agent sends it as  [bold]Authorization: Bearer <key>[/]")
    console.print("To replace a key: add the new one, restart, move the agent over, take the old one out.")
