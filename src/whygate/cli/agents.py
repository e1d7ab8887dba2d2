"""``whygate agents``: the inventory, and the kill switch."""

from typing import Annotated

import typer
from rich.text import Text

from whygate.cli.gateway import Gateway, GatewayUrl
from whygate.cli.held import Held
from whygate.cli.reading import DEFAULT_CONFIG, AsJson, ConfigFile, LedgerFile
from whygate.cli.screen import put, put_json, screen
from whygate.cli.words import plain

app = typer.Typer(name="agents", help="See agents, and switch them off.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(metavar="AGENT", help="Its id.")]
Note = Annotated[str, typer.Option("--note", help="Why, for the record.")]


@app.callback()
def agents() -> None:
    """See agents, and switch them off."""


@app.command(name="list")
def list_agents(
    config: ConfigFile = DEFAULT_CONFIG, ledger: LedgerFile = None, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """List the inventory, and who is switched off."""
    found = Held(config, ledger, url).agents()
    if as_json:
        put_json({"agents": found})
        return
    console = screen()
    if not found:
        put(console, Text("The inventory is empty."))
    for one in found:
        off = one["suspended"] or one["status"] not in {"", "active"}
        state = "switched off" if one["suspended"] else one["status"]
        put(console, Text.assemble((plain(one["id"], 100), "bold"), "  ", (plain(state), "red" if off else "green")))
        facts = [one["type"] or "not listed", *([f"owner {one['owner']}"] if one["owner"] else []), one["purpose"]]
        put(console, Text(plain("; ".join(filter(None, facts)))), "    ")


@app.command()
def suspend(
    agent: Which, note: Note = "", config: ConfigFile = DEFAULT_CONFIG, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """Switch an agent off: nothing of it passes from its next call on."""
    _switch(Gateway(url, config), agent, note, "suspend", as_json=as_json)


@app.command()
def resume(
    agent: Which, note: Note = "", config: ConfigFile = DEFAULT_CONFIG, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """Switch an agent on again."""
    _switch(Gateway(url, config), agent, note, "resume", as_json=as_json)


def _switch(gateway: Gateway, agent: str, note: str, verb: str, *, as_json: bool) -> None:
    done = gateway.post("agents", verb, body={"agent": agent, "note": note})
    if as_json:
        put_json(done)
        return
    put(screen(), Text(plain(f"{agent} is switched {'off' if done['suspended'] else 'on'}.")))
