"""The story of one decision: from records to a value that says everything. Pure; ``printing`` puts it on a screen.

Rules of this file:

1. A story holds what the records hold. What a client merely claimed stands apart from what was verified.
2. What is not known is said to be unknown: a missing completion, a code of a later version, a policy that was not kept.
3. ``whygate why --json`` prints these structs. Fields are added, never renamed.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.cli import rule_text, words
from whygate.cli.repeated import Repeated, repeated
from whygate.core.decision import Evaluation
from whygate.core.identity import Actor
from whygate.core.reasons import Code, Next
from whygate.core.records import CompletionRecord, DecisionRecord, ListedServer

MERGED: Final = "/mcp"
"""Stands for the server where a call was made at the address of all of them, and is none of one tool."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """All fields are always there in JSON, so that a program need not ask which."""


class Who(Part, frozen=True, kw_only=True):
    id: str
    type: str
    proof: str
    credential: str
    issuer: str
    owner: str
    roles: tuple[str, ...]
    on_behalf_of: tuple[Actor, ...]
    address: str


class What(Part, frozen=True, kw_only=True):
    method: str
    protocol: str
    revision: str
    tool: str
    """``server/name``, of a resource ``server/uri``; empty where the method names nothing, or no tool that there is."""
    kind: str
    """``mcp`` or ``http`` for a tool, ``resource``, ``prompt``; empty where nothing is named."""
    asked: str
    """The name that the caller used, where no such tool is in the catalogue. Untrusted."""
    server: str
    """Of a call that concerns all of them ``/mcp``; empty where the call got to none."""
    tool_class: str = msgspec.field(name="class")
    tier: str
    arguments: str
    """Keyed digest."""
    request: str


class Where(Part, frozen=True, kw_only=True):
    task: str
    workflow: str
    incident: str
    claimed_workflow: str
    claimed_incident: str
    session: str
    hop: int
    trace_id: str
    span_id: str
    foreign_trace: str
    """The trace that the call came with, where it is not the task's: linked, never joined."""


class Rule(Part, frozen=True, kw_only=True):
    """The rule that decided."""

    policy: str
    version: int
    rule: str
    digest: str
    why: str
    source: rule_text.RuleText | None
    """``None``: the ledger does not hold the text of that policy set."""


class Asked(Part, frozen=True, kw_only=True):
    """One rule's answer."""

    policy: str
    version: int
    rule: str
    effect: str
    result: str
    code: str
    note: str
    mode: str
    decided: bool


class Told(Part, frozen=True, kw_only=True):
    """What the agent was told."""

    note: str
    next: str
    next_words: str
    """What the agent may or has to do now; empty where nothing was asked of it."""


class End(Part, frozen=True, kw_only=True):
    """What became of the call."""

    state: str
    """``not_sent``, ``withdrawn``, ``answered``, ``failed``, ``unknown``, ``open`` or ``elsewhere``."""
    words: str
    status: int = 0
    is_error: bool = False
    error: str = ""
    code: str = ""
    bytes: int = 0
    digest: str = ""
    hidden: int = 0
    servers: tuple[ListedServer, ...] = ()
    duration_us: int = 0
    remedy: str = ""
    record: str = ""


class Story(Part, frozen=True, kw_only=True):
    """One decision, told."""

    id: str
    seq: int
    time: datetime.datetime
    writer: str
    outcome: str
    effect: str
    code: str
    meaning: str
    """Of the code."""
    explanation: str
    """The record's own words for operators: the deciding rule's ``why``, or what exactly was wrong."""
    who: Who
    what: What
    where: Where
    rule: Rule | None
    evaluations: tuple[Asked, ...]
    requires: tuple[dict[str, Any], ...]
    """What a challenge wants: each of these would do."""
    told: Told
    remedy: str
    """What an operator or owner can do now; empty where nothing is to be done."""
    end: End
    policy_digest: str
    duration_us: int
    mode: str
    enforcement: str
    repeats: Repeated | None = None
    """What this record counts; ``None`` for one that stands for one call."""
    repeated: Repeated | None = None
    """What was counted after it and answered with its id, as far as it is written yet."""
    approval: str = ""
    """The question that it opened, waited for, or was permitted by."""
    grant: str = ""
    """The elevation that permitted it."""
    exception: str = ""
    """The waiver or break-glass that overrode a refusal."""
    people: tuple[str, ...] = ()
    """What people decided about it, one line each, in order."""

    @property
    def headline(self) -> str:
        """The answer, in one line."""
        return f"{self.outcome.upper()} {subject_of_call(self.what)} — {self.code}"


