"""Every method of MCP at the edge: what is asked of the gate, what is filtered, whose a handle is, and what a server may ask."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.servers.mcp_edge import META, Canned, Gateway, Seen, gateway, routing

from whygate.core.reasons import Code
from whygate.mcp import asking, handles
from whygate.mcp.backend import Server
from whygate.mcp.methods import REQUESTS, How
from whygate.testing.gate import FakeGate
from whygate.testing.serve import served

EVENTS = [(b"content-type", b"text/event-stream")]
URI = "file:///srv/a.md"
SESSION = {"mcp-session-id": "s-1"}
ASK = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {"message": "Your name?"}}
LED = {"mode": "url", "message": "Sign in", "url": "https://pay.example/in", "elicitationId": "e1"}


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
def upstream() -> Canned:
    made = Canned()
    made.answer = lambda seen: _result(seen, {"content": []})
    return made


@asynccontextmanager
async def _up(upstream: Canned, gate: FakeGate) -> AsyncIterator[Gateway]:
    async with served(upstream) as url, gateway(Server(name="up", url=url), gate, suspended=("idle",)) as made:
        yield made


@pytest.fixture
async def up(upstream: Canned, gate: FakeGate) -> AsyncIterator[Gateway]:
    async with _up(upstream, gate) as made:
        yield made


def _result(seen: Seen, result: dict[str, Any]) -> bytes:
    sent = json.loads(seen.body) if seen.body else {}
    return json.dumps({"jsonrpc": "2.0", "id": sent.get("id"), "result": result}).encode()


def _request(method: str, identity: Any = 1, *, modern: bool = False, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": ({"_meta": META} if modern else {}) | params}


async def _send(
    client: httpx.AsyncClient,
    method: str,
    *,
    modern: bool = False,
    headers: dict[str, str] | None = None,
    **params: Any,
) -> httpx.Response:
    row = REQUESTS.get(method)
    name = params.get(row.needs) if row is not None and row.mirrored else None
    routed = routing(method, name) if modern else {}
    return await client.post("/up", json=_request(method, modern=modern, **params), headers=routed | (headers or {}))


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


def _told(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    if "error" in body:
        return body["error"]["data"]
    return body["result"]["_meta"]["dev.whygate/decision"]


ASKED = {
    "resources/read": ({"uri": URI}, "resource", URI, {"uri": URI}),
    "resources/subscribe": ({"uri": URI}, "resource", URI, {"uri": URI}),
    "resources/unsubscribe": ({"uri": URI}, "resource", URI, {"uri": URI}),
    "prompts/get": ({"name": "greet", "arguments": {"who": "ada"}}, "prompt", "greet", {"who": "ada"}),
    "completion/complete": (
        {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "who", "value": "a"},
            "context": {"arguments": {"how": "loud"}},
        },
        "prompt",
        "greet",
        {"how": "loud", "who": "a"},
    ),
    "completion/complete ": (
        {"ref": {"type": "ref/resource", "uri": "x://t/{id}"}, "argument": {"name": "id", "value": "1"}},
        "resource",
        "x://t/{id}",
        {"uri": "x://t/{id}", "arguments": {"id": "1"}},
    ),
}


@pytest.mark.parametrize("method", ASKED)
async def test_what_names_a_resource_or_prompt_is_decided_as_that(up: Gateway, upstream: Canned, method: str) -> None:
    """Kind, name and arguments reach the gate; the answer carries the decision, and its completion is told once."""
    params, kind, name, args = ASKED[method]
    async with up.raw() as client:
        answer = await _send(client, method.strip(), **params)
    [(admission, done)] = up.gate.completed
    call = admission.call
    assert call.tool is not None
    assert (call.tool.type, call.tool.name, call.args, call.public) == (kind, name, args, False)
    assert _told(answer)["id"] == admission.answer.id
    assert (done.status, done.code) == (200, None)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("method", ASKED)
async def test_what_no_rule_permits_is_not_sent(upstream: Canned, method: str) -> None:
    """A JSON-RPC error with the decision, and nothing upstream."""
    params, _, name, _ = ASKED[method]
    gate = FakeGate(refuse={f"up/{name}": Code.POLICY_NO_MATCH})
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await _send(client, method.strip(), **params)
    assert answer.json()["error"]["code"] == 1403
    assert _told(answer)["code"] == "policy.no_match"
    assert (upstream.seen, gate.completed) == ([], [])


async def test_a_uri_that_can_be_read_in_two_ways_is_refused(up: Gateway, upstream: Canned) -> None:
    """Whatever rules would say."""
    async with up.raw() as client:
        answer = await _send(client, "resources/read", uri="file:///srv/docs/../a")
        modern = await _send(client, "resources/read", modern=True, uri="file:///srv/docs/%2e%2e/a")
    assert [_told(one)["code"] for one in (answer, modern)] == ["request.path_ambiguous"] * 2
    assert [(one.status_code, one.json()["error"]["code"]) for one in (answer, modern)] == [
        (200, -32602),
        (400, -32602),
    ]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {}),
        ("resources/read", {"uri": 7}),
        ("resources/read", {"uri": URI, "URI": "file:///b"}),
        ("prompts/get", {"name": "greet", "arguments": []}),
        ("completion/complete", {"ref": {"type": "ref/other", "name": "x"}, "argument": {"name": "a", "value": ""}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "uri": "x:y"}, "argument": {"name": "a", "value": ""}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}}),
        ("subscriptions/listen", {}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": URI}}),
        ("subscriptions/listen", {"notifications": {"filesChanged": ["/etc"]}}),
        ("tasks/get", {"taskId": 7}),
        ("tools/call", {"name": "echo", "inputResponses": []}),
        ("tools/call", {"name": "echo", "requestState": {}}),
    ],
)
async def test_what_decisions_rest_on_has_to_be_there(
    up: Gateway, upstream: Canned, method: str, params: dict[str, Any]
) -> None:
    """Else it is malformed, by the protocol's own code, and recorded."""
    async with up.raw() as client:
        answer = await _send(client, method, **params)
    assert (answer.status_code, answer.json()["error"]["code"] in (-32602, -32600)) == (400, True)
    assert [one.decision.outcome.value for one in up.gate.admitted] == ["blocked"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("body", "modern", "status"),
    [
        (_request("x/y"), False, 200),
        (_request("skills/run", modern=True), True, 404),
        (_request("ping", modern=True), True, 404),
        (_request("resources/subscribe", modern=True, uri=URI), True, 404),
        ({"jsonrpc": "2.0", "method": "notifications/x"}, False, 400),
        (_request("notifications/initialized"), False, 200),
        (_request("elicitation/create"), False, 200),
    ],
)
async def test_a_method_that_is_not_known_is_refused_and_recorded(
    up: Gateway, upstream: Canned, body: dict[str, Any], modern: bool, status: int
) -> None:
    """An extension's, a server's, one that the revision has taken out: nobody has read what they do."""
    async with up.raw() as client:
        answer = await client.post("/up", json=body, headers=routing(body["method"], None) if modern else {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, -32601)
    assert _told(answer)["code"] == "request.method_unknown"
    assert [one.call.method for one in up.gate.admitted] == [body["method"]]
    assert upstream.seen == []


async def test_streams_goodbyes_and_answers_have_a_record(up: Gateway, upstream: Canned) -> None:
    """Each is decided before it passes and completed when it has."""
    reply = {"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept", "content": {"name": "Ada"}}}
    upstream.answer = lambda _: b""
    async with up.raw() as client:
        answers = [
            await client.get("/up", headers=SESSION),
            await client.post("/up", json=reply, headers=SESSION),
            await client.delete("/up", headers=SESSION),
        ]
    assert [one.call.method for one, _ in up.gate.completed] == ["GET", "response", "DELETE"]
    assert [answer.headers["whygate-outcome"] for answer in answers] == ["permitted"] * 3
    assert up.gate.completed[1][0].call.args == {"result": reply["result"]}


