"""``whygate approvals``: what agents ask people."""

import datetime
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from whygate.cli import question
from whygate.cli.gateway import GatewayUrl, has_token
from whygate.cli.held import Held
from whygate.cli.reading import DEFAULT_CONFIG, NO, AsJson, ConfigFile, LedgerFile, fail, load_config
from whygate.cli.screen import complain, put, put_json, screen
from whygate.cli.words import plain

POLL_S: Final = 1.0
app = typer.Typer(name="approvals", help="See what agents ask people, and answer.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="ID", help="The approval's id.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the page's address and end.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Open no browser.")]


@app.callback()
def approvals() -> None:
    """See what agents ask people, and answer."""


@app.command(name="list")
def list_approvals(
    config: ConfigFile = DEFAULT_CONFIG, ledger: LedgerFile = None, url: GatewayUrl = "", as_json: AsJson = False
) -> None:
    """List the questions that wait, and the answers that can still be used."""
    found = Held(config, ledger, url).approvals()
    if as_json:
        put_json(found)
        return
    console, now = screen(), _now()
    if not found["waiting"] and not found["usable"]:
        put(console, Text("Nobody is asked anything, and no answer waits to be used."))
    for one in (*found["waiting"], *found["usable"]):
        what = one["tool"] or one["entitlement"]
        put(
            console,
            Text.assemble((plain(one["id"]), "dim"), f"  {plain(one['principal'], 60)}  ", (plain(what, 80), "bold")),
        )
        by = f"asks {', '.join(one['approvers'])}; rule {one['policy']}/{one['rule']}"
        put(console, Text(plain(f"{question.standing(one, now)} {by}")), "    ")


@app.command()
def show(
    asked: Which,
    config: ConfigFile = DEFAULT_CONFIG,
    ledger: LedgerFile = None,
    url: GatewayUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show one question as approvers see it."""
    one = _found(Held(config, ledger, url), asked)
    if as_json:
        put_json(one)
        return
    question.show(screen(), one, _now())


@app.command()
def approve(
    asked: Which,
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    no_wait: NoWait = False,
    no_browser: NoBrowser = False,
    as_json: AsJson = False,
) -> None:
    """Show a question, and open the page where your passkey agrees. Nothing is agreed to in the terminal."""
    _answer(asked, Held(config, None, url), (no_wait, no_browser, as_json), wanted="approved")


@app.command()
def deny(
    asked: Which,
    config: ConfigFile = DEFAULT_CONFIG,
    url: GatewayUrl = "",
    no_wait: NoWait = False,
    no_browser: NoBrowser = False,
    as_json: AsJson = False,
) -> None:
    """Show a question, and open the page where your passkey refuses."""
    _answer(asked, Held(config, None, url), (no_wait, no_browser, as_json), wanted="denied")


def _answer(asked: str, held: Held, how: tuple[bool, bool, bool], *, wanted: str) -> None:
    no_wait, no_browser, as_json = how
    one = _found(held, asked)
    console = screen()
    url = one.get("console") or f"{console_of(held.config)}/console/approvals/{one['id']}"
    if not as_json:
        question.show(console, one, _now())
        url = question.link(console, one, url.partition("/console/")[0])
    if one["state"] != "pending":
        fail(NO, question.standing(one, _now()), "Nobody waits for an answer to it.")
    if not no_browser:
        webbrowser.open(url)
    if not no_wait:
        one = _wait(held, one, quiet=as_json)
    if as_json:
        put_json({**one, "console": url})
    if no_wait:
        return
    if not as_json:
        put(console, Text(question.standing(one, _now()), "bold"))
    if one["state"] != wanted:
        raise typer.Exit(NO)


def _wait(held: Held, one: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Until it is answered or over."""
    told = 0
    while one["state"] == "pending":
        left = (datetime.datetime.fromisoformat(one["answer_by"]) - _now()).total_seconds()
        if left <= 0:
            return {**one, "state": "expired"}
        if not quiet and (told == 0 or left < told - 30):
            told = int(left)
            complain(
                f"Waiting for the answer: {told // 60}:{told % 60:02d} left.",
                "Ctrl-C ends the waiting, not the question.",
            )
        time.sleep(POLL_S)
        one = held.approval(one["id"]) or {**one, "state": "expired"}
    return one


def _found(held: Held, asked: str) -> dict[str, Any]:
    one = held.approval(asked)
    if one is None:
        hint = "`whygate approvals list` shows what waits." if has_token() or held.path else ""
        fail(NO, f"There is no approval {plain(asked)}.", hint)
    return one


def console_of(config: Path) -> str:
    """Where people answer."""
    return str(load_config(config).console_url).rstrip("/")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
