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
from enum import IntEnum
from typing import Final, NamedTuple

from whygate.core import ids
from whygate.core.identity import IdentityType
from whygate.core.instants import to_us
from whygate.core.reasons import Code, Outcome
from whygate.core.records import CompletionRecord, DecisionRecord, LifeRecord, Link, TaskRecord
from whygate.core.things import PROMPT, QUESTION, RESOURCE
from whygate.telemetry import names

ROOT_US: Final = 1000
"""The root is sent when its task opens and never again, so it can't be as long as the task; a millisecond is enough to
be drawn. It ends when the task opened, so that it starts before the first call, whose record has the same time."""
SHORTEST_US: Final = 1
"""Jaeger mends a span without duration and puts a warning on it."""
CAP: Final = 128
SHAPES: Final = 4096
"""Kept; some kilobytes each. Beyond, all are forgotten and made anew."""

Value = str | int | bool
Attributes = dict[str, Value]

_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_SPAN: Final = re.compile(r"[0-9a-f]{16}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,16}")
_REVISION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F:.]{2,45}")
_ERROR: Final = re.compile(r"-?[0-9]{1,10}|[a-z]+(?:[._][a-z]+){0,4}")
_VERIFIED: Final = frozenset((IdentityType.AI_AGENT, IdentityType.SERVICE_ACCOUNT, IdentityType.WORKLOAD))
_PRIVILEGED: Final = frozenset((Outcome.ELEVATED, Outcome.EXCEPTION))
_NO_SERVER_ERROR: Final = frozenset(("-32700", "-32600", "-32601", "-32602", "-32002"))
"""The caller's mistakes: by the MCP convention errors on the CLIENT span only."""
_NO_TOOL_ERROR: Final = frozenset(
    (Code.RESULT_MASKED.value, Code.RESULT_BLOCKED.value, Code.RESULT_QUESTION_REFUSED.value)
)
"""The tool did its part; what we did with its result is no failure of it."""


class Kind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Instance(NamedTuple):
    """Who wrote a record, and where it ran: the spans' resource."""

    writer: str
    host: str = ""
    ip: str = ""


class Shape:
    """What spans of one kind have in common: one for each caller, tool, rule and answer that go together. Known by identity,
    so that nothing has to be compared to find out that two spans have the same.
    """

    __slots__ = ("attributes", "error", "kind", "name")

    def __init__(self, name: str, kind: Kind, attributes: Attributes, error: str = "") -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.error = error


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


class _Shapes(NamedTuple):
    """Of the spans of one call."""

    server: Shape
    authorize: Shape | None
    client: Shape | None


_known: Final[dict[tuple[object, ...], _Shapes]] = {}


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
        shape = _shape("task completed", attributes)
        return Span(instance, task.trace_id, closed_id, root_id, shape, at_us - SHORTEST_US, at_us, own)
    workflow = clean(task.workflow) or "task"
    attributes[names.OPERATION] = "invoke_workflow"
    attributes[names.WORKFLOW_NAME] = workflow
    if task.derived:
        attributes[names.TASK_DERIVED] = True
    shape = _shape(f"invoke_workflow {workflow}", attributes)
    return Span(instance, task.trace_id, root_id, "", shape, at_us - ROOT_US, at_us, own)


def _shape(name: str, attributes: Attributes) -> Shape:
    """The shape of a task's span, made once."""
    key = (name, *attributes.items())
    known = _known.get(key)
    if known is None:
        known = _remember(key, _Shapes(Shape(name, Kind.INTERNAL, attributes), None, None))
    return known.server


def _remember(key: tuple[object, ...], shapes: _Shapes) -> _Shapes:
    if len(_known) >= SHAPES:
        _known.clear()
    _known[key] = shapes
    return shapes


