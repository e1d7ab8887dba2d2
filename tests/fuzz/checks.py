"""What must hold after each input, whatever it was. Each check raises ``AssertionError`` and says what it saw.

Rules of this file:

1. Nothing of the gateway's own reading is believed: what reached a tool is read again by ``readers``.
2. An answer without a decision is one of the few named here, or a finding.
3. Nothing reaches a tool, and nothing that a tool asks reaches the client, without a decision that allows it.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from tests.fuzz import readers
from tests.fuzz.answers import ASKED
from tests.fuzz.inputs import CLIENT_LABEL, FOREIGN_TRACE
from tests.fuzz.setting import DIGEST_KEY, SECRETS
from tests.fuzz.world import Ran, Sent, World

from whygate.core import records
from whygate.core.calls import ToolCall
from whygate.core.ids import keyed_digest
from whygate.core.reasons import Code
from whygate.core.things import QUESTION
from whygate.flow.ports import Admission
from whygate.mcp.methods import NOTIFICATIONS, RESPONSE

_SORTED: Final = msgspec.json.Encoder(order="sorted").encode
_NEVER_UP: Final = (
    "cookie",
    "x-api-key",
    "x_api_key",
    "proxy-authorization",
    "tracestate",
    "baggage",
    "forwarded",
    "origin",
)
_OURS_IN_BODY: Final = re.compile(rb"\"(?:dev\.whygate/|(?:tracestate|baggage)\")")
_LIGHT: Final = NOTIFICATIONS | {"ping"}
"""Decided, and recorded only where they are refused."""
_OUR_OWN: Final = frozenset(
    ("server/discover", "initialize", "notifications/initialized", "notifications/cancelled", "tools/list")
)
"""What the gateway itself says to a server, for the merged address."""
METADATA: Final = b"/.well-known/oauth-protected-resource"


def check(world: World, ran: Ran) -> str:
    """The outcome in a word, for counting."""
    assert not ran.logged, f"unforeseen: {ran.logged[0]}"
    made = [records.decode(leaf) for leaf in ran.leaves]
    _secrets(world, ran)
    _labels(world, made)
    for sent in ran.sent:
        _reached(world, ran, sent)
    _asked(ran)
    _completed(ran, made)
    return _answered(ran, made)


# --- the answer ---


def _answered(ran: Ran, made: list[Any]) -> str:
    if not ran.status:
        assert ran.input.pieces == 0 or ran.input.leaves, "no answer"
        return "left"
    # Of a stream, the client here has had enough before the server ends it.
    assert ran.ended or ran.input.leaves or ran.input.method == "GET", "an answer without an end"
    decision = ran.headers.get("whygate-decision")
    if decision is None:
        return _undecided(ran)
    code = Code(ran.headers["whygate-reason"])
    assert code.entry.outcome is not None, f"{code} is no decision"
    assert ran.headers["whygate-outcome"] == code.entry.outcome.value
    ((call, admission),) = [each for each in ran.calls if each[1].answer.id == decision]
    for other, _ in ran.calls:
        # Each of several resources, each question, and what was allowed and then had no room.
        assert other is call or other.method == call.method or _is_question(other), "decided about something else"
    own = [one for one in made if one.kind == "decision" and one.id == decision]
    if own:
        (record,) = own
        assert record.reason.code == code.value
        assert record.reason.admin, "no words for operators"
        assert record.subject.id == call.principal.id
    else:
        # The one exception that can happen here: strangers that repeat are counted, and answered with the last record.
        assert not call.principal.authenticated, "decided and not recorded"
    if not code.entry.outcome.allows:
        assert not ran.sent, "refused, and sent nevertheless"
        _explained(ran, call, admission, code)
    return f"{code.entry.outcome.value} {code.value}"


def _explained(ran: Ran, call: ToolCall, admission: Admission, code: Code) -> None:
    """A refusal says what was decided, and what to do now, in the words of the caller's protocol."""
    if ran.status == 401:
        assert "resource_metadata=" in ran.headers["www-authenticate"]
    told = json.loads(ran.body)
    if call.protocol == "http":
        assert ran.headers["content-type"] == "application/problem+json"
        assert told["status"] == ran.status
    else:
        assert told["jsonrpc"] == "2.0"
        assert str(told["id"] if told["id"] is not None else "")[:128] == call.request_id, "another's id"
        if "result" in told:
            assert told["result"]["isError"] is True
            told = told["result"]["_meta"]["dev.whygate/decision"]
        else:
            told = told["error"]["data"]
    assert (told["code"], told["id"]) == (code.value, admission.answer.id)
    if code is Code.ARGS_SCHEMA_INVALID and call.tool is not None and call.tool.accepts is not None:
        # Where it is wrong stands behind: see promises/test_tools_are_what_was_accepted.py.
        assert told["note"].startswith(code.entry.user + " Wrong: ")
    else:
        assert told["note"] == code.entry.user
    assert told["next"] == code.entry.next.value


