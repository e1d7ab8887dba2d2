"""``whygate tail``: decisions as they are made, and what people decide."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from whygate.cli import people_events, stories
from whygate.cli.printing import outcome_words
from whygate.cli.reading import (
    DEFAULT_CONFIG,
    MISUSE,
    AsJson,
    ConfigFile,
    LedgerFile,
    fail,
    ledger_path,
    reading,
)
from whygate.cli.screen import complain, put_json, screen
from whygate.cli.words import plain
from whygate.core import records
from whygate.core.reasons import Code, Outcome
from whygate.core.records import DecisionRecord
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.reader import Reader

POLL_S: Final = 0.2
"""A person sees no delay; the ledger's file is asked five times a second for one row."""
PAGE: Final = 1000


Line = DecisionRecord | people_events.PeopleRecord


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions are shown: all that is given must hold."""

    outcome: str = ""
    code: str = ""
    agent: str = ""
    tool: str = ""

    def passes(self, record: Line) -> bool:
        if not isinstance(record, DecisionRecord):
            # What people decide has neither outcome nor tool: it shows where nothing is filtered.
            return not (self.outcome or self.code or self.agent or self.tool)
        tool = record.resource.id or "/".join(filter(None, (record.resource.server, record.resource.asked)))
        return (
            self.outcome in {"", record.outcome}
            and self.code in {"", record.reason.code}
            and self.agent in {"", record.subject.id, *(actor.id for actor in record.subject.on_behalf_of)}
            and self.tool in {"", tool, tool.partition("/")[0], record.resource.facet}
        )


def tail(
    *,
    config: ConfigFile = DEFAULT_CONFIG,
    ledger: LedgerFile = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many decisions of before.")] = 10,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Print these and end.")] = False,
    outcome: Annotated[str, typer.Option("--outcome", help="Only this outcome, e.g. blocked.")] = "",
    code: Annotated[str, typer.Option("--code", help="Only this reason code, e.g. policy.no_match.")] = "",
    agent: Annotated[str, typer.Option("--agent", help="Only calls by this agent, or on its behalf.")] = "",
    tool: Annotated[str, typer.Option("--tool", help="Only this tool (server/name), or this server's.")] = "",
    as_json: AsJson = False,
) -> None:
    """Follow decisions as they are made, one line each. Ctrl-C ends it.

    With --json each line is the decision's record as it lies in the ledger (`whygate schema record`).
    """
    _check(outcome, code)
    wanted = Filter(outcome=outcome, code=code, agent=agent, tool=tool)
    path = ledger_path(config, ledger)
    show = _printer(as_json)
    try:
        with reading(path) as reader:
            seq = reader.newest()
            for record in _before(reader, seq, lines, wanted):
                show(record)
        if not no_follow:
            _follow(path, seq, wanted, show)
    except KeyboardInterrupt:
        return


def _check(outcome: str, code: str) -> None:
    """A filter that can never match is a slip of the hand, and waiting would not show it."""
    if outcome and outcome not in set(Outcome):
        fail(MISUSE, f"--outcome {plain(outcome)} is no outcome.", f"Use one of {', '.join(Outcome)}.")
    if code and code not in set(Code):
        fail(MISUSE, f"--code {plain(code)} is no reason code.", "docs/reason-codes.md lists them.")


def _before(reader: Reader, newest: int, count: int, wanted: Filter) -> list[Line]:
    """The last ``count`` decisions that are wanted, in order."""
    found: list[Line] = []
    above = newest
    while above > 0 and len(found) < count:
        below = max(0, above - PAGE)
        page = [record for record in _decisions(reader.since(below, above - below)) if wanted.passes(record)]
        found = page + found
        above = below
    return found[len(found) - count :] if count < len(found) else found


def _follow(path: Path, seq: int, wanted: Filter, show: Callable[[Line], None]) -> None:
    """Show what comes after ``seq``, until interrupted. A gateway that restarts, or a file that is away for a moment,
    is waited for.
    """
    waiting = False
    while True:
        try:
            # Before it is opened: a file that takes its place in between is then seen as another one, never missed.
            file = _file(path)
            with Reader(path) as reader:
                if waiting:
                    complain(f"{path} can be read again.")
                    waiting = False
                if reader.newest() < seq:
                    complain(f"{path} is another ledger now; following it from its beginning.")
                    seq = 0
                while True:
                    page = reader.since(seq, PAGE)
                    for record in _decisions(page):
                        if wanted.passes(record):
                            show(record)
                    seq = page[-1][0] if page else seq
                    if len(page) < PAGE:
                        time.sleep(POLL_S)
                    if not page and _file(path) != file:
                        break
        except LedgerUnavailable as error:
            if not waiting:
                complain(str(error), "Waiting for it.")
            waiting = True
            time.sleep(POLL_S)


def _file(path: Path) -> tuple[int, int] | None:
    """Which file stands at the path: SQLite goes on reading one that was replaced, and would never see anything new."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _decisions(page: list[tuple[int, bytes]]) -> Iterator[Line]:
    for _, data in page:
        try:
            record = records.decode(data)
        except LookupError:
            continue
        if isinstance(record, Line):
            yield record


def _printer(as_json: bool) -> Callable[[Line], None]:
    if as_json:
        return lambda record: put_json(record, compact=True)
    console = screen()
    return lambda record: _line(console, record)


def _line(console: Console, record: Line) -> None:
    if not isinstance(record, DecisionRecord):
        when = f"{record.time:%m-%d %H:%M:%S}.{record.time.microsecond // 1000:03d}Z "
        text = Text.assemble((when, "dim"), ("* ", "cyan"), plain(people_events.line(record)), "  ", (record.id, "dim"))
        console.print(text, soft_wrap=True)
        return
    told = stories.tell(record)
    # UTC, as everywhere; without the year, which is in nobody's doubt.
    text = Text.assemble((f"{record.time:%m-%d %H:%M:%S}.{record.time.microsecond // 1000:03d}Z ", "dim"))
    mark = outcome_words(record.outcome)
    mark.pad_right(max(0, 13 - len(mark)))
    text.append_text(mark)
    method = "" if record.action.name == "tools/call" else f"{plain(record.action.name)} "
    text.append(f"{method}{plain(stories.name_of_tool(told.what), 80)}", "bold")
    text.append(f"  {plain(record.reason.code)}  {plain(record.subject.id, 80)}  ")
    text.append(record.id, "dim")
    if record.repeats is not None:
        text.append(f"  {record.repeats.count:,} times", "bold")
    console.print(text, soft_wrap=True)
