"""A task as a chain of calls: from its records to a tree. Pure; ``printing`` puts it on a screen."""

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from whygate.cli import people_events, stories, words
from whygate.core import ids
from whygate.core.events import ApprovalRecord
from whygate.core.reasons import Outcome
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord, TaskRecord

MICROSECOND: Final = datetime.timedelta(microseconds=1)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a chain. ``whygate task --json`` prints it."""

    id: str
    seq: int
    time: datetime.datetime
    offset_us: int
    """Since the task was opened, or since its first call."""
    parent: str
    """The decision's id of the call that this one was made from; empty at the top."""
    depth: int
    subject: str
    on_behalf_of: tuple[str, ...]
    method: str
    tool: str
    """``server/name``; of an unknown one the server and, in quotation marks, what the caller said; else the server."""
    tool_class: str = msgspec.field(name="class")
    tier: str
    outcome: str
    code: str
    note: str
    """For operators."""
    rule: str
    """``policy/rule`` that decided; empty where none did."""
    end: stories.End
    people: tuple[str, ...] = ()
    """What people decided about it, one line each."""

    @property
    def allowed(self) -> bool:
        return self.end.state != "not_sent"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A task, or a trace, with its calls in the order in which a reader meets them: each before those made from it."""

    id: str
    kind: str
    """``task`` or ``trace``."""
    trace_id: str = ""
    workflow: str = ""
    incident: str = ""
    opened_at: datetime.datetime | None = None
    opened_by: str = ""
    derived: bool = False
    agents: tuple[str, ...] = ()
    expires_at: datetime.datetime | None = None
    closed: bool = False
    calls: tuple[Call, ...]
    counts: dict[str, int]
    """Calls by outcome; outcomes that did not occur are left out."""
    span_us: int
    """From the first call to the last."""
    people: tuple[str, ...] = ()
    """What people decided in it that is no call's: elevations, one line each."""

    @property
    def refused(self) -> list[Call]:
        """In the order of time."""
        return sorted((call for call in self.calls if not call.allowed), key=lambda call: call.seq)


def build(asked: str, kind: str, records: Iterable[AnyRecord]) -> Chain:
    """The chain of ``records``, which are all of one task or of one trace, in order."""
    decisions, ends, opened, closed = [], dict[str, CompletionRecord](), None, False
    people = list[people_events.PeopleRecord]()
    for record in records:
        if isinstance(record, DecisionRecord):
            decisions.append(record)
        elif isinstance(record, CompletionRecord):
            ends[record.decision] = record
        elif isinstance(record, TaskRecord) and record.event == "opened":
            opened = opened or record
        elif isinstance(record, TaskRecord) and record.event == "closed":
            closed = True
        elif isinstance(record, people_events.PeopleRecord):
            people.append(record)
    began = opened.time if opened is not None else decisions[0].time if decisions else None
    parents = _parents(decisions)
    told, apart = _people(people)
    calls = [
        _call(record, ends.get(record.id), began, parents.get(record.id, ""), depth, _told_of(record, told))
        for record, depth in _in_reading_order(decisions, parents)
    ]
    info = opened.task if opened is not None else None
    times = [record.time for record in decisions]
    counted = Counter(record.outcome for record in decisions)
    counts = {each.value: counted[each.value] for each in Outcome}
    return Chain(
        id=asked,
        kind=kind,
        trace_id=info.trace_id if info is not None else decisions[0].context.trace_id if decisions else "",
        workflow=info.workflow if info is not None else "",
        incident=info.incident if info is not None else "",
        opened_at=opened.time if opened is not None else None,
        opened_by=opened.subject.id if opened is not None else "",
        derived=info.derived if info is not None else False,
        agents=info.agents if info is not None else (),
        expires_at=info.expires_at if info is not None else None,
        closed=closed,
        calls=tuple(calls),
        counts={name: count for name, count in counts.items() if count},
        people=apart,
        span_us=(max(times) - min(times)) // MICROSECOND if times else 0,
    )


