"""``/mcp``: the gateway as a server of both eras. Sessions, what hangs on them, and what is none of this address."""

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest
from tests.servers.mcp_edge import META, Seen, call, routing
from tests.servers.merged import (
    HELLO,
    SCRIPT,
    Tools,
    before,
    begin,
    called,
    decided,
    post,
    rpc,
    until,
)

from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


# --- sessions ---


async def test_the_handshake(gate: FakeGate) -> None:
    """The revision that the client asks for where we speak it; tools and nothing else; a ping is answered. Each is decided,
    as on the other addresses: a greeting is recorded, and pings and notifications are looked at.
    """
    async with before(gate, up=Tools("echo")) as up, up.raw() as client:
        hello = (await post(client, rpc("initialize", **HELLO))).json()["result"]
        other = (await post(client, rpc("initialize", **(HELLO | {"protocolVersion": "1999-01-01"})))).json()["result"]
        session = await begin(client)
        ping = await client.post("", json=rpc("ping"), headers=session)
        found = await client.post("", json=rpc("server/discover", _meta=META), headers=routing("server/discover", None))
        slash = await client.post("/", json=rpc("ping"), headers=session)
    assert (hello["protocolVersion"], hello["capabilities"]) == ("2025-06-18", {"tools": {}})
    assert hello["serverInfo"]["name"] == "whygate"
    assert other["protocolVersion"] == "2025-11-25"
    assert ping.json()["result"] == slash.json()["result"] == {}
    assert (found.json()["result"]["supportedVersions"], found.json()["result"]["capabilities"]) == (
        ["2026-07-28"],
        {"tools": {}},
    )
    assert [each.call.method for each in gate.admitted] == ["initialize"] * 3 + ["server/discover"]
    assert [admission for admission, _ in gate.completed] == gate.admitted
    assert [call.method for call in gate.glanced] == ["notifications/initialized", "ping", "ping"]


async def test_a_session_is_its_principals(gate: FakeGate) -> None:
    """Somebody else's, one that never was and one that has ended answer alike, to every kind of message."""
    async with before(gate, up=Tools("echo", modern=False)) as up, up.raw() as client, up.raw(agent="b") as other:
        mine, ended = await begin(client), await begin(client)
        assert (await client.delete("", headers=ended)).status_code == 204
        for who, session in ((other, mine), (client, ended), (client, {"mcp-session-id": "nonsense"})):
            for message in (
                call("up__echo", modern=False),
                rpc("tools/list"),
                rpc("notifications/cancelled", None, requestId=1),
                {"jsonrpc": "2.0", "id": "whygate-x", "result": {}},
            ):
                answer = await who.post("", json=message, headers=session)
                assert answer.status_code == 404, message
                assert answer.json()["error"]["message"] == "Session not found"
            assert (await who.delete("", headers=session)).status_code == 404
        assert (await client.post("", json=call("up__echo", modern=False), headers=mine)).status_code == 200


async def test_what_hangs_on_a_session_ends_with_it(gate: FakeGate) -> None:
    """Each client's session has its own with each server, ended when the client ends its own; nobody else's."""
    upstream = Tools("echo", modern=False)
    async with before(gate, up=upstream) as up, up.raw() as client, up.raw(agent="b") as other:
        first, second, others = await begin(client), await begin(client), await begin(other)
        for who, session in ((client, first), (client, second), (other, others)):
            await who.post("", json=call("up__echo", modern=False), headers=session)
        used = [seen.headers["mcp-session-id"] for seen in upstream.calls()]
        assert used == ["s-1", "s-2", "s-3"]
        await client.delete("", headers=first)
        await until(lambda: upstream.ended == ["s-1"])
        await other.post("", json=call("up__echo", modern=False), headers=others)
        assert upstream.calls()[-1].headers["mcp-session-id"] == "s-3"


async def test_a_session_that_a_server_lost_is_opened_anew(gate: FakeGate) -> None:
    """The client is none the wiser: the call that met the loss is made in the new session."""
    upstream = Tools("echo", modern=False)
    made, lost = upstream._answer, []

    def answer(seen: Seen) -> bytes:
        if seen.headers.get("mcp-session-id") == "s-1" and b"tools/call" in seen.body and lost:
            upstream.status = 404
            return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'
        return made(seen)

    upstream.answer = answer
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        await client.post("", json=call("up__echo", modern=False), headers=session)
        lost.append(True)
        again = await client.post("", json=call("up__echo", modern=False), headers=session)
    assert not again.json()["result"]["isError"]
    assert [seen.headers["mcp-session-id"] for seen in upstream.calls()] == ["s-1", "s-1", "s-2"]
    assert len(decided(gate)) == 2