def of_decision(decision: DecisionRecord, instance: Instance) -> list[Span]:
    """The spans of a decision that is complete in itself. Nothing for one that waits. Raises ``Unspannable``."""
    if waits(decision):
        return []
    key = _key(decision)
    shapes = _known.get(key)
    if shapes is None:
        error = _refusal_error(decision)
        server = Shape(_name(decision), Kind.SERVER, _server_attributes(decision), error)
        if error:
            server.attributes[names.ERROR_TYPE] = error
        shapes = _remember(key, _Shapes(server, _authorize(decision), None))
    at_us = to_us(decision.time)
    return _drawn(decision, shapes, instance, (at_us, at_us))


def of_call(decision: DecisionRecord, completion: CompletionRecord, instance: Instance) -> list[Span]:
    """The spans of an allowed call, now that it has ended. Nothing where the decision did not wait for one. Raises
    ``Unspannable``.
    """
    if not waits(decision):
        return []
    key = (
        *_key(decision),
        completion.code,
        completion.error,
        completion.is_error,
        completion.status,
        completion.hidden,
        _left_out(completion),
    )
    shapes = _known.get(key)
    if shapes is None:
        shapes = _remember(key, _of_both(decision, completion))
    at_us = to_us(decision.time)
    return _drawn(decision, shapes, instance, (at_us, at_us + max(completion.duration_us, SHORTEST_US)))


def _left_out(completion: CompletionRecord) -> int:
    return sum(1 for each in completion.servers if each.code) if completion.servers else 0


def _of_both(decision: DecisionRecord, completion: CompletionRecord) -> _Shapes:
    server_error, client_error = _errors(decision, completion)
    shared = _answer(decision, completion)
    attributes = _server_attributes(decision) | shared
    if completion.hidden:
        attributes[names.HIDDEN] = completion.hidden
    if left_out := _left_out(completion):
        attributes[names.LEFT_OUT] = left_out
    if server_error:
        attributes[names.ERROR_TYPE] = server_error
    name = _name(decision)
    server, client = Shape(name, Kind.SERVER, attributes, server_error), None
    if completion.error != "not_forwarded":
        sent = _called(decision) | shared
        if client_error:
            sent[names.ERROR_TYPE] = client_error
        client = Shape(name, Kind.CLIENT, sent, client_error)
    return _Shapes(server, _authorize(decision), client)


def _key(decision: DecisionRecord) -> tuple[object, ...]:
    """All of a decision that shapes its spans. What is left out is either its own (``_own``) or in no span."""
    context, client = decision.context, decision.client
    return (
        *(decision.action, decision.resource, decision.subject, decision.determined_by, decision.policy, client),
        *(decision.outcome, decision.reason.code, decision.effect, decision.mode, decision.enforcement),
        *(context.hop, context.workflow, context.incident, context.revision, decision.repeats),
    )


def _own(decision: DecisionRecord) -> tuple[Attributes, Attributes]:
    """What few other spans share: of the SERVER span, and of the others."""
    context = decision.context
    own: Attributes = {names.DECISION: decision.id}
    if context.task:
        own[names.TASK] = clean(context.task)
    server = own.copy()
    # The id is the caller's own text: only in the shapes that say nothing.
    if _NUMBER.fullmatch(context.request) or ids.is_uuid(context.request):
        server[names.RPC_REQUEST_ID] = context.request
    if context.link is not None:
        server[names.LINKED] = context.link.trace_id
    return server, own


def clean(text: str) -> str:
    """``text`` in one line of at most 128 characters, without control or invisible formatting characters."""
    cut = text[:CAP]
    return cut if cut.isprintable() else "".join(letter for letter in cut if letter.isprintable())