def _undecided(ran: Ran) -> str:
    """Answers without a decision's id: the resource's metadata, and pings and notifications, which were decided nevertheless."""
    assert all(_is_question(call) for call, _ in ran.calls), "decided, and the answer does not say so"
    given = ran.input
    if given.method == "GET" and given.target.startswith(METADATA):
        return "metadata"
    assert given.target.startswith(b"/mcp"), f"an answer ({ran.status}) that nobody decided"
    assert len(ran.glanced) == 1, f"an answer ({ran.status}) that nobody decided"
    for name, reader, _ in readers.READERS:
        assert reader(given.body).get("method") in _LIGHT, f"passed without a decision as read by: {name}"
    return "passed"


# --- what reached a tool ---


def _reached(world: World, ran: Ran, sent: Sent) -> None:
    names = {name.lower(): value for name, value in sent.headers}
    for never in _NEVER_UP:
        assert never not in names, f"{never} went up"
    assert not any(name.startswith(("whygate-", "x-forwarded-")) for name in names)
    if sent.server != "piped":
        assert names["authorization"] == f"Bearer {SECRETS[0]}", "another credential than ours"
    if not sent.decision:
        _passed(ran, sent)
        return
    found = [(call, admission) for call, admission in ran.calls if admission.answer.id == sent.decision]
    assert found, "sent on another call's decision"
    call, admission = found[0]
    assert admission.record is not None
    digest = admission.record.arguments.digest
    said = {"answers": call.answers, "arguments": call.args} if call.answers else call.args
    assert digest == (keyed_digest(DIGEST_KEY, _SORTED(said)) if said else "")
    if call.protocol == "mcp":
        _same_message(call, admission, sent)
    else:
        _same_request(call, sent)


def _passed(ran: Ran, sent: Sent) -> None:
    """Without the trace of a decision: what was decided like everything else, but is no call that could carry it."""
    merged = ran.input.target in (b"/mcp", b"/mcp/")
    assert ran.input.target.startswith(b"/mcp"), "a plain HTTP call without a decision"
    allowed = {call.method for call, admission in ran.calls if admission.allowed}
    if sent.method in ("GET", "DELETE"):
        assert merged or sent.method in allowed, f"{sent.method} without a decision"
        assert not sent.body
        return
    for name, reader, _ in readers.READERS:
        value = reader(sent.body)
        assert isinstance(value, dict)
        method = value.get("method")
        if merged and method is not None:
            assert method in _OUR_OWN, f"{method!r} went up undecided as read by: {name}"
            assert ran.calls, "somebody made the gateway talk, and nobody decided"
        elif method is None and _error_code(value) == 1403:
            assert any(_is_question(call) and not admission.allowed for call, admission in ran.calls)
        elif method is None and merged:
            assert _error_code(value) == -32601, "an answer that no client gave"
        elif method is None:
            assert RESPONSE in allowed, f"an answer went up undecided as read by: {name}"
            assert sent.server != "up" or sent.body == ran.input.body, "changed, though nobody decided"
        elif not (sent.server == "piped" and method == "notifications/cancelled"):  # a call's, whose client has left
            assert method in _LIGHT, f"{method!r} went up undecided as read by: {name}"
            assert [call.method for call in ran.glanced] == [method], f"{method!r} went up undecided as read by: {name}"
            assert sent.server != "up" or sent.body == ran.input.body, "changed, though nobody decided"


def _error_code(value: dict[str, Any]) -> Any:
    error = value.get("error")
    return error.get("code") if isinstance(error, dict) else None


def _is_question(call: ToolCall) -> bool:
    return call.method == "_other" or (call.tool is not None and call.tool.type == QUESTION)


def _asked(ran: Ran) -> None:
    """What a server asks reaches a client only if each of its questions was allowed; no page was."""
    if ASKED.encode() in ran.body:
        questions = [admission for call, admission in ran.calls if _is_question(call)]
        assert questions, "a question that nobody decided"
        assert any(admission.allowed for admission in questions), "a question that was refused, and asked nevertheless"
    assert b"evil.example" not in ran.body, "a page that no rule permits"


def _same_message(call: ToolCall, admission: Admission, sent: Sent) -> None:
    assert not _OURS_IN_BODY.search(_plain_meta(sent.body)), "the client's word went up as ours"
    for name, reader, fold in readers.READERS:
        value = reader(sent.body)
        assert value["method"] == call.method, name
        params = value.get("params", {})
        _same_thing(call, params, name, fold)
        answers = params.get("inputresponses" if name == "caseless" else "inputResponses", {})
        assert readers.same(answers, fold(call.answers)), f"other answers as read by: {name}"
        assert params["_meta"]["traceparent"] == admission.traceparent
        assert [key.strip().casefold() for key in params["_meta"]].count("traceparent") == 1