async def test_a_killed_process_is_replaced_and_never_shared(gate: FakeGate) -> None:
    """A stdio server that keeps state has a process for each principal; one that dies takes its call with it, no more."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client, up.raw(agent="b") as other:

        async def pid(who: httpx.AsyncClient, **args: Any) -> Any:
            result = (await called(who, "up__echo", args)).json()["result"]
            return result["isError"] or json.loads(result["content"][0]["text"])["pid"]

        first, others = await pid(client), await pid(other)
        assert first == await pid(client) != others
        assert await pid(client, die=True) is True
        assert await pid(client) not in (first, others)
        assert await pid(other) == others
    assert len(gate.admitted) == len(gate.completed) == 6


async def test_sessions_are_bounded(gate: FakeGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one idle longest makes room, for its own principal only; where none is idle, the refusal is recorded."""
    monkeypatch.setattr("whygate.mcp.talks.PER_PRINCIPAL", 2)
    upstream = Tools("echo", modern=False)
    upstream.hold = asyncio.Event()
    upstream.hold.set()
    async with before(gate, up=upstream) as up, up.raw() as client, up.raw(agent="b") as other:
        oldest, others, second = await begin(client), await begin(other), await begin(client)
        third = await begin(client)
        ping = rpc("ping")
        alive = [(await who.post("", json=call("up__e", modern=False), headers=session)).status_code
                 for who, session in ((client, oldest), (client, second), (client, third), (other, others))]  # fmt: skip
        assert alive == [404, 200, 200, 200]
        upstream.hold.clear()
        running = [
            asyncio.ensure_future(client.post("", json=call("up__e", modern=False), headers=session))
            for session in (second, third)
        ]
        await until(lambda: len(upstream.calls()) == 5)
        refused = await post(client, rpc("initialize", **HELLO))
        upstream.hold.set()
        await asyncio.gather(*running)
        assert (await client.post("", json=ping, headers=second)).status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["data"]["code"] == "quota.exceeded"
    assert gate.admitted[-1].call.faults[0].code is Code.QUOTA_EXCEEDED


async def test_idle_sessions_end(gate: FakeGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with them what the servers opened for them."""
    monkeypatch.setattr("whygate.mcp.talks.IDLE_S", 0.0)
    monkeypatch.setattr("whygate.mcp.talks._SWEEP_S", 0.05)
    upstream = Tools("echo", modern=False)
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        await client.post("", json=call("up__echo", modern=False), headers=session)
        await until(lambda: bool(upstream.ended))
        assert (await client.post("", json=rpc("tools/list"), headers=session)).status_code == 404


# --- what is none of it ---


@pytest.mark.parametrize("method", ["resources/list", "prompts/get", "logging/setLevel", "tasks/get", "x", "ping"])
async def test_other_methods_are_refused_and_recorded(gate: FakeGate, method: str) -> None:
    """As the protocol says it: 404 in the modern era, where ``ping`` is gone, an error with status 200 in the legacy one."""
    async with before(gate, up=Tools()) as up, up.raw() as client:
        params = {"_meta": META, "name": "n", "taskId": "n"}
        modern = await client.post("", json=rpc(method, **params), headers=routing(method, "n"))
        answers = [(modern, 404)]
        if method != "ping":
            answers.append((await client.post("", json=rpc(method, name="n", taskId="n")), 200))
    for (answer, status), admission in zip(answers, gate.admitted, strict=True):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, -32601)
        assert error["data"]["code"] == answer.headers["whygate-reason"] == "request.method_unknown"
        assert error["data"]["id"] == admission.answer.id
        assert error["data"]["next"]


async def test_there_is_no_stream_to_get(gate: FakeGate) -> None:
    """Everything comes on the stream of the call that it is for; clients are told so as the protocol has it."""
    async with before(gate, up=Tools()) as up, up.raw() as client:
        session = await begin(client)
        got = [await client.get(path, headers=session) for path in ("", "/")]
        modern = await client.delete("", headers=session | {"mcp-protocol-version": "2026-07-28"})
    assert [(answer.status_code, answer.headers["allow"]) for answer in (*got, modern)] == [(405, "POST, DELETE")] * 3


@pytest.mark.parametrize(
    ("message", "headers", "told"),
    [
        (rpc("tools/list", cursor="x"), {}, (400, -32602, "request.malformed")),
        (rpc("tools/list"), {"mcp-protocol-version": "1999-01-01"}, (400, -32600, "request.version_unsupported")),
        (call("up__echo"), routing(name="echo"), (400, -32020, "request.header_mismatch")),
        (call("up__echo", modern=False), {"authorization": ""}, (401, 1403, "agent.unauthenticated")),
        (rpc("ping"), {"authorization": "Bearer idle"}, (200, 1403, "agent.suspended")),
        (rpc("tools/list"), {"authorization": "Bearer idle"}, (200, 1403, "agent.suspended")),
        ([], {}, (400, -32600, "request.batch")),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, routing("x", None), (400, -32600, "request.malformed")),
    ],
)
async def test_what_is_wrong_is_refused_and_explained(
    gate: FakeGate, message: Any, headers: dict[str, str], told: tuple[int, int, str]
) -> None:
    """With one record each; a challenge names the metadata of this address (RFC 9728)."""
    async with before(gate, up=Tools("echo")) as up, up.raw() as client:
        answer = await client.post("", json=message, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["data"]["code"]) == told
    assert len(gate.admitted) == 1
    assert gate.admitted[0].answer.id == error["data"]["id"] == answer.headers["whygate-decision"]
    if answer.status_code == 401:
        address = "https://gw.example/.well-known/oauth-protected-resource/mcp"
        assert f'resource_metadata="{address}"' in answer.headers["www-authenticate"]
        async with before(gate, up=Tools()) as up, httpx.AsyncClient() as anyone:
            found = await anyone.get(f"{up.url}/.well-known/oauth-protected-resource/mcp")
        assert found.json()["resource"] == "https://gw.example/mcp"