@pytest.mark.parametrize("message", ["GET", "DELETE", "ping", "response", "notifications/progress"])
async def test_the_gates_hold_for_what_has_no_rule(up: Gateway, upstream: Canned, message: str) -> None:
    """A suspended agent keeps no stream open, says no goodbye, answers nobody and is not heard; each is recorded."""
    async with up.raw(agent="idle") as client:
        if message in ("GET", "DELETE"):
            answer = await client.request(message, "/up", headers=SESSION)
        elif message == "response":
            answer = await client.post("/up", json={"jsonrpc": "2.0", "id": 1, "result": {}}, headers=SESSION)
        elif message == "ping":
            answer = await client.post("/up", json=_request("ping"))
        else:
            answer = await client.post("/up", json={"jsonrpc": "2.0", "method": message})
    assert answer.status_code == (200 if message == "ping" else 403)
    assert _told(answer)["code"] == "agent.suspended"
    assert [one.call.method for one in up.gate.admitted] == [message]
    assert upstream.seen == []


# --- lists ---


@pytest.mark.parametrize(
    ("method", "member", "key", "names"),
    [
        ("resources/list", "resources", "uri", ["x:a", "x:b", "x:c"]),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", ["x:a{n}", "x:b", "x:c{n}"]),
        ("prompts/list", "prompts", "name", ["x:a", "x:b", "x:c"]),
    ],
)
@pytest.mark.parametrize("modern", [True, False])
async def test_lists_are_cut_down_to_what_the_caller_could_use(
    upstream: Canned, method: str, member: str, key: str, names: list[str], modern: bool
) -> None:
    """Order, bytes and cursor stay; nobody else may cache it; what can't be read is not shown; the record counts."""
    gate = FakeGate(hidden={"up/x:b"})
    entries = [{key: name, "n": 1.5} for name in names]
    doubtful = {key: {"name": "a\nb"}.get(key, "x:a/../b")}
    listed = {member: [*entries, doubtful, {"nothing": 1}, 7], "nextCursor": "n", "cacheScope": "public", "ttlMs": 5}
    upstream.answer = lambda seen: _result(seen, listed)
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await _send(client, method, modern=modern)
    shown = answer.json()["result"]
    assert shown[member] == [entries[0], entries[2]]
    assert (shown["nextCursor"], shown["ttlMs"]) == ("n", 5)
    assert shown["cacheScope"] == ("private" if modern else "public")
    assert [done.hidden for _, done in gate.completed] == [4]


