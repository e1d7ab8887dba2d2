"""What the spans of a decision say, and how they are named: made once for each caller, tool, rule and answer that go together.

Rules of this file:

1. Whatever shapes a span is part of its key (``_key``), or is told with the span itself (``spans``): nothing that is kept here
   ever passes for what another span has.
2. What a caller could have written is either of a closed shape or stays out; the rest is cut to 128 characters.
"""

import re
from enum import IntEnum
from typing import Final, NamedTuple

from whygate.core.identity import IdentityType
from whygate.core.reasons import Code, Outcome
from whygate.core.records import CompletionRecord, DecisionRecord
from whygate.core.things import PROMPT, QUESTION, RESOURCE
from whygate.telemetry import names

CAP: Final = 128
SHAPES: Final = 4096
"""Kept; some kilobytes each. Beyond, all are forgotten and made anew."""

Value = str | int | bool
Attributes = dict[str, Value]

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


class Shapes(NamedTuple):
    """Of the spans of one call."""

    server: Shape
    authorize: Shape | None
    client: Shape | None


_known: Final[dict[tuple[object, ...], Shapes]] = {}


def of_task(name: str, attributes: Attributes) -> Shape:
    """The shape of a task's span, made once."""
    key = (name, *attributes.items())
    known = _known.get(key)
    if known is None:
        known = _remember(key, Shapes(Shape(name, Kind.INTERNAL, attributes), None, None))
    return known.server


def of_decision(decision: DecisionRecord) -> Shapes:
    """Of a decision that is complete in itself."""
    key = _key(decision)
    known = _known.get(key)
    if known is None:
        error = _refusal_error(decision)
        server = Shape(_name(decision), Kind.SERVER, _server_attributes(decision), error)
        if error:
            server.attributes[names.ERROR_TYPE] = error
        known = _remember(key, Shapes(server, _authorize(decision), None))
    return known


def of_call(decision: DecisionRecord, completion: CompletionRecord) -> Shapes:
    """Of an allowed call that has ended."""
    ended = completion.code, completion.error, completion.is_error, completion.status, completion.hidden
    key = (*_key(decision), *ended, _left_out(completion))
    known = _known.get(key)
    if known is None:
        known = _remember(key, _of_both(decision, completion))
    return known


def _of_both(decision: DecisionRecord, completion: CompletionRecord) -> Shapes:
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
    return Shapes(server, _authorize(decision), client)


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


def _key(decision: DecisionRecord) -> tuple[object, ...]:
    """All of a decision that shapes its spans. What is left out is told with the span itself, or in no span. There is no end
    of resources, so their ids are told with the span.
    """
    context, client, about = decision.context, decision.client, decision.resource
    return (
        *(about.type, about.server, about.tier, "" if about.type == RESOURCE else about.id),
        *(decision.action, decision.subject, decision.determined_by, decision.policy, client),
        *(decision.outcome, decision.reason.code, decision.effect, decision.mode, decision.enforcement),
        *(context.hop, context.workflow, context.incident, context.revision, decision.repeats),
    )


def _remember(key: tuple[object, ...], shapes: Shapes) -> Shapes:
    if len(_known) >= SHAPES:
        _known.clear()
    _known[key] = shapes
    return shapes


def clean(text: str) -> str:
    """``text`` in one line of at most 128 characters, without control or invisible formatting characters."""
    cut = text[:CAP]
    return cut if cut.isprintable() else "".join(letter for letter in cut if letter.isprintable())


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
    if resource.type in (RESOURCE, QUESTION):
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


def _left_out(completion: CompletionRecord) -> int:
    return sum(1 for each in completion.servers if each.code) if completion.servers else 0


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