def _same_thing(call: ToolCall, params: dict[str, Any], name: str, fold: Callable[[Any], Any]) -> None:
    """What the tool's own reader takes the request to be about is what was decided."""
    tool = call.tool
    if call.method == "tools/call":
        assert tool is not None
        assert params["name"] == tool.name, f"another tool as read by: {name}"
        assert readers.same(params.get("arguments", {}), fold(call.args)), f"other arguments as read by: {name}"
    elif call.method.startswith("resources/") and not call.method.endswith("list"):
        assert tool is not None
        assert (tool.type, params["uri"]) == ("resource", tool.name), f"another resource as read by: {name}"
    elif call.method == "prompts/get":
        assert tool is not None
        assert (tool.type, params["name"]) == ("prompt", tool.name), f"another prompt as read by: {name}"
        assert readers.same(params.get("arguments", {}), fold(call.args)), f"other arguments as read by: {name}"
    elif call.method == "completion/complete":
        assert tool is not None
        assert params["ref"].get("uri", params["ref"].get("name")) == tool.name, f"another one as read by: {name}"
    elif call.method.startswith("tasks/") and call.method != "tasks/list":
        handle = params["taskid" if name == "caseless" else "taskId"]
        assert handle == call.args["taskId"], f"another task as read by: {name}"
        assert handle == "t-1", "a task that was given to nobody"


def _plain_meta(body: bytes) -> bytes:
    """The ``_meta`` of what was sent, without what lies deeper."""
    meta = readers.last_wins(body).get("params", {}).get("_meta", {})
    return json.dumps([key.strip().casefold() for key in meta]).encode()


def _same_request(call: ToolCall, sent: Sent) -> None:
    """The operation, and every argument, as the tool's own framework would read them."""
    tool, path = readers.operation(sent.method, sent.url)
    assert call.tool is not None
    assert (tool, sent.method) == (call.tool.id, call.method), f"another operation: {sent.method} {sent.url}"
    query = readers.fields(urlsplit(sent.url).query)
    assert not urlsplit(sent.url).fragment
    media = next((value for name, value in sent.headers if name.lower() == "content-type"), "")
    typed = tool.startswith("typed/")
    for name, reader, fold in readers.READERS:
        expected: dict[str, Any] = dict(path)
        _add(expected, {key: values if typed and len(values) > 1 else values[-1] for key, values in query.items()})
        if sent.body and media.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            form = readers.fields(sent.body.decode())
            assert all(len(values) == 1 for values in form.values())
            _add(expected, {key: values[0] for key, values in form.items()})
        elif sent.body:
            value = reader(sent.body)
            _add(expected, value if isinstance(value, dict) else {"body": value})
        assert len({key.casefold() for key in expected}) == len(expected), "one argument twice, for who ignores case"
        loosely = fold(call.args) if name == "caseless" else call.args
        expected = fold(expected) if name == "caseless" else expected
        assert expected.keys() == loosely.keys(), f"other arguments as read by: {name}"
        for key, value in expected.items():
            assert _alike(value, loosely[key], typed=typed), f"{key}: {value!r} is not {loosely[key]!r} ({name})"


def _add(args: dict[str, Any], more: dict[str, Any]) -> None:
    assert not args.keys() & more.keys(), "an argument from two places"
    args.update(more)


def _alike(seen: Any, evaluated: Any, *, typed: bool) -> bool:
    if readers.same(seen, evaluated):
        return True
    if not typed:
        return False
    if isinstance(evaluated, list):
        items = seen if isinstance(seen, list) else str(seen).split(",")
        return len(items) == len(evaluated) and all(map(lambda a, b: _alike(a, b, typed=True), items, evaluated))
    if isinstance(seen, str) and isinstance(evaluated, bool):
        return seen == str(evaluated).lower()
    return isinstance(seen, str) and isinstance(evaluated, int | float) and float(seen) == evaluated


# --- the records ---


def _completed(ran: Ran, made: list[Any]) -> None:
    """Every allowed call is completed once, unless its answer will come on another stream."""
    allowed = [admission.answer.id for _, admission in ran.calls if admission.allowed]
    completed = [one.decision for one in made if one.kind == "completion" and one.decision in allowed]
    assert len(completed) == len(set(completed)), "completed twice"
    if not (ran.input.edge == "mcp" and 800 <= ran.input.upstream < 850):
        assert sorted(completed) == sorted(allowed), "allowed, and never completed"


def _secrets(world: World, ran: Ran) -> None:
    """No credential in any record; ours in no answer; the agent's at no tool."""
    agents = [value.partition(" ")[2] for kind, value in world.known.credentials if kind in ("key", "jwt")]
    for leaf in ran.leaves:
        for secret in (*SECRETS, *agents):
            assert secret.encode() not in leaf, "a credential in a record"
    assert SECRETS[0].encode() not in ran.body
    assert SECRETS[0] not in str(ran.headers)
    for sent in ran.sent:
        told = f"{sent.url} {sent.headers}"
        for secret in (*SECRETS[1:], *agents):
            assert secret not in told, "the agent's credential at a tool"


def _labels(world: World, made: list[Any]) -> None:
    """Nobody chooses a trace, a label or another's task by saying so."""
    for one in made:
        if one.kind != "decision":
            continue
        context = one.context
        assert context.trace_id not in (FOREIGN_TRACE, world.known.foreign_task_trace)
        assert context.task != world.known.foreign_task
        assert CLIENT_LABEL not in (context.workflow, context.incident)
        own = context.task == world.known.own_task
        assert (context.workflow, context.incident) == (("claims", "INC-1") if own else ("", ""))
