"""``whygate why``: the whole story of one decision."""

import datetime
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from whygate.cli import chains, events, people_events, printing, stories
from whygate.cli.chains import Chain
from whygate.cli.reading import (
    DEFAULT_CONFIG,
    NO,
    AsJson,
    ConfigFile,
    Found,
    LedgerFile,
    decoded,
    fail,
    find,
    hint,
    ledger_path,
    reading,
    records,
)
from whygate.cli.screen import put, put_command, put_json, screen
from whygate.cli.words import moment, plain
from whygate.core.events import ApprovalRecord
from whygate.core.records import CompletionRecord, DecisionRecord
from whygate.stores.reader import Reader

LISTED: Final = 12
"""Refusals of a chain that are listed; `whygate task` shows all calls."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What ``whygate why --json`` prints."""

    asked: str
    found: str
    """``decision``, ``task``, ``trace`` or ``event``."""
    story: stories.Story | None = None
    """Of the decision asked about; of a chain, of its first refusal, or of its only decision."""
    chain: Chain | None = None
    event: events.Event | None = None


def why(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A decision, approval, task or trace; its first eight or more hex digits will do."
        ),
    ],
    config: ConfigFile = DEFAULT_CONFIG,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell why a call was allowed or refused, and what can be done now.

    Of a task or a trace with several decisions: what happened, and the story of its first refusal.
    """
    path = ledger_path(config, ledger)
    with reading(path) as reader:
        found = find(reader, asked)
        if found is None:
            fail(
                NO,
                f"The ledger {path} knows no decision, task or trace {plain(asked)}.",
                "It may be in another ledger (--ledger PATH).",
            )
        answer = _answer(reader, asked, found)
    if as_json:
        put_json(answer)
        return
    _print(screen(), answer, hint(ledger, config))


def _answer(reader: Reader, asked: str, found: Found) -> Answer:
    if found.kind == "decision":
        return Answer(asked=asked, found="decision", story=_story(reader, found.id))
    if found.kind == "event":
        record = decoded(found.stored[0])
        if record is None:
            fail(
                NO,
                f"{plain(asked)} is a record of a kind that this version does not know.",
                "Read it with a later version.",
            )
        after = [each for each in map(decoded, reader.about(record.id)) if each is not None]
        return Answer(asked=asked, found="event", event=events.event(record, after))
    chain = chains.build(found.id, found.kind, records(found))
    # Of several that were all allowed, none is the one to tell about.
    about = chain.refused or (chain.calls if len(chain.calls) == 1 else ())
    return Answer(asked=asked, found=found.kind, chain=chain, story=_story(reader, about[0].id) if about else None)


def _story(reader: Reader, decision: str) -> stories.Story:
    explained = reader.why(decision)
    record = explained.decision.record
    ended = decoded(explained.completion) if explained.completion is not None else None
    assert isinstance(record, DecisionRecord)  # noqa: S101  the reader explains nothing else
    counted = [each for each in map(decoded, explained.repeats) if isinstance(each, DecisionRecord)]
    completion = ended if isinstance(ended, CompletionRecord) else None
    return stories.tell(record, completion, explained.policy, counted, _people(reader, record))


def _people(reader: Reader, record: DecisionRecord) -> list[str]:
    """What people decided about this call: its question with the answers, the elevation, the exception."""
    found = list[str]()
    exception = record.exception.id if record.exception is not None else ""
    for name in (record.approval.id if record.approval is not None else "", record.grant, exception):
        if not name:
            continue
        try:
            first = decoded(reader.find(name))
        except (LookupError, ValueError):
            found.append(f"{name}: the ledger does not hold it")
            continue
        told = [first, *map(decoded, reader.about(name))]
        found += [
            f"{moment(each.time)}  {people_events.line(each)}  {each.id}"
            for each in told
            if isinstance(each, people_events.PeopleRecord)
        ]
        if isinstance(first, ApprovalRecord) and first.asked is not None and len(told) == 1:
            found.append("Nobody has answered yet.")
    return found


def _print(console: Console, answer: Answer, ledger: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if answer.event is not None:
        printing.event(console, answer.event, now)
    if answer.chain is not None:
        _overview(console, answer.chain, ledger)
    if answer.story is not None:
        printing.story(console, answer.story, now, ledger)


def _overview(console: Console, chain: Chain, ledger: str) -> None:
    """The chain in short: what was refused in it, before the first refusal's story."""
    if len(chain.calls) == 1:
        return
    put(console, Text(f"{chain.kind.capitalize()} {plain(chain.id)}: {chains.summary(chain)}", style="bold"))
    refused = chain.refused
    if not refused:
        put(console, Text("Nothing in it was refused." if chain.calls else "Nobody has called in it yet."))
        put_command(console, f"whygate task {plain(chain.id)}{ledger}", "All of it: ")
        return
    for call in refused[:LISTED]:
        line = Text.assemble(
            "  ", printing.outcome_words(call.outcome), f"  {plain(call.tool or call.method, 60)}  {plain(call.code)}  "
        )
        put(console, line.append(call.id, "dim"), "    ", "")
    if len(refused) > LISTED:
        put(console, Text(f"  and {len(refused) - LISTED} more"))
    put_command(console, f"whygate task {plain(chain.id)}{ledger}", "All of it: ")
    if len(refused) > 1:
        put(console, Text("The first refusal:"))
    console.print()