def _drawn(decision: DecisionRecord, shapes: _Shapes, instance: Instance, times: tuple[int, int]) -> list[Span]:
    """The spans. ``times``: when it was decided, and when it ended."""
    context = decision.context
    decided_us, end_us = times
    start_us = decided_us - _deciding_us(decision)
    span_id = context.span_id or ids.span_id("server", decision.id)
    _check(context.trace_id, span_id, context.parent)
    link = context.link
    if link is not None:
        _check(link.trace_id, link.span_id)
    # A call without a task stands alone in a trace of its own: there is no root that it could hang on.
    parent = context.parent or (_root(context.trace_id) if context.task else "")
    own, others = _own(decision)
    trace = context.trace_id
    spans = [Span(instance, trace, span_id, parent, shapes.server, start_us, end_us, own, link)]
    if shapes.authorize is not None:
        child = ids.span_id("authorize", decision.id)
        spans.append(Span(instance, trace, child, span_id, shapes.authorize, start_us, decided_us, others))
    if shapes.client is not None:
        child = ids.span_id("client", decision.id)
        spans.append(Span(instance, trace, child, span_id, shapes.client, decided_us, end_us, others))
    return spans


@functools.lru_cache(maxsize=4096)
def _root(trace_id: str) -> str:
    return ids.span_id("root", trace_id)


def _authorize(decision: DecisionRecord) -> Shape | None:
    """For anything but a plain permit, a child whose name tells outcome and code: a row of Jaeger's timeline shows nothing
    but names.
    """
    if decision.outcome == Outcome.PERMITTED:
        return None
    failed = decision.reason.code if decision.outcome == Outcome.ERROR else ""
    attributes = _verdict(decision)
    if failed:
        attributes[names.ERROR_TYPE] = failed
    return Shape(f"authorize {decision.outcome} {decision.reason.code}", Kind.INTERNAL, attributes, failed)


def _deciding_us(decision: DecisionRecord) -> int:
    return max(decision.duration_us, SHORTEST_US)


def _name(decision: DecisionRecord) -> str:
    """``tools/call billing/refund``, ``POST billing/refund``, ``prompts/get docs/greet``, ``resources/read``: bounded, whatever
    callers send. There is no end of URIs, so none is in a name (MCP's conventions say the same).
    """
    method, http = decision.action.name, decision.action.protocol == "http"
    if method not in names.METHODS:
        method = "HTTP" if http else names.OTHER
    if http or method == "tools/call":
        return f"{method} {_tool(decision)}"
    resource = decision.resource
    return f"{method} {clean(resource.id)}" if resource.id and resource.type != RESOURCE else method


def _tool(decision: DecisionRecord) -> str:
    return clean(decision.resource.id) or names.UNKNOWN_TOOL


def _called(decision: DecisionRecord) -> Attributes:
    """What was called: by the conventions of its protocol."""
    action = decision.action
    method = action.name if action.name in names.METHODS else names.OTHER
    found: Attributes = {}
    if action.protocol == "http" or method in names.HTTP_METHODS:
        found[names.HTTP_METHOD] = method
    elif action.protocol == "mcp":
        found[names.MCP_METHOD] = method
    if action.protocol == "http" or method == "tools/call":
        found[names.OPERATION] = "execute_tool"
        found[names.TOOL_NAME] = _tool(decision)
    elif decision.resource.id:
        found |= _thing(decision)
    if decision.resource.server:
        found[names.SERVER] = clean(decision.resource.server)
    return found


def _thing(decision: DecisionRecord) -> Attributes:
    """What was asked for besides a tool's call; a task stands for the tool that it is a call of."""
    resource = decision.resource
    if resource.type == RESOURCE:
        return {names.RESOURCE_URI: clean(resource.id.partition("/")[2])}
    if resource.type == QUESTION:
        return {}
    return {names.PROMPT_NAME if resource.type == PROMPT else names.TOOL_NAME: clean(resource.id)}


def _verdict(decision: DecisionRecord) -> Attributes:
    """What was decided, and by what."""
    found: Attributes = {
        names.OUTCOME: decision.outcome,
        names.REASON: decision.reason.code,
        names.EFFECT: decision.effect,
        names.MODE: decision.mode,
    }
    if decision.outcome in _PRIVILEGED:
        found[names.PRIVILEGED] = True
    rule = decision.determined_by
    if rule is not None:
        found[names.POLICY] = clean(rule.policy)
        found[names.POLICY_VERSION] = rule.version
        found[names.POLICY_DIGEST] = rule.digest
        found[names.RULE] = clean(rule.rule)
    return found


