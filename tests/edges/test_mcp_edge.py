"""The MCP edge over HTTP upstreams, byte by byte: what is forwarded, what is refused, what never crosses."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.servers.mcp_edge import METADATA, Canned, Gateway, call, gateway, result, routing

from whygate.core.identity import Status
from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate
from whygate.testing.serve import free_port, served

EVENTS = [(b"content-type", b"text/event-stream")]


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
def upstream() -> Canned:
    return Canned()


@asynccontextmanager
async def _up(upstream: Canned, gate: FakeGate, timeout_s: float = 20.0) -> AsyncIterator[Gateway]:
    async with served(upstream) as url:
        server = Server(name="up", url=url, headers=(("authorization", "Bearer ours"),), read_timeout_s=timeout_s)
        async with gateway(server, gate, suspended=("idle",)) as made:
            yield made


@pytest.fixture
async def up(upstream: Canned, gate: FakeGate) -> AsyncIterator[Gateway]:
    async with _up(upstream, gate) as made:
        yield made


def _decision(answer: httpx.Response) -> dict[str, Any]:
    """The answer's data, after checking that headers and body tell the same."""
    body = answer.json()
    data = body["error"]["data"] if "error" in body else body["result"]["_meta"]["dev.whygate/decision"]
    told = [answer.headers[f"whygate-{name}"] for name in ("decision", "outcome", "reason")]
    assert told == [data["id"], data["outcome"], data["code"]]
    return data


async def test_the_arguments_arrive_byte_for_byte(up: Gateway, upstream: Canned) -> None:
    """What was evaluated is what the tool gets, escapes and spaces and all; the length is right, nothing is chunked."""
    args = b'{ "n" :1.00,\n"e":1E2,"u":"\\u00fc\xc3\xbc"}'
    body = b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"echo","arguments":' + args + b"}}"
    async with up.raw() as client:
        answer = await client.post("/up", content=body)
    assert answer.status_code == 200
    assert args in upstream.seen[0].body
    assert upstream.seen[0].headers["content-length"] == str(len(upstream.seen[0].body))
    assert up.gate.admitted[0].call.args == {"n": 1.0, "e": 100.0, "u": "üü"}
    assert up.gate.admitted[0].call.request_id == "x"


async def test_credentials_never_cross(up: Gateway, upstream: Canned) -> None:
    """The agent's credential and cookies stay here, the upstream gets ours; its cookies and challenges stay here too."""
    upstream.headers += [(b"set-cookie", b"s=1"), (b"www-authenticate", b"Bearer"), (b"mcp-session-id", b"s-1")]
    sent = {
        "cookie": "session=secret",
        "x-api-key": "secret",
        "whygate-task": "t",
        "baggage": "a=b",
        "tracestate": "x=y",
    }
    async with up.raw(agent="the-agents-secret") as client:
        answer = await client.post("/up", json=call(modern=False), headers=sent)
    got = upstream.seen[0].headers
    assert got["authorization"] == "Bearer ours"
    assert not {"cookie", "x-api-key", "whygate-task", "baggage", "tracestate"} & got.keys()
    assert b"the-agents-secret" not in b"".join(value for _, value in upstream.seen[0].raw_headers)
    assert got["traceparent"] == up.gate.admitted[0].traceparent
    assert not {"set-cookie", "www-authenticate"} & answer.headers.keys()
    assert answer.headers["mcp-session-id"] == "s-1"