@pytest.mark.parametrize("method", ["resources/list", "prompts/list", "resources/templates/list", "tasks/list"])
async def test_a_list_of_whatever_that_cant_be_read_is_not_shown(up: Gateway, upstream: Canned, method: str) -> None:
    """What can't be read can't be filtered."""
    for result in ({}, {REQUESTS[method].shows: 7}):
        upstream.answer = lambda seen, result=result: _result(seen, result)
        async with up.raw() as client:
            answer = await _send(client, method)
        assert answer.json()["error"]["data"]["completion"] == "upstream.failed"


async def test_a_hidden_one_and_one_that_is_not_answer_alike(upstream: Canned) -> None:
    """Nobody learns from a refusal what there is."""
    gate = FakeGate(refuse={"up/hidden": Code.POLICY_NO_MATCH, "up/nosuch": Code.POLICY_NO_MATCH})
    upstream.answer = lambda seen: _result(seen, {"prompts": [{"name": "hidden"}]})
    async with _up(upstream, gate) as up, up.raw() as client:
        await _send(client, "prompts/list")
        hidden, unknown = [await _send(client, "prompts/get", name=name) for name in ("hidden", "nosuch")]
    assert [one.call.tool.known for one in gate.admitted[1:] if one.call.tool] == [True, False]
    bodies = [{**one.json()["error"]["data"], "id": ""} for one in (hidden, unknown)]
    assert bodies[0] == bodies[1]
    assert hidden.status_code == unknown.status_code


async def test_an_acknowledgement_stays_empty(up: Gateway, upstream: Canned) -> None:
    """Some readers want an empty result to be empty; the headers tell the decision."""
    upstream.answer = lambda seen: _result(seen, {})
    async with up.raw() as client:
        answer = await _send(client, "logging/setLevel", level="debug")
    assert answer.json()["result"] == {}
    assert answer.headers["whygate-reason"] == "policy.public_tool"


# --- subscriptions ---


async def test_each_resource_of_a_subscription_is_decided(upstream: Canned) -> None:
    """As if it were read. All may be: one request goes up, and all end with it. One may not: nothing goes up."""
    gate = FakeGate(refuse={"up/x:secret": Code.POLICY_NO_MATCH})
    upstream.headers = EVENTS
    upstream.answer = lambda seen: _event(json.loads(_result(seen, {"resultType": "complete"})))
    async with _up(upstream, gate) as up, up.raw() as client:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a", "x:b"]}
        await _send(client, "subscriptions/listen", modern=True, notifications=wanted)
        assert [one.call.args for one, done in gate.completed if not done.is_error] == [{"uri": "x:b"}, {"uri": "x:a"}]
        assert len(upstream.seen) == 1
        wanted["resourceSubscriptions"] = ["x:a", "x:secret", "x:b"]
        refused = await _send(client, "subscriptions/listen", modern=True, notifications=wanted)
    assert _told(refused)["code"] == "policy.no_match"
    assert [done.error for _, done in gate.completed[2:]] == ["not_forwarded"]
    assert len(upstream.seen) == 1