UNKNOWN_CODE: Final = "A code that this version does not know; the outcome says what it came to."


def tell(
    record: DecisionRecord,
    completion: CompletionRecord | None = None,
    texts: Mapping[str, str] | None = None,
    counted: Sequence[DecisionRecord] = (),
    people: Sequence[str] = (),
) -> Story:
    """The story of a decision. ``texts`` are the files of the policy set in force, where the ledger has them; ``counted``
    are records that count repeats of it, ``people`` tell what people decided about it.
    """
    entry = words.entry_of(record.reason.code)
    subject, context = record.subject, record.context
    claimed = context.claimed
    return Story(
        id=record.id,
        seq=record.seq,
        time=record.time,
        writer=record.writer,
        outcome=record.outcome,
        effect=record.effect,
        code=record.reason.code,
        meaning=entry.meaning if entry is not None else UNKNOWN_CODE,
        explanation=record.reason.admin,
        who=Who(
            id=subject.id,
            type=subject.type,
            proof=subject.proof,
            credential=subject.credential,
            issuer=subject.issuer,
            owner=subject.owner,
            roles=subject.roles,
            on_behalf_of=subject.on_behalf_of,
            address=record.client.address,
        ),
        what=what_of(record),
        where=Where(
            task=context.task,
            workflow=context.workflow,
            incident=context.incident,
            claimed_workflow=claimed.workflow if claimed is not None else "",
            claimed_incident=claimed.incident if claimed is not None else "",
            session=context.session,
            hop=context.hop,
            trace_id=context.trace_id,
            span_id=context.span_id,
            foreign_trace=context.link.trace_id if context.link is not None else "",
        ),
        rule=_rule(record, texts or {}),
        evaluations=tuple(_asked(each, record) for each in record.evaluations),
        requires=record.requires,
        told=_told(record),
        remedy=entry.remedy if entry is not None else "",
        end=end_of(record, completion),
        policy_digest=record.policy.digest,
        duration_us=record.duration_us,
        mode=record.mode,
        enforcement=record.enforcement,
        repeats=repeated([record]),
        repeated=repeated(counted),
        approval=record.approval.id if record.approval is not None else "",
        grant=record.grant,
        exception=record.exception.id if record.exception is not None else "",
        people=tuple(people),
    )


def subject_of_call(what: What) -> str:
    """The call in a few words: method, and the tool by whichever name there is."""
    return " ".join(part for part in (what.method, name_of_tool(what)) if part)


def name_of_tool(what: What) -> str:
    """As policies and records name it; what only the caller said stands in quotation marks, to pass for nothing else."""
    if what.tool:
        return what.tool
    if what.asked:
        return f"{what.server}/“{what.asked}”" if what.server else f"“{what.asked}”"
    return what.server


def _told(record: DecisionRecord) -> Told:
    allowed = record.effect == "allow" and record.next == Next.NONE
    said = "" if allowed else words.NEXT.get(record.next, record.next)
    return Told(note=record.reason.user, next=record.next, next_words=said)


