"""``whygate breakglass``: emergencies. They are opened in a browser, with a passkey; the terminal fills in the form."""

import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.text import Text

from whygate.cli.approvals import NoBrowser, console_of
from whygate.cli.gateway import Gateway, GatewayUrl
from whygate.cli.held import Held
from whygate.cli.reading import DEFAULT_CONFIG, AsJson, ConfigFile, LedgerFile
from whygate.cli.screen import put, put_command, put_json, screen
from whygate.cli.words import plain

app = typer.Typer(name="breakglass", help="Declare an emergency, end it, review it.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(metavar="ID", help="The break-glass's id.")]


@app.callback()
def breakglass() -> None:
    """Declare an emergency, end it, review it."""


@app.command(name="open")
def open_breakglass(  # noqa: PLR0917  each is an option of the command line
    agent: Annotated[list[str], typer.Option("--agent", help="Whose calls; may be repeated.")],
    tool: Annotated[list[str], typer.Option("--tool", help="Which tools (server/name, with *); may be repeated.")],
    incident: Annotated[str, typer.Option("--incident", help="Which incident.")],
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=240, help="For how long.")] = 30,
    reason: Annotated[str, typer.Option("--reason", help="Why; may be typed on the page.")] = "",
    config: ConfigFile = DEFAULT_CONFIG,
    no_browser: NoBrowser = False,
    as_json: AsJson = False,
) -> None:
    """Open the page where your passkey opens a break-glass, filled in with this."""
    said: dict[str, object] = {
        "agent": ",".join(agent),
        "tools": ",".join(tool),
        "minutes": minutes,
        "incident": incident,
    }
    if reason:
        said["reason"] = reason
    url = f"{console_of(config)}/console/breakglass?{urlencode(said)}"
    if as_json:
        put_json({"console": url})
    else:
        console = screen()
        put(console, Text("Nothing is open yet. Finish with your passkey, in a browser:", "bold"))
        put_command(console, url, "  ")
    if not no_browser:
        webbrowser.open(url)


@app.command(name="list")
def list_breakglass(
    config: ConfigFile = DEFAULT_CONFIG, ledger: LedgerFile = None, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """List what is open, and the reviews that are owed."""
    found = Held(config, ledger, url).breakglass()
    if as_json:
        put_json(found)
        return
    console = screen()
    if not found["open"] and not found["reviews"]:
        put(console, Text("No break-glass is open, and no review is owed."))
    for one in found["open"]:
        put(
            console,
            Text.assemble(
                (plain(one["id"]), "dim"),
                "  ",
                ("open", "magenta"),
                f"  {plain(one['incident'])}  until {one['until']}",
            ),
        )
        put(console, Text(plain(f"by {one['by']}, for {', '.join(one['agents'])}: {' '.join(one['tools'])}")), "    ")
    for one in found["reviews"]:
        due = "overdue since" if one["overdue"] else "owed by"
        put(
            console, Text.assemble((plain(one["id"]), "dim"), f"  review  {plain(one['incident'])}  {due} {one['due']}")
        )
        put(console, Text(plain(f"opened by {one['by']}; {one['team']} opens no other while it is overdue")), "    ")


@app.command()
def close(
    breakglass_id: Which, config: ConfigFile = DEFAULT_CONFIG, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """End a break-glass now. Its review is owed from then on."""
    owed = Gateway(url, config).post("breakglass", breakglass_id, "close")
    if as_json:
        put_json(owed)
        return
    put(screen(), Text(plain(f"It is ended. Its review is owed by {owed['due']}, by somebody else than {owed['by']}.")))


@app.command()
def review(
    breakglass_id: Which,
    finding: Annotated[str, typer.Option("--finding", help="justified or not_justified.")],
    note: Annotated[str, typer.Option("--note", help="What you found, for the record.")],
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    as_json: AsJson = False,
) -> None:
    """Answer the review of a break-glass that somebody else opened."""
    done = Gateway(url, config).post("breakglass", breakglass_id, "review", body={"finding": finding, "note": note})
    if as_json:
        put_json(done)
        return
    put(screen(), Text("The review is answered."))