async def test_news_of_lists_are_open_and_too_many_resources_are_not(up: Gateway, upstream: Canned) -> None:
    """A subscription to lists alone is one decision; each resource is one, so there is a bound."""
    async with up.raw() as client:
        await _send(client, "subscriptions/listen", modern=True, notifications={"promptsListChanged": True})
        many = {"resourceSubscriptions": [f"x:{n}" for n in range(65)]}
        refused = await _send(client, "subscriptions/listen", modern=True, notifications=many)
        foreign = await _send(client, "subscriptions/listen", modern=True, notifications={"taskIds": ["t-1"]})
    assert [one.decision.code for one in up.gate.admitted] == [
        Code.POLICY_PUBLIC_TOOL,
        Code.ARGS_TOO_LARGE,
        Code.HANDLE_NOT_USABLE,
    ]
    assert refused.json()["error"]["code"] == 1403
    assert foreign.json()["error"]["code"] == -32602
    assert len(upstream.seen) == 1


# --- tasks ---

BORN = {
    "modern": {"resultType": "task", "taskId": "t-1", "status": "working", "ttlMs": 1, "pollIntervalMs": 1},
    "legacy": {"task": {"taskId": "t-1", "status": "working"}},
}
FOLLOWED = [("modern", "tasks/get"), ("modern", "tasks/update"), ("modern", "tasks/cancel")]
FOLLOWED += [("legacy", "tasks/get"), ("legacy", "tasks/result"), ("legacy", "tasks/cancel")]


@pytest.mark.parametrize(("era", "method"), FOLLOWED)
async def test_a_task_is_for_whoever_made_the_call(up: Gateway, upstream: Canned, era: str, method: str) -> None:
    """Its owner follows it, as a call of the tool that it came from; to anybody else it is one that is not."""
    modern = era == "modern"
    upstream.answer = lambda seen: _result(seen, BORN[era])
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        born = await _send(one, "tools/call", modern=modern, name="export")
        assert born.json()["result"]["_meta"]["dev.whygate/decision"]["code"] == "role.permitted"
        upstream.answer = lambda seen: _result(seen, {"content": []})
        own = await _send(one, method, modern=modern, taskId="t-1")
        stolen = await _send(two, method, modern=modern, taskId="t-1")
        invented = await _send(two, method, modern=modern, taskId="t-2")
    assert "result" in own.json()
    assert up.gate.completed[-1][0].call.tool.id == "up/export"
    for refused in (stolen, invented):
        assert refused.json()["error"]["code"] == -32602
        assert _told(refused)["code"] == "handle.not_usable"
        assert _told(refused)["next"] == "fix_call"
    assert len(upstream.seen) == 2


async def test_the_header_of_a_task_is_compared_with_the_body(up: Gateway, upstream: Canned) -> None:
    """SEP-2663: whoever routes by it must not be told a tale."""
    upstream.answer = lambda seen: _result(seen, BORN["modern"])
    async with up.raw() as client:
        await _send(client, "tools/call", modern=True, name="export")
        body = _request("tasks/get", modern=True, taskId="t-1")
        wrong = await client.post("/up", json=body, headers=routing("tasks/get", "t-2"))
        missing = await client.post("/up", json=body, headers=routing("tasks/get", None))
    assert [_told(one)["code"] for one in (wrong, missing)] == ["request.header_mismatch"] * 2


async def test_what_a_task_gave_in_the_end_is_a_tools_result(up: Gateway, upstream: Canned) -> None:
    """The decision stands in it, too, what the server put in its place does not, and a tool's error is one."""
    upstream.answer = lambda seen: _result(seen, BORN["modern"])
    forged = {"dev.whygate/decision": {"code": "forged"}, "theirs": 1}
    done = {"content": [], "isError": True, "_meta": forged}
    async with up.raw() as client:
        await _send(client, "tools/call", modern=True, name="export")
        answer = {"resultType": "complete", "taskId": "t-1", "status": "completed", "result": done}
        upstream.answer = lambda seen: _result(seen, answer)
        got = (await _send(client, "tasks/get", modern=True, taskId="t-1")).json()["result"]
    assert got["_meta"]["dev.whygate/decision"] == got["result"]["_meta"]["dev.whygate/decision"]
    assert got["result"]["_meta"]["theirs"] == 1
    completion = up.gate.completed[-1][1]
    assert (completion.is_error, completion.error) == (True, "tool_error")
    assert completion.result_bytes > 0


async def test_a_list_of_tasks_shows_ones_own(up: Gateway, upstream: Canned) -> None:
    """A server that tells its clients apart by our credential would show everybody's."""
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        upstream.answer = lambda seen: _result(seen, BORN["legacy"])
        await _send(one, "tools/call", name="export")
        upstream.answer = lambda seen: _result(seen, {"task": {"taskId": "t-2"}})
        await _send(two, "tools/call", name="export")
        upstream.answer = lambda seen: _result(seen, {"tasks": [{"taskId": name} for name in ("t-1", "t-2", "t-3")]})
        lists = [(await _send(client, "tasks/list")).json()["result"]["tasks"] for client in (one, two)]
    assert lists == [[{"taskId": "t-1"}], [{"taskId": "t-2"}]]


