"""What the ledger keeps of a decision."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from whygate.core import ids
from whygate.core.calls import ToolCall
from whygate.core.decision import Decision, Mode
from whygate.core.facts import TaskFacts
from whygate.core.records import (
    VERSION,
    Arguments,
    Claimed,
    Client,
    Context,
    DecisionRecord,
    Link,
    PolicyInForce,
    Reason,
    Resource,
)
from whygate.core.things import KINDS
from whygate.flow.subjects import action_of, resource_of, subject_of
from whygate.flow.things import thing_of

_KINDS: Final = frozenset(KINDS)
_ENFORCE: Final = Mode.ENFORCE.value
_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode


def arguments_digest(call: ToolCall, digest: Callable[[bytes], str]) -> str:
    """Keyed digest of what a call says: its arguments, and its answers to earlier questions. Empty where it says nothing."""
    said = call.args if not call.answers else {"answers": call.answers, "arguments": call.args}
    return digest(_sorted_json(said)) if said else ""


def recorded(
    call: ToolCall,
    decision: Decision,
    task: TaskFacts | None,
    made: tuple[str, int],
    digest: Callable[[bytes], str],
) -> DecisionRecord:
    """The record of a decision. ``made``: its id, and how long deciding took (microseconds)."""
    record_id, duration_us = made
    return DecisionRecord(
        action=action_of(call.protocol, call.method, call.tool),
        approval=decision.approval,
        arguments=Arguments(digest=arguments_digest(call, digest)),
        claims=decision.claims,
        client=Client(address=call.client),
        context=_context(call, task, record_id),
        determined_by=decision.determined_by,
        duration_us=duration_us,
        effect=decision.outcome.effect,
        evaluations=decision.evaluations,
        exception=decision.exception,
        grant=decision.grant,
        id=record_id,
        kind="decision",
        mode=_ENFORCE,
        next=decision.next._value_,
        outcome=decision.outcome._value_,
        policy=PolicyInForce(digest=decision.policy_digest),
        reason=Reason(admin=decision.admin, code=decision.code._value_, user=decision.user),
        requires=_required(decision) if decision.requires else (),
        resource=_resource(call, decision, digest),
        subject=subject_of(call.principal),
        v=VERSION,
    )


def _required(decision: Decision) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"kind": need.kind, "params": need.params, "policy": need.policy, "rule": need.rule}
        for need in decision.requires
    )


def _context(call: ToolCall, task: TaskFacts | None, record_id: str) -> Context:
    """Where the call stands: its task, its trace, its parent. A foreign trace is linked, never joined."""
    hints = call.hints
    trace = task.trace_id if task is not None else ids.span_id("trace", record_id) + ids.span_id("lone", record_id)
    parent, link = "", None
    if hints.parent is not None:
        if hints.parent.trace_id == trace:
            parent = hints.parent.span_id
        else:
            link = Link(span_id=hints.parent.span_id, trace_id=hints.parent.trace_id)
    claimed = Claimed(incident=hints.incident, workflow=hints.workflow) if hints.incident or hints.workflow else None
    return Context(
        claimed=claimed,
        hop=len(call.principal.on_behalf_of),
        incident=task.incident if task is not None else "",
        link=link,
        parent=parent,
        request=call.request_id,
        revision=call.version,
        session=hints.session,
        span_id=ids.span_id("server", record_id),
        task=task.id if task is not None else "",
        trace_id=trace,
        workflow=task.workflow if task is not None else "",
    )


def _resource(call: ToolCall, decision: Decision, digest: Callable[[bytes], str]) -> Resource:
    tool = call.tool
    if tool is not None and tool.type in _KINDS:
        return thing_of(call, tool, allows=decision.allows, digest=digest)
    if tool is None or not (tool.known or decision.allows):
        return Resource(asked=call.asked or (tool.name if tool is not None else ""), server=call.server)
    return resource_of(tool)
