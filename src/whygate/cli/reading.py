"""Which ledger to read, and how to find what somebody asks about in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer

from whygate.cli.screen import complain
from whygate.core.records import AnyRecord, CompletionRecord, TaskRecord
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.reader import MIN_PREFIX, Ambiguous, NotFound, Reader, Stored, Wanted

NO: Final = 1
"""Exit code: the answer is no."""
MISUSE: Final = 2
NEAR: Final = 2000
"""Of the newest tasks, how many are searched for an id that begins as given: what somebody would abbreviate is recent."""

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", envvar="WHYGATE_CONFIG", help="The configuration file.", show_default=True)
]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", envvar="WHYGATE_LEDGER", help="Read this ledger; no configuration is needed then."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG: Final = Path("whygate.yaml")


def fail(code: int, what: str, advice: str = "") -> NoReturn:
    """Say what is wrong and end."""
    complain(what, advice)
    raise typer.Exit(code)


def load_config(path: Path) -> Any:
    """The configuration as ``Config``. Ends with misuse where it can't be used."""
    # Costs more than the rest of a command together, and whoever names the ledger needs none of it.
    from whygate.config import ConfigError, load  # noqa: PLC0415  see the line above

    try:
        return load(path, os.environ)
    except ConfigError as error:
        fail(
            MISUSE,
            f"The configuration can't be used.\n{error}",
            "Give --config FILE, or --ledger PATH to read a ledger.",
        )


def ledger_path(config: Path, ledger: Path | None) -> Path:
    """The ledger's file: as named, else as configured. Ends with misuse where there is none."""
    return ledger if ledger is not None else Path(load_config(config).ledger)


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """A reader of the ledger at ``path``. Ends with misuse where it can't be read."""
    try:
        with Reader(path) as reader:
            yield reader
    except LedgerUnavailable as error:
        fail(
            MISUSE,
            str(error),
            "" if path.exists() else "There is no such file. Start the gateway, or give --ledger PATH.",
        )


def hint(ledger: Path | None, config: Path) -> str:
    """What to add to a command that we suggest, so that it reads the same ledger."""
    for name, path in (("ledger", ledger), ("config", None if config == DEFAULT_CONFIG else config)):
        if path is not None:
            # What came from the environment comes from there again.
            return "" if os.environ.get(f"WHYGATE_{name.upper()}") == str(path) else f" --{name} {path}"
    return ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What an id led to: one record, or the records of a task or a trace."""

    kind: str
    """``decision``, ``event``, ``task`` or ``trace``."""
    id: str
    stored: list[Stored]


def find(reader: Reader, text: str) -> Found | None:
    """What has this id: a record (a completion stands for its decision), a task, a trace, or the beginning of one.

    Ends with misuse for what can't be an id, with "no" for a beginning of several.
    """
    text = text.strip().lower() if _digits(text.strip().lower()) else text.strip()
    try:
        stored = reader.find(text)
    except Ambiguous as several:
        fail(NO, f"{several}.", _candidates(reader, _digits(text)))
    except NotFound:
        return _find_chain(reader, text)
    except ValueError:
        found = _find_chain(reader, text)
        if found is None and not _digits(text):
            fail(
                MISUSE,
                f"{text!r} is no id.",
                f"Give the id of a decision, a task or a trace, or its first {MIN_PREFIX} hex digits.",
            )
        return found
    record = decoded(stored)
    if isinstance(record, CompletionRecord):
        return Found(kind="decision", id=record.decision, stored=[reader.find(record.decision)])
    if isinstance(record, TaskRecord):
        return Found(kind="task", id=record.task.id, stored=reader.task(record.task.id))
    kind = "decision" if record is not None and record.kind == "decision" else "event"
    return Found(kind=kind, id=record.id if record is not None else text, stored=[stored])


def find_chain(reader: Reader, text: str) -> Found | None:
    """The task or the trace of this id; of a decision, the task it is in."""
    found = find(reader, text)
    if found is None or found.kind in {"task", "trace"}:
        return found
    record = decoded(found.stored[0])
    task = record.context.task if record is not None and hasattr(record, "context") else ""
    return _find_chain(reader, task) if task else None


def decoded(stored: Stored) -> AnyRecord | None:
    """The record; ``None`` for one of a kind that this version does not know."""
    try:
        return stored.record
    except LookupError:
        return None


def records(found: Found) -> list[AnyRecord]:
    return [record for record in map(decoded, found.stored) if record is not None]


def _find_chain(reader: Reader, text: str) -> Found | None:
    if stored := reader.task(text):
        return Found(kind="task", id=text, stored=stored)
    digits = _digits(text)
    if len(digits) == 32 and (stored := reader.trace(digits)):
        return Found(kind="trace", id=digits, stored=stored)
    if not MIN_PREFIX <= len(digits) < 32:
        return None
    near = reader.tasks(limit=NEAR)
    by_id = [task.id for task in near if task.id.replace("-", "").startswith(digits)]
    by_trace = {task.trace_id for task in near if task.trace_id.startswith(digits)}
    if len(by_id) + len(by_trace) > 1:
        listed = "\n".join(f"  {each}" for each in sorted({*by_id, *by_trace})[:10])
        fail(NO, f"More than one task or trace begins with {text}: give more digits.", listed)
    if by_id:
        return Found(kind="task", id=by_id[0], stored=reader.task(by_id[0]))
    if by_trace:
        trace = by_trace.pop()
        return Found(kind="trace", id=trace, stored=reader.trace(trace))
    return None


def _candidates(reader: Reader, digits: str) -> str:
    """The newest decisions whose ids begin so."""
    listed = []
    for stored in reader.search(Wanted(limit=500)):
        record = decoded(stored)
        if record is not None and record.id.replace("-", "").startswith(digits):
            listed.append(f"  {record.id}")
    more = f"\n  and {len(listed) - 10} more" if len(listed) > 10 else ""
    return "Decisions that begin so:\n" + "\n".join(listed[:10]) + more if listed else ""


def _digits(text: str) -> str:
    """The hex digits of an id; empty for what is none."""
    digits = text.replace("-", "").lower()
    return digits if digits and not set(digits) - set("0123456789abcdef") else ""