async def test_two_owners_may_have_a_task_of_the_same_name(up: Gateway, upstream: Canned) -> None:
    """Processes of one server count alike: each owner has its own, as the tool that it called."""
    upstream.answer = lambda seen: _result(seen, BORN["legacy"])
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        await _send(one, "tools/call", name="export")
        await _send(two, "tools/call", name="import")
        answers = [await _send(client, "tasks/get", taskId="t-1") for client in (one, two)]
    assert all("result" in answer.json() for answer in answers)
    assert [one.call.tool.id for one, _ in up.gate.completed[2:] if one.call.tool] == ["up/export", "up/import"]


# --- what was asked before ---


async def test_a_requests_state_works_for_its_caller_and_call_only(up: Gateway, upstream: Canned) -> None:
    """The server gets its own state back, byte for byte; another caller's, another call's, and a changed one stay here."""
    state = 'up:"é".1'
    upstream.answer = lambda seen: _result(seen, {"resultType": "input_required", "requestState": state})
    args = {"name": "drop", "arguments": {"table": "x"}}
    answers = {"sure": {"action": "accept"}}
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        first = await _send(one, "tools/call", modern=True, **args)
        sealed = first.json()["result"]["requestState"]
        again = args | {"requestState": sealed, "inputResponses": answers}
        good = await _send(one, "tools/call", modern=True, **again)
        bad = [
            await _send(two, "tools/call", modern=True, **again),
            await _send(one, "tools/call", modern=True, **again | {"arguments": {"table": "y"}}),
            await _send(one, "tools/call", modern=True, **again | {"name": "other"}),
            await _send(one, "tools/call", modern=True, **again | {"requestState": sealed + "x"}),
            await _send(one, "tools/call", modern=True, **again | {"requestState": state}),
            await _send(one, "prompts/get", modern=True, **again),
        ]
    assert sealed != state
    assert good.json()["result"]["requestState"] == sealed
    assert json.loads(upstream.seen[1].body)["params"]["requestState"] == state
    assert json.loads(upstream.seen[1].body)["params"]["inputResponses"] == answers
    assert up.gate.admitted[1].call.answers == answers
    assert up.gate.admitted[1].call.args == {"table": "x"}
    for refused in bad:
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        assert _told(refused)["code"] == "handle.not_usable"
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("member", [{"requestState": ["t-1"]}, {"inputResponses": "yes"}])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "notifications/tasks/status"])
async def test_a_state_or_answers_of_another_type_are_no_such_thing(up: Gateway, method: str, member: Any) -> None:
    """Also where a notification brings them, which has no use for either."""
    message = _request(method, modern=True, name="drop", **member)
    named = None
    if method.startswith("notifications/"):
        del message["id"]
    else:
        named = "drop"
    async with up.raw() as client:
        refused = await client.post("/up", json=message, headers=routing(method, named))
    assert (refused.status_code, _told(refused)["code"]) == (400, "request.malformed")


def test_memory_of_tasks_is_bounded_for_each_and_in_all() -> None:
    """Who makes many loses its own oldest first; in all, the oldest go."""
    from whygate.core.identity import IdentityType, Principal, Proof

    one, two = (Principal(id=name, type=IdentityType.AI_AGENT, proof=Proof.JWT) for name in "ab")
    kept = handles.Handles(per_principal=2, in_all=3)
    kept.bind("up", "first", two, None)
    for number in range(4):
        kept.bind("up", f"t-{number}", one, None)
    assert [kept.usable("up", f"t-{number}", one) for number in range(4)] == [False, False, True, True]
    assert kept.usable("up", "first", two)
    assert kept.usable("up", "t-3", one)
    assert not kept.usable("up", "t-3", two)
    kept.bind("up", "second", two, None)
    assert not kept.usable("up", "first", two)
    assert kept.usable("up", "second", two)
    kept.bind("up", "x" * 1000, one, None)
    assert not kept.usable("up", "x" * 1000, one)


# --- what a server asks ---


