"""``whygate tools pin``: look at what the servers say of their tools, and accept it."""

import asyncio
import datetime
import getpass
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from whygate.cli.differences import Difference, differences, put_differences
from whygate.cli.reading import DEFAULT_CONFIG, MISUSE, NO, AsJson, ConfigFile, fail, load_config
from whygate.cli.screen import complain, put, put_json, screen
from whygate.cli.words import plain
from whygate.config import Config, ConfigError
from whygate.core import pins as files
from whygate.core.definitions import Unreadable
from whygate.core.pins import Pin, PinSet
from whygate.core.policy.errors import PolicyErrors
from whygate.core.records import ToolRecord
from whygate.core.schemas import Unusable
from whygate.flow.ports import LedgerUnavailable
from whygate.mcp.looking import whole
from whygate.policy_files import PinFolder, write_pins
from whygate.stores.reader import Reader
from whygate.transport.upstream import UpstreamError
from whygate.wiring_tools import mcp_servers

RECENT: Final = 20_000
"""Of the newest records: what the gateway found out about tools within these."""


class Looked:
    """What came of a look at one server."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.failed = ""
        self.pinned: dict[str, Pin] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.wrong: dict[str, str] = {}
        """Tools that can't be pinned, with why."""
        self.differences: list[Difference] = []
        self.written = ""

    def accepted(self, by: str) -> list[Pin]:
        """All pins of the server as they would be: what did not change keeps who pinned it, and when."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = []
        for name, definition in sorted(self.found.items()):
            fresh = files.pin(self.server, definition, by=by, at=now)
            old = self.pinned.get(name)
            made.append(old if old is not None and old.digest == fresh.digest else fresh)
        return made


def pin_tools(
    servers: Annotated[
        list[str] | None, typer.Argument(help="Which servers. Default: all that speak MCP.", show_default=False)
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept without asking.")] = False,
    by: Annotated[str, typer.Option("--by", help="Who accepts. Default: your user name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ask the servers for their tools, show what differs from what is pinned, and pin it.

    Without --yes each server is asked about. Nothing is written for a server that could not be reached. Exit code 1:
    something was not pinned.
    """
    settings: Config = load_config(config)
    looked = look(settings, servers or [])
    console = screen()
    by = by or user()
    for each in looked:
        if not as_json:
            _show(console, each)
        if each.failed or not each.differences:
            continue
        # What asks is a person at a terminal; a program says --yes, or gets the differences alone.
        if yes or (not as_json and _agreed(each)):
            each.written = str(write_pins(settings.pins, each.server, files.text_of(each.server, each.accepted(by))))
            if not as_json:
                put(console, Text(f"Pinned {plain(each.server)}: {each.written}", "green"))
    if as_json:
        put_json({"servers": [_told(each) for each in looked]})
    if any(each.failed or each.wrong or (each.differences and not each.written) for each in looked):
        raise typer.Exit(NO)


def look(settings: Config, wanted: list[str]) -> list[Looked]:
    """What the servers say beside what is pinned. Ends with misuse for names that are none, and for pins that can't be
    read.
    """
    try:
        known = mcp_servers(settings)
    except ConfigError as error:
        fail(MISUSE, f"The configuration can't be used.\n{error}")
    for name in wanted:
        if name not in known:
            fail(
                MISUSE, f"{plain(name)} is no MCP server of the configuration.", f"There: {', '.join(known) or 'none'}"
            )
    pinned = read_pins(settings.pins)

    async def ask(name: str) -> Looked:
        one = Looked(name)
        try:
            one.found, one.wrong = await whole(known[name])
        except UpstreamError as error:
            one.failed = str(error)
            return one
        one.pinned = pinned.of(name)
        one.wrong |= _unusable(one)
        one.differences = differences(name, one.pinned, one.found)
        return one

    async def ask_all() -> list[Looked]:
        return list(await asyncio.gather(*(ask(name) for name in sorted(set(wanted) or known))))

    return asyncio.run(ask_all())


def accept_all(settings: Config, by: str) -> list[Looked]:
    """Pin whatever the servers say, without a question: for what a command has just set up itself."""
    looked = look(settings, [])
    for each in looked:
        if each.differences:
            each.written = str(write_pins(settings.pins, each.server, files.text_of(each.server, each.accepted(by))))
    return looked


def read_pins(folder: Path) -> PinSet:
    """The pins as they are. Ends with misuse where they can't be read."""
    try:
        return files.load(PinFolder(folder).read())
    except PolicyErrors as refused:
        listed = "\n".join(plain(str(error)) for error in refused.errors)
        fail(MISUSE, f"The pins can't be used.\n{listed}", "Mend the file, or remove it and pin anew.")


def standings(settings: Config, ledger: Path) -> dict[tuple[str, str], str]:
    """By server and name: ``pinned``, ``changed`` or ``unpinned``, as the files and the gateway's records say."""
    pins = read_pins(settings.pins)
    made = dict.fromkeys(pins.by_tool, "pinned")
    try:
        with Reader(ledger) as reader:
            newest = reader.newest()
            for _, data in reader.since(max(newest - RECENT, 0), RECENT):
                _note(made, pins, data)
    except LedgerUnavailable:
        pass  # no gateway has run here yet
    return made


def _note(made: dict[tuple[str, str], str], pins: PinSet, data: bytes) -> None:
    if b'"kind":"tool"' not in data:
        return
    record = files_record(data)
    server, slash, name = record.tool.partition("/")
    if not slash or server == "":
        return
    pin = pins.by_tool.get((server, name))
    if pin is None:
        if record.event == "new":
            made[server, name] = "unpinned"
    elif record.event == "changed" and record.pinned == pin.digest:
        made[server, name] = "changed"
    elif record.event == "restored":
        made[server, name] = "pinned"


def files_record(data: bytes) -> ToolRecord:
    """A record of kind ``tool``; an empty one for any other."""
    from whygate.core import records  # noqa: PLC0415  costs its decoders only where a ledger is read

    record = records.decode(data)
    return record if isinstance(record, ToolRecord) else ToolRecord(event="", id="", kind="tool", v=records.VERSION)


def _unusable(one: Looked) -> dict[str, str]:
    """Takes out what can't be pinned, and says why."""
    wrong = {}
    for name, definition in list(one.found.items()):
        try:
            files.pin(one.server, definition, by="", at="")
        except (Unusable, Unreadable) as why:
            wrong[name] = str(why)
            del one.found[name]
    return wrong


def _show(console: Console, one: Looked) -> None:
    if one.failed:
        complain(
            f"{plain(one.server)} can't be asked: {plain(one.failed)}", "Is it running, and is its credential right?"
        )
        return
    put_differences(console, one.server, one.differences, one.wrong)


def _agreed(one: Looked) -> bool:
    if not sys.stdin.isatty():
        complain(f"{plain(one.server)}: nothing is pinned without your word.", "Ask at a terminal, or say --yes.")
        return False
    return typer.confirm(f"Pin {one.server} like this?", default=False)


def _told(one: Looked) -> dict[str, Any]:
    return {
        "server": one.server,
        "failed": one.failed,
        "cannot_be_pinned": one.wrong,
        "differences": one.differences,
        "written": one.written,
    }


def user() -> str:
    """Who is at the keyboard, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        return "nobody named"