def what_of(record: DecisionRecord) -> What:
    """What was called, and how."""
    return What(
        method=record.action.name,
        protocol=record.action.protocol,
        revision=record.context.revision,
        tool=record.resource.id,
        kind=record.resource.type,
        asked=record.resource.asked,
        server=record.resource.server
        or (MERGED if record.action.protocol == "mcp" and record.effect == "allow" else ""),
        tool_class=record.action.class_,
        tier=record.resource.tier,
        arguments=record.arguments.digest,
        request=record.context.request,
    )


def _rule(record: DecisionRecord, texts: Mapping[str, str]) -> Rule | None:
    by = record.determined_by
    if by is None:
        return None
    source = rule_text.find(texts, by)
    # An error's explanation says more than the rule does; everywhere else it is the rule's own `why`.
    why = source.why if source is not None and source.why else record.reason.admin
    return Rule(policy=by.policy, version=by.version, rule=by.rule, digest=by.digest, why=why, source=source)


def _asked(each: Evaluation, record: DecisionRecord) -> Asked:
    by = record.determined_by
    return Asked(
        policy=each.policy,
        version=each.version,
        rule=each.rule,
        effect=each.effect,
        result=each.result,
        code=each.code,
        note=each.note,
        mode=each.mode,
        decided=by is not None and (by.policy, by.rule) == (each.policy, each.rule),
    )


def end_of(record: DecisionRecord, completion: CompletionRecord | None) -> End:
    """What became of the call."""
    if completion is None:
        return _without_completion(record)
    entry = words.entry_of(completion.code) if completion.code else None
    facts: dict[str, Any] = {
        "status": completion.status,
        "is_error": completion.is_error,
        "error": completion.error,
        "code": completion.code,
        "bytes": completion.result.bytes,
        "digest": completion.result.digest,
        "hidden": completion.hidden,
        "servers": completion.servers,
        "duration_us": completion.duration_us,
        "remedy": entry.remedy if entry is not None else "",
        "record": completion.id,
    }
    if completion.code == Code.OUTCOME_UNKNOWN:
        return End(state="unknown", words=Code.OUTCOME_UNKNOWN.entry.meaning, **facts)
    if completion.code in {Code.UPSTREAM_FAILED, Code.UPSTREAM_TIMEOUT}:
        told = [entry.meaning if entry is not None else completion.code, _measured(completion)]
        if completion.error == "not_sent":
            told.insert(1, "It was not sent to the tool.")
        return End(state="failed", words=" ".join([*told, words.servers(completion.servers)]).strip(), **facts)
    if completion.error == "not_forwarded":
        return End(state="withdrawn", words="Allowed, and not sent: the caller was gone before it could be.", **facts)
    said = entry.meaning if entry is not None else completion.code
    return End(state="answered", words=f"{answered(completion)} {said}".strip(), **facts)


def _without_completion(record: DecisionRecord) -> End:
    if record.effect != "allow":
        return End(state="not_sent", words=words.not_sent(record.resource.type))
    if record.enforcement != "gateway":
        return End(state="elsewhere", words="Carried out by another enforcement point; its end is not known here.")
    return End(state="open", words="Sent; no end is recorded yet. It may still be running.")


def _measured(completion: CompletionRecord) -> str:
    parts = [f"After {words.duration(completion.duration_us)}"]
    if completion.status:
        parts.append(f"HTTP status {completion.status}")
    if completion.error:
        parts.append(f"error {completion.error}")
    return f"{'; '.join(parts)}."


def answered(completion: CompletionRecord) -> str:
    """What the tool answered, in a sentence."""
    status = f"HTTP status {completion.status}, " if completion.status else ""
    error = f" ({completion.error})" if completion.error else ""
    how = f"Answered with an error{error}" if completion.is_error else "Answered"
    text = f"{how}: {status}{words.size(completion.result.bytes)}, after {words.duration(completion.duration_us)}."
    if completion.hidden:
        text += f" {words.counted(completion.hidden, 'entry', 'entries')} that the caller may not see were left out."
    return f"{text} {words.servers(completion.servers)}".strip()