def _people(records: list[people_events.PeopleRecord]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """What people decided: of each question, by its id and by the decision that asked, how it went; and all that no call of
    this chain asked for.
    """
    told, apart = dict[str, list[str]](), list[str]()
    for record in records:
        line = people_events.line(record)
        if not isinstance(record, ApprovalRecord):
            apart.append(line)
        elif record.asked is not None and record.decision:
            told[record.decision] = told[record.approval] = [f"{line}; asked of {', '.join(record.asked.approvers)}"]
        elif record.approval in told:
            told[record.approval].append(line)
        else:
            apart.append(line)
    return told, tuple(apart)


def _told_of(record: DecisionRecord, told: dict[str, list[str]]) -> tuple[str, ...]:
    """Under the call that asked its question and the answers; under one that came back, what permitted it."""
    if record.id in told:
        return tuple(told[record.id])
    lines = []
    if record.approval is not None:
        how = told.get(record.approval.id, [""])[-1]
        lines.append(f"approval {record.approval.id}{f': {how}' if how else ''}")
    if record.grant:
        lines.append(f"under the elevation {record.grant}")
    if record.exception is not None:
        over = f", over {record.exception.over}" if record.exception.over else ""
        lines.append(f"by the {record.exception.kind} {record.exception.id}{over}")
    return tuple(lines)


def _parents(decisions: list[DecisionRecord]) -> dict[str, str]:
    """Which call each call was made from, by the span it named as its parent.

    Clients name spans, so only earlier calls count: nothing can be made to hang on itself.
    """
    spans: dict[str, str] = {}
    found: dict[str, str] = {}
    for record in decisions:
        above = spans.get(record.context.parent, "") if record.context.parent else ""
        if above:
            found[record.id] = above
        spans[record.context.span_id or ids.span_id("server", record.id)] = record.id
        spans[ids.span_id("client", record.id)] = record.id
    return found


def _in_reading_order(decisions: list[DecisionRecord], parents: dict[str, str]) -> Iterator[tuple[DecisionRecord, int]]:
    below: dict[str, list[DecisionRecord]] = {}
    for record in decisions:
        below.setdefault(parents.get(record.id, ""), []).append(record)
    stack = [(record, 0) for record in reversed(below.get("", []))]
    while stack:
        record, depth = stack.pop()
        yield record, depth
        stack.extend((child, depth + 1) for child in reversed(below.get(record.id, [])))


def _call(
    record: DecisionRecord,
    completion: CompletionRecord | None,
    began: datetime.datetime | None,
    parent: str,
    depth: int,
    people: tuple[str, ...],
) -> Call:
    by = record.determined_by
    return Call(
        id=record.id,
        seq=record.seq,
        time=record.time,
        offset_us=(record.time - began) // MICROSECOND if began is not None else 0,
        parent=parent,
        depth=depth,
        subject=record.subject.id,
        on_behalf_of=tuple(actor.id for actor in record.subject.on_behalf_of),
        method=record.action.name,
        tool=stories.name_of_tool(stories.what_of(record)),
        tool_class=record.action.class_,
        tier=record.resource.tier,
        outcome=record.outcome,
        code=record.reason.code,
        note=record.reason.admin,
        rule=f"{by.policy}/{by.rule}" if by is not None else "",
        end=stories.end_of(record, completion),
        people=people,
    )


def summary(chain: Chain) -> str:
    """``12 calls in 3.2 s: 7 permitted, 4 blocked``, and how it stands."""
    count = words.counted(len(chain.calls), "call")
    within = f" in {words.duration(chain.span_us)}" if len(chain.calls) > 1 else ""
    parts = ", ".join(f"{number:,} {outcome}" for outcome, number in chain.counts.items())
    return f"{count}{within}" + (f": {parts}" if parts else "")