async def test_a_question_that_may_not_be_asked_is_never_shown(upstream: Canned) -> None:
    """Legacy: it vanishes from the stream between other frames, the server is answered in the client's place, and the call
    goes on.
    """
    gate = FakeGate(refuse={"up/elicitation": Code.POLICY_NO_MATCH})
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": {"a": 1, "A": 2}}}
    answered = asyncio.Event()
    upstream.hold = answered

    def answer(seen: Seen) -> bytes | list[bytes]:
        message = json.loads(seen.body)
        if "method" not in message:
            answered.set()
            return b""
        frames = _event(note) + b": still here\n\n" + _event(ASK)
        return [frames[:40], frames[40:], _event(json.loads(_result(seen, {"content": []})))]

    upstream.headers = EVENTS
    upstream.answer = answer
    async with _up(upstream, gate) as up, up.raw() as client:
        got = await client.post("/up", json=_request("tools/call", name="x"), headers=SESSION)
    shown = [json.loads(line.removeprefix("data: ")) for line in got.text.splitlines() if line.startswith("data: ")]
    assert [one.get("method", "result") for one in shown] == ["notifications/message", "result"]
    assert b": still here" in got.content
    reply = json.loads(upstream.seen[1].body)
    assert (reply["id"], reply["error"]["code"], reply["error"]["data"]) == ("q1", 1403, {"code": "policy.no_match"})
    assert upstream.seen[1].headers["mcp-session-id"] == "s-1"
    assert [one.call.method for one in gate.admitted] == ["tools/call", "elicitation/create"]
    assert [one.call.method for one, _ in gate.completed] == ["tools/call"]


async def test_a_question_that_may_be_asked_passes_untouched(up: Gateway, upstream: Canned) -> None:
    """Byte for byte, on a call's stream and on the session's own; recorded as a question of the server."""
    upstream.headers = EVENTS
    frame = b"id: 7\r\n" + _event(ASK).replace(b"\n", b"\r\n")
    upstream.answer = lambda seen: frame + (_event(json.loads(_result(seen, {}))) if seen.body else b"")
    async with up.raw() as client:
        called = await client.post("/up", json=_request("tools/call", name="x"), headers=SESSION)
        heard = await client.get("/up", headers=SESSION)
    assert called.content.startswith(frame)
    assert heard.content == frame
    asked = [one.call for one, _ in up.gate.completed if one.call.method == "elicitation/create"]
    assert [(one.tool.type, one.tool.name, one.args["message"]) for one in asked if one.tool] == [
        ("question", "elicitation", "Your name?")
    ] * 2


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("http://pay.example/in", "url"),
        ("https://pay.example@evil.example/in", "url"),
        ("https://PAY.example/in", "url"),
        ("https://pay.example\\@evil.example", "url"),
        ("javascript:alert(1)", "url"),
        ("//pay.example", "url"),
        (7, "url"),
        ("https://pay.example/in", "form"),
        ("https://pay.example/in", "popup"),
    ],
)
async def test_a_page_that_can_be_read_in_two_ways_is_never_opened(
    up: Gateway, upstream: Canned, url: Any, mode: str
) -> None:
    """Whatever rules say: a user sees one host and the browser goes to another."""
    upstream.headers = EVENTS
    question = ASK | {"params": LED | {"url": url, "mode": mode}}
    upstream.answer = lambda seen: _event(question) + _event(json.loads(_result(seen, {"content": []})))
    async with up.raw() as client:
        answer = await client.post("/up", json=_request("tools/call", name="x"), headers=SESSION)
    assert "elicitation/create" not in answer.text
    assert up.gate.admitted[1].decision.code is Code.QUESTION_REFUSED


@pytest.mark.parametrize(
    "data",
    [
        b'[{"jsonrpc":"2.0","id":"q1","method":"elicitation/create","params":{}}]',
        b'{"jsonrpc":"2.0","id":"q1","Method":"elicitation/create","params":{}}',
        b'{"jsonrpc":"2.0","id":"q1","method":"notifications/x","method":"elicitation/create"}',
        b'{"jsonrpc":"2.0","id":9,"result":{"tools":[{"name":"hidden"}]}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{"tools":[]}}',
        b"elicitation/create",
    ],
)
async def test_what_cant_be_read_as_one_message_is_dropped(up: Gateway, upstream: Canned, data: bytes) -> None:
    """A lenient client could take it for a question, or for the answer to another call."""
    upstream.headers = EVENTS
    upstream.answer = lambda seen: b"data: " + data + b"\n\n" + _event(json.loads(_result(seen, {"content": []})))
    async with up.raw() as client:
        answer = await client.post("/up", json=_request("tools/call", name="x"), headers=SESSION)
    assert data not in answer.content
    assert answer.text.count("data: ") == 1


