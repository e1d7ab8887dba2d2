"""``/mcp``: all servers' tools in one address. What is listed, what is decided, what each server gets."""

import asyncio
import json

import msgspec
import pytest
from tests.servers.mcp_edge import META, Seen, call, routing
from tests.servers.merged import (
    DECISION,
    HELLO,
    SCHEMA,
    Tools,
    before,
    begin,
    called,
    listed,
    names,
    rpc,
)

from whygate.core.reasons import Code
from whygate.mcp import gathering, merging
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate
from whygate.testing.serve import free_port


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


# --- the list ---


@pytest.mark.parametrize("modern", [True, False])
async def test_one_list_of_all_servers(gate: FakeGate, modern: bool) -> None:
    """By server and then in each server's order, all pages, definitions byte for byte; one decision, whose completion
    says what each server gave.
    """
    zoo, ark = Tools("cat", "bee"), Tools(modern=False)
    ark.pages = [["b", "hidden"], ["a__x"], ["c"]]
    gate.hidden = {"ark/hidden"}
    async with before(gate, zoo=zoo, ark=ark) as up, up.raw() as client:
        message = rpc("tools/list", **({"_meta": META} if modern else {}))
        answer = await client.post("", json=message, headers=routing("tools/list", None) if modern else {})
    result = answer.json()["result"]
    assert names(result) == ["ark__b", "ark__a__x", "ark__c", "zoo__cat", "zoo__bee"]
    assert answer.content.count(b'"inputSchema":' + SCHEMA + b',"_meta":{"k":1.0}') == 5
    (admission,) = gate.admitted
    assert (admission.call.method, admission.call.server, admission.call.tool) == ("tools/list", "", None)
    ((_, done),) = gate.completed
    told = [(one.name, one.tools, one.hidden, one.code) for one in done.servers]
    assert told == [("ark", 3, 1, ""), ("zoo", 2, 0, "")]
    assert (done.hidden, done.is_error, done.code) == (1, False, None)
    assert result["_meta"][DECISION]["id"] == admission.answer.id == answer.headers["whygate-decision"]
    assert up.catalogue.learnt == ["ark/b", "ark/hidden", "ark/a__x", "ark/c", "zoo/cat", "zoo/bee"]
    caching = {key: result.get(key) for key in ("resultType", "ttlMs", "cacheScope")}
    # A legacy server says nothing of how long its list holds.
    assert caching == (
        {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else dict.fromkeys(caching)
    )
    for seen in (one for upstream in (zoo, ark) for one in upstream.seen if one.body and b"tools/list" in one.body):
        assert seen.headers["traceparent"] == admission.traceparent


async def test_a_list_holds_as_long_as_its_servers_say(gate: FakeGate) -> None:
    """The least of what they said; meanwhile they are not asked again, each caller being decided and filtered anew."""
    one, two = Tools("x", "y"), Tools("z")
    async with before(gate, one=one, two=two) as up, up.raw() as client:
        first = await listed(client)
        gate.hidden = {"one/x"}
        second = await listed(client)
    assert (first["ttlMs"], names(first)) == (9000, ["one__x", "one__y", "two__z"])
    assert names(second) == ["one__y", "two__z"]
    assert len(gate.completed) == 2
    assert sum(request["method"] == "tools/list" for request in one.requests) == 1


def _garbage(_: Seen) -> bytes:
    return b"<html>It works!</html>"


@pytest.mark.parametrize("ill", ["down", "slow", "garbage", "circles"])
async def test_a_server_that_gives_no_list_is_left_out(
    gate: FakeGate, ill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' tools are listed, the record says who is missing and why, and clients come back for it soon."""
    monkeypatch.setattr(gathering, "LIST_S", 0.5)
    bad = Tools("x")
    if ill == "garbage":
        bad.answer = _garbage
    elif ill == "slow":
        bad.hold = asyncio.Event()
    elif ill == "circles":
        bad.pages = [["x"], ["y"]]
        made = bad._answer
        bad.answer = lambda seen: made(seen).replace(b'"nextCursor":"1"', b'"nextCursor":"0"')
    bad_url = f"http://127.0.0.1:{free_port()}/mcp"
    others = (Server(name="bad", url=bad_url),) if ill == "down" else ()
    async with before(gate, *others, good=Tools("y"), **({} if others else {"bad": bad})) as up, up.raw() as client:
        result = await listed(client)
    assert names(result) == ["good__y"]
    assert result["ttlMs"] == 5000
    ((_, done),) = gate.completed
    code = "upstream.timeout" if ill == "slow" else "upstream.failed"
    assert [(one.name, one.tools, one.code) for one in done.servers] == [("bad", 0, code), ("good", 1, "")]
    assert (done.is_error, done.code) == (False, None)


async def test_where_no_server_gives_a_list_there_is_none(gate: FakeGate) -> None:
    """Not an empty list, which would be a lie: a failure, with the decision in it."""
    bad = Tools()
    bad.answer = _garbage
    async with before(gate, bad=bad, worse=bad) as up, up.raw() as client:
        message = rpc("tools/list", _meta=META)
        answer = await client.post("", json=message, headers=routing("tools/list", None))
    error = answer.json()["error"]
    assert (error["code"], error["data"]["completion"]) == (-32603, "upstream.failed")
    ((_, done),) = gate.completed
    assert (done.is_error, done.code, len(done.servers)) == (True, Code.UPSTREAM_FAILED, 2)


# --- calls ---


@pytest.mark.parametrize("modern", [True, False])
async def test_a_call_is_decided_as_on_the_servers_own_address(gate: FakeGate, modern: bool) -> None:
    """No policy can tell by which address a call came: the same call, to the last fact."""
    async with before(gate, up=Tools("echo")) as made, made.raw() as client:
        args, more = {"a": [1, {"b": "ü"}]}, {"com.example/k": 1}
        headers = routing() | {"mcp-param-region": "eu"} if modern else {}
        merged = headers | {"mcp-name": "up__echo"} if modern else {}
        await client.post("", json=call("up__echo", args, modern=modern, **more), headers=merged)
        await client.post("/up", json=call("echo", args, modern=modern, **more), headers=headers)
    first, second = (admission.call for admission in gate.admitted)
    assert first == second
    assert first.tool is not None
    assert first.tool.id == "up/echo"


async def test_what_a_modern_server_gets(gate: FakeGate) -> None:
    """Its tool's own name, in the body and in the header, arguments byte for byte, our trace and credential, and of the
    client's headers only those that repeat arguments.
    """
    args = b'{ "region" :"eu","n":1.00,\n"e":1E2}'
    meta = {"progressToken": "t", "dev.whygate/task": "t1", "baggage": "x=y", "com.example/k": 1}
    body = (
        json.dumps(call("up__do__it", modern=True, **meta))
        .encode()
        .replace(b'"arguments": {}', b'"arguments": ' + args)
    )
    upstream = Tools("do__it")
    async with before(gate, up=upstream) as up, up.raw(agent="secret") as client:
        headers = routing(name="up__do__it") | {"mcp-param-region": "eu", "x-mine": "1", "cookie": "a=b"}
        answer = await client.post("", content=body, headers=headers)
    assert answer.json()["id"] == 1
    (seen,) = upstream.calls()
    sent = json.loads(seen.body)["params"]
    assert args in seen.body
    assert (sent["name"], seen.headers["mcp-name"], seen.headers["mcp-method"]) == ("do__it", "do__it", "tools/call")
    assert seen.headers["mcp-param-region"] == "eu"
    assert seen.headers["traceparent"] == sent["_meta"]["traceparent"] == gate.admitted[0].traceparent
    assert not {"x-mine", "cookie", "authorization", "mcp-session-id"} & seen.headers.keys()
    assert sent["_meta"]["com.example/k"] == 1
    assert not {"dev.whygate/task", "baggage"} & sent["_meta"].keys()
    assert b"secret" not in b"".join(value for _, value in seen.raw_headers)


async def test_an_answer_comes_back_as_if_from_us(gate: FakeGate) -> None:
    """With the client's id, the contents untouched, our name and the decision in its ``_meta``."""
    upstream = Tools("echo")
    upstream.called = lambda _: {
        "result": {
            "content": [],
            "structuredContent": {"k": [1]},
            "resultType": "complete",
            "_meta": {
                "io.modelcontextprotocol/serverInfo": {"name": "evil"},
                DECISION: {"outcome": "forged"},
                "own": 1,
            },
        }
    }
    async with before(gate, up=upstream) as up, up.raw() as client:
        answer = await called(client, "up__echo", identity="my id")
    body = answer.json()
    assert body["id"] == "my id"
    assert body["result"]["structuredContent"] == {"k": [1]}
    meta = body["result"]["_meta"]
    assert (meta["io.modelcontextprotocol/serverInfo"]["name"], meta["own"]) == ("whygate", 1)
    assert (meta[DECISION]["id"], meta[DECISION]["outcome"]) == (answer.headers["whygate-decision"], "permitted")
    ((_, done),) = gate.completed
    assert (done.status, done.is_error, bool(done.result_digest)) == (200, False, True)


@pytest.mark.parametrize(
    "name",
    [
        *("ghost__echo", "echo", "__echo", "up_echo", "__", "____", "/echo", "UP__echo", "up/echo", "up.__echo"),
        *("up\u200b__echo", "\uff55p__echo", "up__", "", "other__up__echo"),
    ],
)
async def test_hostile_names_reach_no_server(gate: FakeGate, name: str) -> None:
    """Whatever the name, no server but the one that it begins with is ever called, and what has no shape is refused."""
    upstream = Tools("echo")
    gate.hidden = {"up/"}
    async with before(gate, up=upstream) as up, up.raw() as client:
        answer = await client.post("", json=call(name, modern=False))
        body = answer.json()
    assert "error" in body or body["result"]["isError"]
    assert [json.loads(seen.body)["params"]["name"] for seen in upstream.calls()] == []
    assert len(gate.admitted) == 1
    asked = gate.admitted[0].call
    assert asked.tool is None or (asked.tool.server, asked.tool.known) != ("up", False)


async def test_a_tool_of_no_server_is_decided_like_one_that_no_server_has(gate: FakeGate) -> None:
    """An agent can't find out by a refusal which servers there are."""
    gate.refuse = dict.fromkeys(("up/nothing", "/ghost__nothing"), Code.POLICY_NO_MATCH)
    async with before(gate, up=Tools("echo")) as up, up.raw() as client:
        told = [(await called(client, f"{server}__nothing")).json()["result"] for server in ("up", "ghost")]
    for one, admission in zip(told, gate.admitted, strict=True):
        one["_meta"][DECISION].pop("id")
        one["content"][0]["text"] = one["content"][0]["text"].replace(admission.answer.id, "")
    assert told[0] == told[1]


async def test_a_refused_call_reaches_nobody(gate: FakeGate) -> None:
    """It is a result that the model can read, and the server is not even asked who it is."""
    gate.refuse["up/echo"] = Code.POLICY_NO_MATCH
    upstream = Tools("echo")
    async with before(gate, up=upstream) as up, up.raw() as client:
        answer = await called(client, "up__echo")
        body = answer.json()["result"]
    assert (body["isError"], body["_meta"][DECISION]["code"]) == (True, "policy.no_match")
    assert upstream.seen == []
    assert gate.completed == []


async def test_a_server_that_is_down_is_a_failed_call(gate: FakeGate) -> None:
    """Allowed, completed as failed, and told in words."""
    down = Server(name="up", url=f"http://127.0.0.1:{free_port()}/mcp")
    async with before(gate, down) as up, up.raw() as client:
        result = (await called(client, "up__echo")).json()["result"]
    assert (result["isError"], result["_meta"][DECISION]["completion"]) == (True, "upstream.failed")
    assert gate.completed[0][1].code is Code.UPSTREAM_FAILED


async def test_a_legacy_client_of_a_modern_server(gate: FakeGate) -> None:
    """The request describes itself, and the headers that the schema wants are made from the arguments."""
    upstream = Tools("echo")
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        message = call("up__echo", {"region": "grün"}, modern=False, progressToken=7)
        answer = await client.post("", json=message, headers=session)
    (seen,) = upstream.calls()
    meta = json.loads(seen.body)["params"]["_meta"]
    assert seen.headers["mcp-param-region"] == "=?base64?Z3LDvG4=?="
    assert meta["io.modelcontextprotocol/protocolVersion"] == seen.headers["mcp-protocol-version"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {"elicitation": {}}
    assert meta["io.modelcontextprotocol/clientInfo"] == HELLO["clientInfo"]
    assert "resultType" not in answer.json()["result"]


async def test_a_modern_client_of_a_legacy_server(gate: FakeGate) -> None:
    """One session for the principal, opened once; nothing of the newer revision reaches it, the answer is completed."""
    upstream = Tools("echo", modern=False)
    async with before(gate, up=upstream) as up, up.raw() as client:
        answers = [await called(client, "up__echo", identity=number) for number in (1, 1)]
    assert [answer.json()["result"]["resultType"] for answer in answers] == ["complete"] * 2
    assert upstream.sessions == 1
    for seen in upstream.calls():
        assert (seen.headers["mcp-session-id"], seen.headers["mcp-protocol-version"]) == ("s-1", "2025-11-25")
        assert not [
            key for key in json.loads(seen.body)["params"]["_meta"] if key.startswith("io.modelcontextprotocol")
        ]
        assert not {"mcp-name", "mcp-method"} & seen.headers.keys()
    assert len({json.loads(seen.body)["id"] for seen in upstream.calls()}) == 2
    assert upstream.ended == ["s-1"]  # when the gateway stopped


async def test_every_call_is_completed_once_whatever_the_server_does(gate: FakeGate) -> None:
    """Garbage, an answer to something else, a stream without one, an error, a credential refused, too much."""
    upstream = Tools("echo")
    answers = [
        (200, b"application/json", b"nonsense"),
        (200, b"application/json", b'{"jsonrpc":"2.0","id":999,"result":{}}'),
        (200, b"application/json", b'{"jsonrpc":"2.0","id":%d,"result":7}'),
        (200, b"text/event-stream", b": nothing\n\n"),
        (200, b"text/event-stream", b'data: {"jsonrpc":"2.0","id":%d,"result":{}'),
        (401, b"application/json", b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32001,"message":"who?"}}'),
        (500, b"text/plain", b"oops"),
        (200, b"text/event-stream", b"data: " + b"x" * (17 * 1024 * 1024)),
    ]
    made, at = upstream._answer, 0

    def answer(seen: Seen) -> bytes:
        if b"tools/call" not in seen.body:
            return made(seen)
        upstream.status, kind, body = answers[at]
        upstream.headers = [(b"content-type", kind)]
        return body % json.loads(seen.body)["id"] if b"%d" in body else body

    upstream.answer = answer
    async with before(gate, up=upstream) as up, up.raw() as client:
        for at in range(len(answers)):
            result = (await called(client, "up__echo")).json()["result"]
            assert result["isError"], at
            assert b"who?" not in json.dumps(result).encode()
    codes = [done.code for _, done in gate.completed]
    assert codes == [Code.UPSTREAM_FAILED] * 7 + [Code.RESULT_TOO_LARGE]


async def test_an_error_of_a_servers_passes(gate: FakeGate) -> None:
    """With the client's id and, in the modern era, the status that it has there."""
    upstream = Tools("echo")
    upstream.called = lambda _: {"error": {"code": -32602, "message": "bad argument", "data": {"k": 1}}}
    async with before(gate, up=upstream) as up, up.raw() as client:
        modern = await called(client, "up__echo", identity=3)
        legacy = await client.post("", json=call("up__echo", identity=4, modern=False))
    for answer, identity, status in ((modern, 3, 400), (legacy, 4, 200)):
        error = {"code": -32602, "message": "bad argument", "data": {"k": 1}}
        assert (answer.status_code, answer.json()) == (status, {"jsonrpc": "2.0", "id": identity, "error": error})
    assert [done.error for _, done in gate.completed] == ["-32602"] * 2


def test_the_split_is_unambiguous() -> None:
    """For every two names of servers that the configuration accepts, no tool of one is ever read as the other's."""
    assert msgspec.json.encode(merging.split("a-b_c__d__e")) == b'["a-b_c","d__e"]'
    assert merging.split("a___b") == ("a", "_b")