async def test_the_answer_keeps_its_bytes_and_carries_the_decision(up: Gateway, upstream: Canned) -> None:
    """The result's members are as the upstream wrote them; the completion holds their length and digest."""
    raw = b'{"content":[ {"type":"text","text":"\\u00fc"} ],"structuredContent":{"n":1.00}}'
    upstream.answer = lambda _: b'{"result":' + raw + b',"id":1,"jsonrpc":"2.0"}'
    async with up.raw() as client:
        answer = await client.post("/up", json=call(), headers=routing())
    assert raw[:-1] in answer.content
    assert _decision(answer)["code"] == "role.permitted"
    done = up.gate.completed[0][1]
    assert (done.result_bytes, done.result_digest) == (len(raw), up.gate.digest(raw))
    assert (done.status, done.is_error) == (200, False)


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({"host": "evil.example"}, b"{}", (403, 1403, "request.origin_refused")),
        ({"origin": "https://evil.example"}, b"{}", (403, 1403, "request.origin_refused")),
        ({}, b" " * (4 * 1024 * 1024 + 1), (413, -32600, "request.too_large")),
        ({"authorization": ""}, b"{}", (401, 1403, "agent.unauthenticated")),
        ({"authorization": "Bearer expired"}, b"{}", (401, 1403, "agent.token_expired")),
        ({}, b"nonsense", (400, -32700, "request.malformed")),
        ({}, b"[]", (400, -32600, "request.batch")),
        ({}, b'{"jsonrpc":"2.0","id":1,"method":"ping","id":2}', (400, -32600, "request.duplicate_key")),
        ({}, json.dumps(call(modern=True)).encode(), (400, -32020, "request.header_mismatch")),
        (routing(name="other"), json.dumps(call()).encode(), (400, -32020, "request.header_mismatch")),
        (routing(), json.dumps(call(modern=False)).encode(), (400, -32602, "request.malformed")),
    ],
)
async def test_every_refusal_is_recorded_once_and_explained(
    up: Gateway, upstream: Canned, headers: dict[str, str], body: bytes, told: tuple[int, int, str]
) -> None:
    """Whatever is wrong: one decision, its code in body and headers, the protocol's own status; nothing went upstream."""
    status, rpc, code = told
    async with up.raw() as client:
        answer = await client.post("/up", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == rpc
    assert _decision(answer)["code"] == code
    assert [admission.decision.code for admission in up.gate.admitted] == [code]
    assert upstream.seen == []
    assert up.gate.completed == []
    if status == 401:
        assert METADATA in answer.headers["www-authenticate"]


async def test_a_credential_that_is_there_twice_is_refused(up: Gateway, upstream: Canned) -> None:
    """Which of two would count is not for us to choose."""
    async with up.raw() as client:
        headers = httpx.Headers([*client.headers.multi_items(), ("authorization", "Bearer b")])
        client.headers = httpx.Headers()
        answer = await client.post("/up", json=call(modern=False), headers=headers)
    assert answer.status_code == 401
    assert _decision(answer)["code"] == "agent.unauthenticated"
    assert upstream.seen == []


@pytest.mark.parametrize(("method", "status"), [("GET", 401), ("DELETE", 401)])
async def test_streams_and_goodbyes_need_a_credential_too(
    up: Gateway, upstream: Canned, method: str, status: int
) -> None:
    """No way around the gate by another verb."""
    async with up.raw() as client:
        answer = await client.request(method, "/up", headers={"authorization": "Basic x"})
    assert answer.status_code == status
    assert len(up.gate.admitted) == 1
    assert upstream.seen == []


async def test_unknown_servers_and_verbs_are_refused_after_the_credential(up: Gateway) -> None:
    """Who is not known learns nothing of what there is."""
    async with up.raw() as client:
        known = await client.post("/nosuch", json=call(modern=False))
        verb = await client.put("/up", json=call(modern=False))
        unknown = await client.post("/nosuch", json=call(modern=False), headers={"authorization": "none"})
    assert [one.status_code for one in (known, verb, unknown)] == [404, 405, 401]
    assert _decision(known)["code"] == "request.server_unknown"
    assert _decision(verb)["code"] == "request.method_unknown"


async def test_a_ledger_that_is_down_lets_nothing_through(up: Gateway, upstream: Canned) -> None:
    """503 with Retry-After, and the data all the same."""
    up.gate.always = Code.AUDIT_UNAVAILABLE
    async with up.raw() as client:
        answer = await client.post("/up", json=call(modern=False))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert _decision(answer)["code"] == "audit.unavailable"
    assert upstream.seen == []


@pytest.mark.parametrize("method", ["tools/call", "initialize", "ping", "resources/read", "notifications/cancelled"])
async def test_a_suspended_agent_gets_nothing_through(up: Gateway, upstream: Canned, method: str) -> None:
    """Not even what is not decided by rules."""
    body = call(modern=False) | {"method": method}
    body["params"]["uri"] = "file:///x"
    if method.startswith("notifications/"):
        del body["id"]
    async with up.raw(agent="idle") as client:
        answer = await client.post("/up", json=body)
    assert _decision(answer)["code"] == "agent.suspended"
    assert up.gate.admitted[0].call.principal.status is Status.SUSPENDED
    assert upstream.seen == []


@pytest.mark.parametrize("method", ["ping", "notifications/initialized", "notifications/cancelled"])
async def test_what_is_only_glanced_at_passes_untouched(up: Gateway, upstream: Canned, method: str) -> None:
    """Bytes both ways, whatever the spacing, status and media type; decided, and without a record."""
    upstream.status = 404
    upstream.answer = lambda _: b'{ "odd" : 1.0 }'
    identity = b'"id":1 ,' if method == "ping" else b""
    body = (
        b'{ "jsonrpc":"2.0",'
        + identity
        + b' "method":"'
        + method.encode()
        + b'","params":{"_meta":{"traceparent":"x"}}}'
    )
    async with up.raw() as client:
        answer = await client.post("/up", content=body)
    assert (answer.status_code, answer.content) == (404, b'{ "odd" : 1.0 }')
    assert upstream.seen[0].body == body
    assert up.gate.admitted == []
    assert [call.method for call in up.gate.glanced] == [method]


async def test_an_event_stream_passes_unbuffered_and_only_our_response_changes(up: Gateway, upstream: Canned) -> None:
    """Events reach the agent while the tool still works; comments, names, ids and other messages keep their bytes."""
    upstream.headers = EVENTS
    upstream.hold = asyncio.Event()
    first = b': ping\r\n\r\nid: 7\r\nevent: message\r\ndata: {"jsonrpc":"2.0",\r\ndata: "method":"notifications/message"}\r\n\r\n'
    last = b"event: message\r\nid: 8\r\ndata: " + result(1) + b"\r\n\r\n"
    upstream.answer = lambda _: [first, last]
    got = b""
    async with up.raw() as client, client.stream("POST", "/up", json=call(), headers=routing()) as answer:
        assert answer.headers["whygate-outcome"] == "permitted"
        async for chunk in answer.aiter_raw():
            got += chunk
            if got == first:
                upstream.hold.set()
    assert got.startswith(first)
    event = got.removeprefix(first)
    assert b"id: 8\n" in event
    data = json.loads(event.partition(b"data: ")[2])
    assert data["result"]["_meta"]["dev.whygate/decision"]["code"] == "role.permitted"
    assert len(up.gate.completed) == 1


async def test_a_stream_that_breaks_off_ends_with_an_error_for_the_call(up: Gateway, upstream: Canned) -> None:
    """The agent is told, and so is the record."""
    upstream.headers = EVENTS
    upstream.answer = lambda _: [b": working\n\n", b"data: {"]
    async with up.raw() as client:
        answer = await client.post("/up", json=call(), headers=routing())
    event = json.loads(answer.content.rpartition(b"data: ")[2])
    assert event["id"] == 1
    assert event["result"]["isError"]
    assert event["result"]["_meta"]["dev.whygate/decision"]["completion"] == "upstream.failed"
    assert [done.code for _, done in up.gate.completed] == [Code.UPSTREAM_FAILED]


async def test_an_upstream_that_is_not_there_is_a_readable_result(gate: FakeGate) -> None:
    """Allowed and failed: the decision stands, the completion says what happened, the text says what to do."""
    server = Server(name="up", url=f"http://127.0.0.1:{free_port()}/mcp")
    async with gateway(server, gate) as made, made.raw() as client:
        tool = await client.post("/up", json=call(), headers=routing())
        other = await client.post("/up", json=call(modern=False) | {"method": "prompts/get"})
        stream = await client.get("/up")
    assert tool.status_code == 200
    assert tool.json()["result"]["isError"]
    assert tool.json()["result"]["resultType"] == "complete"
    assert "could not be reached" in tool.json()["result"]["content"][0]["text"]
    assert _decision(tool)["code"] == "role.permitted"
    assert other.json()["error"]["data"]["completion"] == "upstream.failed"
    assert stream.status_code == 502
    assert [done.code for _, done in gate.completed] == [Code.UPSTREAM_FAILED] * 3


async def test_an_upstream_that_is_silent_times_out(upstream: Canned, gate: FakeGate) -> None:
    """Between two reads, never in total."""
    upstream.hold = asyncio.Event()
    async with _up(upstream, gate, timeout_s=0.2) as up, up.raw() as client:
        answer = await client.post("/up", json=call(), headers=routing())
    assert "upstream.timeout" in answer.json()["result"]["content"][0]["text"]
    assert [done.code for _, done in gate.completed] == [Code.UPSTREAM_TIMEOUT]


@pytest.mark.parametrize("status", [401, 403, 407, 302, 500, 503])
async def test_the_upstreams_own_troubles_do_not_look_like_the_agents(
    up: Gateway, upstream: Canned, status: int
) -> None:
    """Our credential refused, a redirect, a crash: the agent could mend none of them, and is told that the tool failed."""
    upstream.status = status
    upstream.headers = [(b"content-type", b"text/html"), (b"location", b"http://elsewhere.example")]
    upstream.answer = lambda _: b"<h1>oops</h1>"
    async with up.raw() as client:
        answer = await client.post("/up", json=call(), headers=routing())
    assert answer.status_code == 200
    assert "upstream.failed" in answer.json()["result"]["content"][0]["text"]
    assert "location" not in answer.headers
    assert [(done.status, done.code) for _, done in up.gate.completed] == [(status, Code.UPSTREAM_FAILED)]


@pytest.mark.parametrize(("status", "rpc"), [(404, -32600), (400, -32602), (200, -32603)])
async def test_the_upstreams_protocol_errors_pass_unchanged(
    up: Gateway, upstream: Canned, status: int, rpc: int
) -> None:
    """A dead session has to look like one, or the client never begins anew."""
    error = {"jsonrpc": "2.0", "id": 1, "error": {"code": rpc, "message": "no"}}
    upstream.status = status
    upstream.answer = lambda _: json.dumps(error).encode()
    async with up.raw() as client:
        answer = await client.post("/up", json=call(modern=False))
    assert (answer.status_code, answer.json()) == (status, error)
    assert answer.headers["whygate-outcome"] == "permitted"
    assert [(done.status, done.error, done.is_error) for _, done in up.gate.completed] == [(status, str(rpc), True)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":7}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"error":{"code":1,"message":"x"}}',
        b'{"id":1,"result":[]}',
        b"[]",
    ],
)
async def test_a_list_that_cant_be_read_is_not_shown(up: Gateway, upstream: Canned, body: bytes) -> None:
    """What can't be read can't be filtered."""
    upstream.answer = lambda _: body
    async with up.raw() as client:
        answer = await client.post("/up", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert answer.json()["error"]["data"]["completion"] == "upstream.failed"


async def test_a_filtered_list_keeps_bytes_order_and_cursor_and_is_private(upstream: Canned) -> None:
    """Definitions are not rebuilt; a list cut down for one caller must not be cached for another."""
    gate = FakeGate(hidden={"up/b"})
    tools = [b'{"name":"%s", "inputSchema":{"$defs":{"x":1.00}}}' % name for name in (b"c", b"b", b"a")]
    listed = (
        b'{"tools":[' + b",".join([*tools, b'{"noname":1}']) + b'],"nextCursor":"n","cacheScope":"public","ttlMs":5}'
    )
    upstream.answer = lambda _: b'{"jsonrpc":"2.0","id":1,"result":' + listed + b"}"
    body = call() | {"method": "tools/list"}
    async with _up(upstream, gate) as up, up.raw() as client:
        answer = await client.post("/up", json=body, headers=routing("tools/list", None))
    shown = answer.json()["result"]
    assert tools[0] + b"," + tools[2] in answer.content
    assert (shown["nextCursor"], shown["cacheScope"], shown["ttlMs"]) == ("n", "private", 5)
    assert [tool["name"] for tool in shown["tools"]] == ["c", "a"]
    assert [done.hidden for _, done in gate.completed] == [2]


async def test_a_modern_client_that_leaves_cancels_the_upstreams_work(up: Gateway, upstream: Canned) -> None:
    """2026-07-28: closing the stream is the cancellation, and reaches the upstream as such."""
    upstream.hold = asyncio.Event()
    upstream.headers = EVENTS
    upstream.answer = lambda _: [b": working\n\n", b"never"]
    async with up.raw() as client, client.stream("POST", "/up", json=call(), headers=routing()) as answer:
        await anext(answer.aiter_raw())
    done = await up.gate.completions.get()
    assert (done.is_error, done.error, done.status) == (True, "client_gone", 200)
    await upstream.left.wait()


async def test_a_modern_client_that_leaves_before_any_answer_is_completed_at_once(upstream: Canned) -> None:
    """The record does not wait for the upstream."""
    gate = FakeGate()
    upstream.hold = asyncio.Event()
    async with _up(upstream, gate) as up, up.raw() as client:
        asking = asyncio.create_task(client.post("/up", json=call(), headers=routing()))
        await upstream.arrived.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        done = await gate.completions.get()
        upstream.hold.set()
    assert (done.is_error, done.error) == (True, "client_gone")


async def test_a_legacy_client_that_leaves_cancels_nothing(up: Gateway, upstream: Canned) -> None:
    """Before, a disconnect is none: the tool finishes, and the record says how it ended."""
    upstream.hold = asyncio.Event()
    async with up.raw() as client:
        asking = asyncio.create_task(client.post("/up", json=call(modern=False)))
        await upstream.arrived.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    upstream.hold.set()
    done = await up.gate.completions.get()
    assert (done.is_error, done.status) == (False, 200)
    assert not upstream.left.is_set()


async def test_a_session_works_only_for_whom_it_was_made(up: Gateway, upstream: Canned) -> None:
    """Another principal gets 404, as for a session that is not."""
    upstream.headers += [(b"mcp-session-id", b"s-1")]
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    session = {"mcp-session-id": "s-1"}
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        await one.post("/up", json=hello)
        own = await one.post("/up", json=call(modern=False), headers=session)
        others = [
            await two.post("/up", json=call(modern=False), headers=session),
            await two.post("/up", json=hello | {"method": "ping"}, headers=session),
            await two.get("/up", headers=session),
            await two.delete("/up", headers=session),
        ]
    assert own.status_code == 200
    assert [answer.status_code for answer in others] == [404, 404, 404, 404]
    assert len(upstream.seen) == 2


async def test_an_answer_that_comes_on_a_resumed_stream_is_completed_and_filtered(upstream: Canned) -> None:
    """2025-11-25 lets a server close the stream and answer when the client comes back for the rest."""
    gate = FakeGate(hidden={"up/b"})
    listed = b'data: {"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}}\n\n'
    upstream.headers = EVENTS
    upstream.answer = lambda seen: b"id: 1\nretry: 10\ndata:\n\n" if seen.method == "POST" else listed
    session = {"mcp-session-id": "s-1"}
    async with _up(upstream, gate) as up, up.raw() as client:
        cut = await client.post("/up", json=call(modern=False) | {"method": "tools/list"}, headers=session)
        assert cut.content == b"id: 1\nretry: 10\ndata:\n\n"
        assert gate.completed == []
        late = await client.get("/up", headers=session | {"last-event-id": "1"})
        again = await client.get("/up", headers=session | {"last-event-id": "1"})
    assert [done.hidden for admission, done in gate.completed if admission.call.method == "tools/list"] == [1]
    assert [admission.call.method for admission, _ in gate.completed].count("GET") == 2
    for answer in (late, again):
        assert b'"a"' in answer.content
        assert b'"b"' not in answer.content


async def test_a_failure_inside_tells_nothing_and_is_recorded(
    up: Gateway, upstream: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours is a recorded refusal with a bare text."""

    async def broken(authorization: str | None) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(up.edge._identifier, "identify", broken)
    async with up.raw() as client:
        answer = await client.post("/up", json=call(modern=False))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert _decision(answer)["code"] == "internal.error"
    assert len(up.gate.admitted) == 1


async def test_a_failure_after_the_decision_still_completes_the_call(
    up: Gateway, upstream: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly one completion, whatever breaks."""
    monkeypatch.setattr(up.edge._forwarder, "outgoing", None)
    async with up.raw() as client:
        answer = await client.post("/up", json=call(modern=False))
    assert answer.status_code == 500
    assert answer.json() == {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": "Internal error"}}
    assert [done.error for _, done in up.gate.completed] == ["internal"]