async def test_a_server_that_sends_what_cant_be_read_does_not_fill_the_log(
    up: Gateway, upstream: Canned, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand of them are ten lines, and each says how many there were."""
    upstream.headers = EVENTS
    upstream.answer = lambda seen: b"data: x\n\n" * 1000 + _event(json.loads(_result(seen, {"content": []})))
    async with up.raw() as client:
        answer = await client.post("/up", json=_request("tools/call", name="x"), headers=SESSION)
    assert answer.text.count("data: ") == 1
    told = [line for line in caplog.messages if "is dropped" in line]
    assert len(told) == 10
    assert "(the 512. since the start)" in told[-1]


async def test_a_modern_server_asks_in_its_result_only(up: Gateway, upstream: Canned) -> None:
    """2026-07-28 has no requests of servers; what comes as one is refused, and nobody is answered."""
    upstream.headers = EVENTS
    upstream.answer = lambda seen: _event(ASK) + _event(json.loads(_result(seen, {"content": []})))
    async with up.raw() as client:
        answer = await _send(client, "tools/call", modern=True, name="x")
    assert "elicitation/create" not in answer.text
    assert up.gate.admitted[1].decision.code is Code.QUESTION_REFUSED
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_result_with_a_question_that_may_not_be_asked_is_withheld(
    upstream: Canned, method: str, stream: bool
) -> None:
    """Modern: the caller is told that, and what to do; the completion says so, and the question has its own decision."""
    gate = FakeGate(refuse={"up/page": Code.POLICY_NO_MATCH})
    requests = {"a": {"method": "roots/list", "params": {}}, "b": {"method": "elicitation/create", "params": LED}}
    asks = {"resultType": "input_required", "inputRequests": requests, "requestState": "s"}
    upstream.headers = EVENTS if stream else upstream.headers
    wrap = _event if stream else lambda message: json.dumps(message).encode()
    upstream.answer = lambda seen: wrap(json.loads(_result(seen, asks)))
    params = {"uri": URI} if method == "resources/read" else {"name": "x"}
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await _send(client, method, modern=True, **params)
    body = json.loads(answer.text.partition("data: ")[2] if stream else answer.text)
    told = body["error"]["data"] if "error" in body else body["result"]["_meta"]["dev.whygate/decision"]
    assert told["completion"] == "result.question_refused"
    assert ("error" in body) == (method != "tools/call")
    assert "pay.example" not in answer.text
    ends = {one.call.method: done for one, done in gate.completed}
    assert ends[method].code is Code.RESULT_QUESTION_REFUSED
    assert ends["roots/list"].error == "not_forwarded"
    [asked] = [one.call for one in gate.admitted if one.call.method == "elicitation/create"]
    assert (asked.tool.name, asked.args["host"], asked.asked) == ("page", "pay.example", "pay.example")


async def test_a_result_with_questions_that_may_be_asked_passes(up: Gateway, upstream: Canned) -> None:
    """All of them decided, and the result as it came but for its state and the decision."""
    requests = {"a": {"method": "sampling/createMessage", "params": {"messages": ["long" * 9000], "maxTokens": 5}}}
    upstream.answer = lambda seen: _result(seen, {"resultType": "input_required", "inputRequests": requests})
    async with up.raw() as client:
        answer = await _send(client, "tools/call", modern=True, name="x")
    assert answer.json()["result"]["inputRequests"] == requests
    assert [one.call.method for one, _ in up.gate.completed] == ["sampling/createMessage", "tools/call"]
    assert up.gate.completed[0][0].call.args == {"maxTokens": 5}


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "input_required", "InputRequests": {"a": {"method": "roots/list"}}},
        {"resultType": "input_required", "inputRequests": ["a"]},
        {"resultType": "input_required", "inputRequests": {"a": {"method": "tools/call"}}},
        {"resultType": "input_required", "inputRequests": {"a": {"Method": "roots/list"}}},
        {"resultType": "complete", "ResultType": "input_required", "content": []},
        {"ResultType": "input_required", "resultType": "complete", "content": []},
        {"resultType": "input_required", "inputRequests": {str(n): {"method": "roots/list"} for n in range(33)}},
    ],
)
async def test_questions_that_cant_be_read_are_withheld(up: Gateway, upstream: Canned, result: dict[str, Any]) -> None:
    """What can't be read opens no door."""
    upstream.answer = lambda seen: _result(seen, result)
    async with up.raw() as client:
        answer = await _send(client, "tools/call", modern=True, name="x")
    assert _told(answer)["completion"] == "result.question_refused"
    assert any(one.decision.code is Code.QUESTION_REFUSED for one in up.gate.admitted)


LATE = {
    "a result": {
        "result": {"resultType": "input_required", "inputRequests": {"a": {k: ASK[k] for k in ("method", "params")}}}
    },
    "an error": {"error": {"code": -32042, "message": "Visit", "data": {"elicitations": [LED]}}},
}


@pytest.mark.parametrize("may", [True, False])
@pytest.mark.parametrize("what", LATE)
async def test_a_late_response_that_asks_is_decided(upstream: Canned, what: str, may: bool) -> None:
    """On a stream that was taken up again, whether or not anybody knows the request; and in the place of a ping's."""
    gate = FakeGate(refuse={} if may else {"up/page": Code.POLICY_NO_MATCH, "up/elicitation": Code.POLICY_NO_MATCH})
    upstream.headers = EVENTS
    upstream.answer = lambda _: _event({"jsonrpc": "2.0", "id": 1} | LATE[what])
    async with _up(upstream, gate) as up, up.raw() as client:
        heard = await client.get("/up", headers=SESSION)
        pinged = await client.post("/up", json=_request("ping"), headers=SESSION)
    for answer in (heard, pinged):
        assert any(word in answer.text for word in ("Your name?", "pay.example")) == may
    assert [one.call.method for one in gate.admitted] == ["GET", "elicitation/create", "elicitation/create"]


@pytest.mark.parametrize("may", [True, False])
@pytest.mark.parametrize("status", [200, 202, 404])
@pytest.mark.parametrize("method", ["ping", "notifications/initialized", "tools/call"])
async def test_a_question_in_the_place_of_an_answer_is_decided(
    upstream: Canned, method: str, status: int, may: bool
) -> None:
    """Some clients take whatever JSON they get for a message. In an error's body, or as a call's answer, it is none that passes."""
    gate = FakeGate(refuse={} if may else {"up/elicitation": Code.POLICY_NO_MATCH})
    upstream.status = status
    upstream.answer = lambda seen: json.dumps(ASK).encode() if "method" in json.loads(seen.body) else b""
    message = _request(method, name="x")
    if method.startswith("notifications/"):
        del message["id"]
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await client.post("/up", json=message, headers=SESSION)
    passes = may and status < 400 and method != "tools/call"
    assert ("Your name?" in answer.text) == passes
    assert ("elicitation/create" in [one.call.method for one in gate.admitted]) == (
        status < 400 and method != "tools/call"
    )


@pytest.mark.parametrize(
    ("body", "harmless"),
    [
        (b"Not found", True),
        (b"", True),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}', True),
        (b'{"error":{"data":{"method":"elicitation/create"}}}', True),
        (b'{"jsonrpc":"2.0","id":1,"Method":"elicitation/create"}', False),
        (b'{"id":1,"method":"a","method":"elicitation/create"}', False),
        (b'[{"jsonrpc":"2.0","id":1,"method":"elicitation/create"}]', False),
        (b' \n{"method ":"elicitation/create"}', False),
        (b'\xef\xbb\xbf{"method":"elicitation/create"}', False),
        (b"{", False),
    ],
)
def test_which_bodies_of_errors_pass(body: bytes, harmless: bool) -> None:
    """Those that no client can take for a message that asks."""
    assert asking.is_harmless(body) == harmless


