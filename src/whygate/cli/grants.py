"""``whygate grants``: elevations."""

from typing import Annotated

import typer
from rich.text import Text

from whygate.cli.gateway import Gateway, GatewayUrl
from whygate.cli.held import Held
from whygate.cli.reading import DEFAULT_CONFIG, AsJson, ConfigFile, LedgerFile
from whygate.cli.screen import put, put_json, screen
from whygate.cli.words import counted, plain

app = typer.Typer(name="grants", help="See elevations, and end them.", no_args_is_help=True)


@app.callback()
def grants() -> None:
    """See elevations, and end them."""


@app.command(name="list")
def list_grants(
    config: ConfigFile = DEFAULT_CONFIG, ledger: LedgerFile = None, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """List the elevations that are in force."""
    found = Held(config, ledger, url).grants()
    if as_json:
        put_json({"grants": found})
        return
    console = screen()
    if not found:
        put(console, Text("Nobody holds an elevation."))
    for one in found:
        put(
            console,
            Text.assemble(
                (plain(one["id"]), "dim"), f"  {plain(one['principal'], 60)}  ", (plain(one["entitlement"], 60), "bold")
            ),
        )
        uses = "any number of uses" if one["uses_left"] is None else f"{counted(one['uses_left'], 'use')} left"
        where = f"task {one['task']}" if one["task"] else "any task"
        put(console, Text(plain(f"{' '.join(one['tools'])}; {where}; until {one['until']}, {uses}")), "    ")


@app.command()
def revoke(
    grant: Annotated[str, typer.Argument(metavar="ID", help="The elevation's id.")],
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    as_json: AsJson = False,
) -> None:
    """End an elevation now."""
    ended = Gateway(url, config).delete("grants", grant)
    if as_json:
        put_json(ended)
        return
    put(screen(), Text(plain(f"{ended['entitlement']} of {ended['principal']} is ended.")))
