"""A record that is no decision, told in one line and its details. ``printing`` puts it on a screen."""

import datetime
from collections.abc import Sequence
from typing import Any, Final

from whygate.cli import people_events, words
from whygate.cli.stories import Part, answered
from whygate.core.records import AnyRecord, CompletionRecord, LifeRecord, PolicyRecord, TaskRecord, ToolRecord

_TOOL: Final = {
    "new": "is not pinned: calls are refused",
    "changed": "differs from its pin: calls are refused",
    "restored": "is as pinned again",
    "gone": "is pinned, and no longer listed by its server",
    "unsettled": "changes its tools too often: further changes were not recorded within the hour",
}
_CAUSE: Final = {
    "start": "a start of the gateway",
    "folder": "its folder changed",
    "signal": "SIGHUP",
    "command": "a command",
    "list": "a list that an agent asked for",
    "look": "the gateway's own look at the server",
}


class Event(Part, frozen=True, kw_only=True):
    """What happened, and its details; those that are empty are left out."""

    id: str
    seq: int
    time: datetime.datetime
    kind: str
    headline: str
    details: dict[str, str]
    followed: tuple[str, ...] = ()
    """Of a question: what came of it, one line each."""


def event(record: AnyRecord, after: Sequence[AnyRecord] = ()) -> Event:
    """The event that ``record`` tells of. ``after``: records that point at it."""
    headline, details = record.kind.upper().replace("_", " "), dict[str, str]()
    match record:
        case TaskRecord():
            headline, details = _task(record)
        case PolicyRecord():
            headline, details = f"POLICY {_folder(record)}", _set(record)
        case ToolRecord() if record.tool:
            headline = f"TOOL {record.tool} {_TOOL.get(record.event, record.event)}"
            details = {"seen in": _CAUSE.get(record.cause, record.cause)}
            details |= {"definition": record.definition, "pinned": record.pinned}
        case ToolRecord():
            headline, details = f"PINS {_folder(record)}", _set(record)
        case CompletionRecord():
            headline = f"COMPLETION of {record.decision}"
            details = {"answer": answered(record), "code": record.code}
        case _ if (people := people_events.told(record)) is not None:
            headline, details = people
        case LifeRecord():
            details = {name: _value(value) for name, value in sorted(record.data.items())}
    details = {name: value for name, value in details.items() if value}
    followed = tuple(f"{words.moment(each.time)}  {what}" for each in after if (what := _followed(each)))
    return Event(
        id=record.id,
        seq=record.seq,
        time=record.time,
        kind=record.kind,
        headline=headline,
        details=details,
        followed=followed,
    )


def _followed(record: AnyRecord) -> str:
    return people_events.line(record) if isinstance(record, people_events.PeopleRecord) else ""


def _value(value: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)


def _task(record: TaskRecord) -> tuple[str, dict[str, str]]:
    task = record.task
    return f"TASK {record.event} {task.id} by {record.subject.id}", {
        "usable by": ", ".join(task.agents),
        "workflow": task.workflow,
        "incident": task.incident,
        "until": words.moment(task.expires_at) if task.expires_at is not None else "",
        "trace": task.trace_id,
        "opened": "by the gateway itself: the call named no task" if task.derived else "",
    }


def _folder(record: PolicyRecord | ToolRecord) -> str:
    return f"{record.event.replace('_', ' ')} ({words.counted(len(record.files), 'file')})"


def _set(record: PolicyRecord | ToolRecord) -> dict[str, str]:
    return {
        "digest": record.digest,
        "cause": _CAUSE.get(record.cause, record.cause),
        "by": record.subject.id if record.subject is not None else "",
        "files": ", ".join(file.name for file in record.files),
        "errors": "; ".join(record.errors),
    }