def _server_attributes(decision: DecisionRecord) -> Attributes:
    action, context, resource = decision.action, decision.context, decision.resource
    found = _called(decision) | _verdict(decision) | _caller(decision)
    for name, text in (
        (names.POLICY_SET, decision.policy.digest),
        (names.TOOL_CLASS, action.class_),
        (names.TOOL_TIER, resource.tier),
        (names.WORKFLOW, context.workflow),
        (names.INCIDENT, context.incident),
    ):
        if text:
            found[name] = clean(text)
    if decision.enforcement != "gateway":
        found[names.ENFORCEMENT] = decision.enforcement
    if decision.repeats is not None:
        found[names.REPEATS] = decision.repeats.count
    if _REVISION.fullmatch(context.revision):
        found[names.MCP_VERSION] = context.revision
    return found


def _caller(decision: DecisionRecord) -> Attributes:
    """Who called. A person's id is often a name or an address, and neither belongs into traces."""
    subject = decision.subject
    found: Attributes = {names.IDENTITY: subject.type}
    if subject.type in _VERIFIED:
        found[names.SUBJECT] = clean(subject.id)
    if subject.type == IdentityType.AI_AGENT:
        found[names.AGENT_ID] = clean(subject.id)
    if decision.context.hop:
        found[names.DEPTH] = decision.context.hop
    if _ADDRESS.fullmatch(decision.client.address):
        found[names.CLIENT_ADDRESS] = decision.client.address
    return found


def _answer(decision: DecisionRecord, completion: CompletionRecord) -> Attributes:
    """What the tool answered, as far as its protocol has a number for it."""
    found: Attributes = {}
    if completion.code:
        found[names.COMPLETION] = _error_type(completion.code)
    if decision.action.protocol == "http":
        if completion.status:
            found[names.HTTP_STATUS] = completion.status
    # An HTTP status in the place of an error code means that no JSON-RPC answer came.
    elif _NUMBER.fullmatch(completion.error) and completion.error != str(completion.status):
        found[names.RPC_STATUS] = completion.error
    return found


def _refusal_error(decision: DecisionRecord) -> str:
    """Status of a refused call's SERVER span. To be challenged is not an error; of HTTP's refusals only those answered
    5xx are, by its stable convention; a shadow refusal was not enforced.
    """
    if decision.mode != "enforce" or decision.effect == "allow" or decision.outcome == Outcome.CHALLENGED:
        return ""
    if decision.action.protocol != "mcp" and decision.outcome != Outcome.ERROR:
        return ""
    return decision.reason.code


def _errors(decision: DecisionRecord, completion: CompletionRecord) -> tuple[str, str]:
    """``error.type`` of the SERVER and of the CLIENT span of an allowed call."""
    code = completion.code
    if code:
        error = _error_type(code)
        server = "" if code == Code.RESULT_MASKED else error
        return server, "" if code in _NO_TOOL_ERROR else error
    if not completion.is_error and not completion.error:
        return "", ""
    error = _error_type(completion.error or "tool_error")
    if decision.action.protocol == "http":
        return error if completion.status >= 500 else "", error
    return "" if error in _NO_SERVER_ERROR else error, error


def _error_type(text: str) -> str:
    """Low cardinality by shape: a number or a short word; an upstream could send anything else."""
    return text if _ERROR.fullmatch(text) and len(text) <= CAP else names.OTHER


def _check(trace_id: str, *span_ids: str) -> None:
    """Raises ``Unspannable`` for what is no id: a collector would refuse the whole batch for it."""
    if not _TRACE.fullmatch(trace_id):
        raise Unspannable("no trace id")
    for span_id in span_ids:
        if span_id and not _SPAN.fullmatch(span_id):
            raise Unspannable("no span id")
