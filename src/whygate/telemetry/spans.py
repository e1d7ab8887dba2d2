"""Records to spans: pure, so that the same records give the same spans whenever and however often they are sent.

Rules of this file:

1. A span depends on records alone. A refusal is complete with its decision; an allowed call waits for its completion.
   No span is ever sent half and later whole.
2. Ids derive from records (``core.ids``), so a span that is sent twice is the same span.
3. What a caller could have written is either of a closed shape or stays out; the rest is cut to 128 characters.
4. A task's trace is where its spans are: a foreign trace is linked, never joined.
"""

import functools
import re
from typing import Final, NamedTuple

from whygate.core import ids
from whygate.core.events import ApprovalRecord
from whygate.core.instants import to_us
from whygate.core.records import CompletionRecord, DecisionRecord, LifeRecord, Link, TaskRecord
from whygate.core.things import RESOURCE
from whygate.telemetry import names, shapes
from whygate.telemetry.shapes import Attributes, Kind, Shape, clean

ROOT_US: Final = 1000
"""The root is sent when its task opens and never again, so it can't be as long as the task; a millisecond is enough to
be drawn. It ends when the task opened, so that it starts before the first call, whose record has the same time."""
SHORTEST_US: Final = 1
"""Jaeger mends a span without duration and puts a warning on it."""

_ANSWERS: Final = frozenset(("approved", "denied", "expired", "cancelled"))
_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_SPAN: Final = re.compile(r"[0-9a-f]{16}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,16}")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F:.]{2,45}")


class Instance(NamedTuple):
    """Who wrote a record, and where it ran: the spans' resource."""

    writer: str
    host: str = ""
    ip: str = ""


class Span(NamedTuple):
    """A finished span. Ids are lower-case hex; times are microseconds since 1970."""

    instance: Instance
    trace_id: str
    span_id: str
    parent_id: str
    """Empty: none."""
    shape: Shape
    start_us: int
    end_us: int
    own: Attributes
    """Attributes that few other spans share."""
    link: Link | None = None

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def kind(self) -> Kind:
        return self.shape.kind

    @property
    def error(self) -> str:
        """``error.type`` of a span with status Error; empty leaves the status unset."""
        return self.shape.error

    @property
    def attributes(self) -> Attributes:
        """All of them."""
        return {**self.shape.attributes, **self.own}


class Unspannable(ValueError):
    """A record whose ids no span can have."""


def instance_of(start: LifeRecord) -> Instance:
    """The resource that a gateway's ``start`` record tells of: keys ``host`` and ``ip`` of its data."""
    host, ip = start.data.get("host"), start.data.get("ip")
    return Instance(
        writer=clean(start.writer),
        host=clean(host) if isinstance(host, str) else "",
        ip=ip if isinstance(ip, str) and _ADDRESS.fullmatch(ip) else "",
    )


def waits(decision: DecisionRecord) -> bool:
    """Whether the call's spans wait for its completion. Where another enforcement point carries the decision out, none
    will come.
    """
    return decision.effect == "allow" and decision.enforcement == "gateway"


def of_task(record: TaskRecord, instance: Instance) -> Span:
    """The root of a task's trace, or its ``task completed``. Raises ``Unspannable``."""
    task = record.task
    _check(task.trace_id)
    at_us = to_us(record.time)
    root_id = ids.span_id("root", task.trace_id)
    attributes: Attributes = {names.IDENTITY: record.subject.type}
    own: Attributes = {names.TASK: clean(task.id)}
    if task.incident:
        own[names.INCIDENT] = clean(task.incident)
    if record.event != "opened":
        closed_id = ids.span_id("closed", task.id)
        shape = shapes.of_task("task completed", attributes)
        return Span(instance, task.trace_id, closed_id, root_id, shape, at_us - SHORTEST_US, at_us, own)
    workflow = clean(task.workflow) or "task"
    attributes[names.OPERATION] = "invoke_workflow"
    attributes[names.WORKFLOW_NAME] = workflow
    if task.derived:
        attributes[names.TASK_DERIVED] = True
    shape = shapes.of_task(f"invoke_workflow {workflow}", attributes)
    return Span(instance, task.trace_id, root_id, "", shape, at_us - ROOT_US, at_us, own)