@pytest.mark.parametrize("may", [True, False])
async def test_an_error_that_leads_to_a_page_is_a_question(upstream: Canned, may: bool) -> None:
    """2025-11-25's -32042: its pages are decided, too."""
    gate = FakeGate(refuse={} if may else {"up/page": Code.POLICY_NO_MATCH})
    error = {"code": -32042, "message": "Visit a page", "data": {"elicitations": [LED]}}
    upstream.answer = lambda _: json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await _send(client, "tools/call", name="x")
    if may:
        assert answer.json()["error"] == error
    else:
        assert "pay.example" not in answer.text
        assert _told(answer)["completion"] == "result.question_refused"
    assert [one.call.method for one in gate.admitted] == ["tools/call", "elicitation/create"]


def test_the_table_says_of_each_method_what_is_decided() -> None:
    """Whoever adds a method has to say which of these it is, and test it."""
    by_how = {how: sorted(name for name, row in REQUESTS.items() if row.how is how) for how in How}
    assert by_how[How.OPEN] == sorted(
        (
            *("initialize", "server/discover", "logging/setLevel"),
            *("tools/list", "resources/list", "prompts/list", "resources/templates/list", "tasks/list"),
        )
    )
    assert by_how[How.GLANCED] == ["ping"]
    assert by_how[How.TOOL] == ["tools/call"]
    named = {method.strip() for method in ASKED}
    assert {*by_how[How.RESOURCE], *by_how[How.PROMPT], *by_how[How.COMPLETION]} == named
    assert set(by_how[How.HANDLE]) == {method for _, method in FOLLOWED}
    assert by_how[How.LISTEN] == ["subscriptions/listen"]
