"""``whygate waivers``: named exceptions from one rule, for a while."""

from typing import Annotated

import typer
from rich.text import Text

from whygate.cli.gateway import Gateway, GatewayUrl
from whygate.cli.held import Held
from whygate.cli.reading import DEFAULT_CONFIG, MISUSE, AsJson, ConfigFile, LedgerFile, fail
from whygate.cli.screen import put, put_json, screen
from whygate.cli.words import plain

app = typer.Typer(name="waivers", help="Except somebody from a rule for a while.", no_args_is_help=True)


@app.callback()
def waivers() -> None:
    """Except somebody from a rule for a while."""


@app.command(name="list")
def list_waivers(
    config: ConfigFile = DEFAULT_CONFIG, ledger: LedgerFile = None, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """List the waivers that are in force."""
    found = Held(config, ledger, url).waivers()
    if as_json:
        put_json({"waivers": found})
        return
    console = screen()
    if not found:
        put(console, Text("No waiver is in force."))
    for one in found:
        put(
            console,
            Text.assemble(
                (plain(one["name"], 64), "bold"),
                f"  rule {plain(one['policy'])}/{plain(one['rule'])}  until {one['until']}",
            ),
        )
        whose = ", ".join(one["agents"]) or "everybody"
        which = " ".join(one["tools"]) or "all tools of the rule"
        put(console, Text(plain(f"for {whose}, {which}; owner {one['owner']}; added by {one['by']}")), "    ")


@app.command()
def add(  # noqa: PLR0917  each is an option of the command line
    name: Annotated[str, typer.Argument(help="What it is called.")],
    rule: Annotated[str, typer.Option("--rule", help="policy/rule; one that its policy marks as overridable.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    days: Annotated[int, typer.Option("--days", help="For how many days.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    agent: Annotated[list[str] | None, typer.Option("--agent", help="Whose calls; without: everybody's.")] = None,
    tool: Annotated[list[str] | None, typer.Option("--tool", help="Which tools; without: those of the rule.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    as_json: AsJson = False,
) -> None:
    """Add a waiver."""
    policy, slash, rest = rule.rpartition("/")
    if not slash:
        fail(MISUSE, f"--rule {plain(rule)} names no rule.", "Write it as policy/rule, as `whygate why` does.")
    body = {
        "name": name,
        "owner": owner,
        "policy": policy,
        "rule": rest,
        "agents": agent or [],
        "tools": tool or [],
        "days": days,
        "reason": reason,
    }
    made = Gateway(url, config).post("waivers", body=body)
    if as_json:
        put_json(made)
        return
    put(screen(), Text(plain(f"{made['name']} is in force until {made['until']}.")))


@app.command()
def end(
    name: Annotated[str, typer.Argument(help="Its name or id.")],
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    as_json: AsJson = False,
) -> None:
    """End a waiver now."""
    ended = Gateway(url, config).delete("waivers", name)
    if as_json:
        put_json(ended)
        return
    put(screen(), Text(plain(f"{ended['name']} is ended.")))