def of_approval(record: ApprovalRecord, instance: Instance) -> list[Span]:
    """The wait for a person, once it is over: from the question to the answer, below the call that asked. Says who neither
    asked nor answered. Nothing while it lasts, and of what happens to an agreement later. Raises ``Unspannable``.
    """
    if record.event not in _ANSWERS or not record.asked_us or not record.trace:
        return []
    parent = ids.span_id("server", record.decision) if record.decision else _root(record.trace)
    _check(record.trace, parent)
    attributes: Attributes = {names.APPROVAL_EVENT: record.event}
    own: Attributes = {names.APPROVAL: record.approval}
    if record.task:
        own[names.TASK] = clean(record.task)
    shape = shapes.of_task(f"approval {record.event}", attributes)
    end_us = max(to_us(record.time), record.asked_us + SHORTEST_US)
    span_id = ids.span_id("approval", record.approval)
    return [Span(instance, record.trace, span_id, parent, shape, record.asked_us, end_us, own)]


def of_decision(decision: DecisionRecord, instance: Instance) -> list[Span]:
    """The spans of a decision that is complete in itself. Nothing for one that waits. Raises ``Unspannable``."""
    if waits(decision):
        return []
    at_us = to_us(decision.time)
    return _drawn(decision, shapes.of_decision(decision), instance, (at_us, at_us))


def of_call(decision: DecisionRecord, completion: CompletionRecord, instance: Instance) -> list[Span]:
    """The spans of an allowed call, now that it has ended. Nothing where the decision did not wait for one. Raises
    ``Unspannable``.
    """
    if not waits(decision):
        return []
    at_us = to_us(decision.time)
    times = at_us, at_us + max(completion.duration_us, SHORTEST_US)
    return _drawn(decision, shapes.of_call(decision, completion), instance, times)


def _own(decision: DecisionRecord) -> tuple[Attributes, Attributes]:
    """What few other spans share: of the SERVER span, and of the others."""
    context = decision.context
    own: Attributes = {names.DECISION: decision.id}
    if context.task:
        own[names.TASK] = clean(context.task)
    if decision.resource.type == RESOURCE and decision.resource.id:
        own[names.RESOURCE_URI] = clean(decision.resource.id.partition("/")[2])
    if decision.approval is not None:
        own[names.APPROVAL] = decision.approval.id
    if decision.grant:
        own[names.GRANT] = decision.grant
    if decision.exception is not None:
        own[names.EXCEPTION] = decision.exception.id
        own[names.EXCEPTION_KIND] = decision.exception.kind
    server = own.copy()
    # The id is the caller's own text: only in the shapes that say nothing.
    if _NUMBER.fullmatch(context.request) or ids.is_uuid(context.request):
        server[names.RPC_REQUEST_ID] = context.request
    if context.link is not None:
        server[names.LINKED] = context.link.trace_id
    return server, own


def _drawn(decision: DecisionRecord, shapes_: shapes.Shapes, instance: Instance, times: tuple[int, int]) -> list[Span]:
    """The spans. ``times``: when it was decided, and when it ended."""
    context = decision.context
    decided_us, end_us = times
    start_us = decided_us - _deciding_us(decision)
    span_id = context.span_id or ids.span_id("server", decision.id)
    _check(context.trace_id, span_id, context.parent)
    link = context.link
    if link is not None:
        _check(link.trace_id, link.span_id)
    elif decision.approval is not None and decision.effect == "allow":
        # What a person agreed to and the call that used it, however far apart.
        link = Link(span_id=ids.span_id("approval", decision.approval.id), trace_id=context.trace_id)
    # A call without a task stands alone in a trace of its own: there is no root that it could hang on.
    parent = context.parent or (_root(context.trace_id) if context.task else "")
    own, others = _own(decision)
    trace = context.trace_id
    spans = [Span(instance, trace, span_id, parent, shapes_.server, start_us, end_us, own, link)]
    if shapes_.authorize is not None:
        child = ids.span_id("authorize", decision.id)
        spans.append(Span(instance, trace, child, span_id, shapes_.authorize, start_us, decided_us, others))
    if shapes_.client is not None:
        child = ids.span_id("client", decision.id)
        spans.append(Span(instance, trace, child, span_id, shapes_.client, decided_us, end_us, others))
    return spans


@functools.lru_cache(maxsize=4096)
def _root(trace_id: str) -> str:
    return ids.span_id("root", trace_id)


def _deciding_us(decision: DecisionRecord) -> int:
    return max(decision.duration_us, SHORTEST_US)


def _check(trace_id: str, *span_ids: str) -> None:
    """Raises ``Unspannable`` for what is no id: a collector would refuse the whole batch for it."""
    if not _TRACE.fullmatch(trace_id):
        raise Unspannable("no trace id")
    for span_id in span_ids:
        if span_id and not _SPAN.fullmatch(span_id):
            raise Unspannable("no span id")
