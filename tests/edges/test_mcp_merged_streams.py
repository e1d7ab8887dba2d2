"""``/mcp``: what passes on a call's stream. Progress, questions and their answers, cancellation, silence."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.servers.mcp_edge import META, call, routing
from tests.servers.merged import (
    DECISION,
    SCRIPT,
    Tools,
    before,
    begin,
    called,
    decided,
    events,
    listed,
    rpc,
    until,
)

from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


# --- streams, questions, cancellation ---


async def test_progress_and_logs_pass_on_the_calls_stream(gate: FakeGate) -> None:
    """With the client's own token, as they arrive; logs for a modern client only where it asked for them."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client:
        args = {"progress": 2, "log": "hello"}
        quiet = await called(client, "up__echo", args, progressToken="t-1")
        level = {"io.modelcontextprotocol/logLevel": "info", "progressToken": 7}
        loud = await called(client, "up__echo", args, **level)
    told = [events(answer.text) for answer in (quiet, loud)]
    assert [one.get("method", one.get("id")) for one in told[0]] == ["notifications/progress"] * 2 + [1]
    assert {one["params"]["progressToken"] for one in told[0][:2]} == {"t-1"}
    assert [one.get("method") for one in told[1]][2] == "notifications/message"
    assert told[1][-1]["result"]["_meta"][DECISION]["id"] == loud.headers["whygate-decision"]


async def test_a_client_without_event_streams_gets_the_answer_alone(gate: FakeGate) -> None:
    """What came before it is dropped; nothing is sent that it can't read."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client:
        headers = routing(name="up__echo") | {"accept": "application/json"}
        answer = await client.post("", json=call("up__echo", {"progress": 2}, progressToken=1), headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert not answer.json()["result"]["isError"]


@asynccontextmanager
async def _streaming(client: httpx.AsyncClient, message: Any, headers: dict[str, str]) -> AsyncIterator[Any]:
    """The messages of an event stream, one by one."""
    async with client.stream("POST", "", json=message, headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream", await answer.aread()

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

        yield messages()


async def test_a_legacy_servers_question_reaches_the_legacy_client_that_caused_it(gate: FakeGate) -> None:
    """Under an id of ours; nobody else's answer counts, and the answer reaches the server under its own id, once."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client, up.raw(agent="b") as other:
        session, others = await begin(client), await begin(other)
        message = call("up__echo", {"ask": "sure?"}, identity="c1", modern=False)
        async with _streaming(client, message, session) as messages:
            question = await anext(messages)
            assert (question["method"], question["params"]) == ("elicitation/create", {"message": "sure?"})
            assert re.fullmatch(r"whygate-[\w-]{16}", question["id"])
            for who, headers, identity, action in (
                (other, others, question["id"], "forged"),
                (client, session, "q1", "guessed"),
                (client, session, question["id"], "accept"),
                (client, session, question["id"], "again"),
            ):
                reply = {"jsonrpc": "2.0", "id": identity, "result": {"action": action}}
                assert (await who.post("", json=reply, headers=headers)).status_code == 202
            answer = await anext(messages)
    assert answer["id"] == "c1"
    told = json.loads(answer["result"]["content"][0]["text"])
    assert (told["id"], told["result"]) == ("q1", {"action": "accept"})


@pytest.mark.parametrize("who", ["modern", "unable", "no events", "no session"])
async def test_a_question_that_nobody_can_be_asked_is_declined(gate: FakeGate, who: str) -> None:
    """The server hears so at once, with an error, instead of waiting."""
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client:
        if who == "modern":
            answer = await called(client, "up__echo", {"ask": "sure?"})
        else:
            session = await begin(client, **({"capabilities": {}} if who == "unable" else {}))
            headers = {} if who == "no session" else session
            headers = headers | ({"accept": "application/json"} if who == "no events" else {})
            answer = await client.post("", json=call("up__echo", {"ask": "sure?"}, modern=False), headers=headers)
    told = json.loads(answer.json()["result"]["content"][0]["text"])
    assert (told["id"], told["error"]["code"]) == ("q1", -32601)


def _asks(message: dict[str, Any]) -> dict[str, Any]:
    """A modern server's tool that asks for a name, then for a colour."""
    params = message["params"]
    given = {key: value["content"]["v"] for key, value in params.get("inputResponses", {}).items()}
    state = json.loads(params.get("requestState", "{}")) | given
    missing = next((key for key in ("name", "colour") if key not in state), "")
    if not missing:
        return {"result": {"content": [{"type": "text", "text": json.dumps(state)}], "resultType": "complete"}}
    question = {"method": "elicitation/create", "params": {"mode": "form", "message": f"{missing}?"}}
    result = {"resultType": "input_required", "inputRequests": {missing: question}, "requestState": json.dumps(state)}
    return {"result": result}


@pytest.mark.parametrize("grace_s", [0.0, 5.0])
async def test_a_modern_servers_questions_are_asked_of_a_legacy_client(
    gate: FakeGate, grace_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round by round on the call's stream, whether it is quick or slow; each round is a call of its own, decided and
    completed.
    """
    monkeypatch.setattr("whygate.mcp.watch.GRACE_S", grace_s)
    upstream = Tools("echo")
    upstream.called = _asks
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        async with _streaming(client, call("up__echo", modern=False, identity=5), session) as messages:
            for value in ("Ada", "red"):
                question = await anext(messages)
                await asyncio.sleep(0.05)
                reply = {"id": question["id"], "result": {"action": "accept", "content": {"v": value}}}
                assert (await client.post("", json={"jsonrpc": "2.0"} | reply, headers=session)).status_code == 202
            answer = await anext(messages)
    assert (answer["id"], json.loads(answer["result"]["content"][0]["text"])) == (5, {"name": "Ada", "colour": "red"})
    assert "resultType" not in answer["result"]
    rounds = decided(gate)
    assert len(rounds) == len(upstream.calls()) == 3
    assert [list(each.call.answers) for each in rounds] == [[], ["name"], ["colour"]]
    assert rounds[1].call.answers == {"name": {"action": "accept", "content": {"v": "Ada"}}}
    assert [each.call.args for each in decided(gate, "elicitation/create")] == [
        {"mode": "form"} | {"message": f"{wanted}?"} for wanted in ("name", "colour")
    ]
    assert len(decided(gate, "response")) == 2
    assert answer["result"]["_meta"][DECISION]["id"] == rounds[-1].answer.id
    traces = [json.loads(seen.body)["params"]["_meta"]["traceparent"] for seen in upstream.calls()]
    assert traces == [admission.traceparent for admission in rounds]


async def test_a_round_that_is_refused_goes_no_further(gate: FakeGate) -> None:
    """What was allowed a moment ago may not be any more: the answers go nowhere, the stream ends with the refusal."""
    upstream = Tools("echo")
    upstream.called = _asks
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        async with _streaming(client, call("up__echo", modern=False), session) as messages:
            question = await anext(messages)
            gate.refuse["up/echo"] = Code.POLICY_NO_MATCH
            reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"v": "Ada"}}}
            await client.post("", json=reply, headers=session)
            answer = await anext(messages)
    assert answer["result"]["isError"]
    assert answer["result"]["_meta"][DECISION]["code"] == "policy.no_match"
    assert len(upstream.calls()) == 1


async def test_a_legacy_client_that_can_not_be_asked_is_told_why(gate: FakeGate) -> None:
    """A failed call, with words for the model, and the record says what was missing."""
    upstream = Tools("echo")
    upstream.called = _asks
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client, capabilities={})
        answer = await client.post("", json=call("up__echo", modern=False), headers=session)
    result = answer.json()["result"]
    assert result["isError"]
    assert "asks for input" in result["content"][0]["text"]
    done = gate.completed[-1][1]
    assert (done.error, done.code) == ("input_required", Code.UPSTREAM_FAILED)


async def test_a_modern_client_answers_a_modern_server_itself(gate: FakeGate) -> None:
    """``input_required`` passes, and the call that brings the answers is decided like any other."""
    upstream = Tools("echo")
    upstream.called = _asks
    async with before(gate, up=upstream) as up, up.raw() as client:
        first = (await called(client, "up__echo")).json()["result"]
        message = call("up__echo")
        message["params"] |= {
            "inputResponses": {"name": {"action": "accept", "content": {"v": "Ada"}}},
            "requestState": first["requestState"],
        }
        second = (await client.post("", json=message, headers=routing(name="up__echo"))).json()["result"]
    assert [list(one["inputRequests"]) for one in (first, second)] == [["name"], ["colour"]]
    assert [list(each.call.answers) for each in decided(gate)] == [[], ["name"]]
    assert len(decided(gate, "elicitation/create")) == 2
    # The server's state is its own; the client has it sealed, and the server gets it back as it was.
    assert first["requestState"] == f"wg1.{first['requestState'].split('.')[1]}.{{}}"
    assert json.loads(upstream.calls()[1].body)["params"]["requestState"] == "{}"


async def test_a_task_is_no_answer_here(gate: FakeGate) -> None:
    """Servers are not told that a client knows the extension, and a handle that nobody could use is a failed call."""
    upstream = Tools("echo")
    upstream.called = lambda _: {"result": {"resultType": "task", "taskId": "t"}}
    async with before(gate, up=upstream) as up, up.raw() as client:
        message = call("up__echo")
        message["params"]["_meta"] = META | {
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {"t": {}}, "elicitation": {}}
        }
        answer = await client.post("", json=message, headers=routing(name="up__echo"))
    sent = upstream.requests[-1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert sent == {"elicitation": {}}
    assert answer.json()["result"]["isError"]
    assert gate.completed[0][1].code is Code.UPSTREAM_FAILED


@pytest.mark.parametrize("modern", [True, False])
async def test_a_client_that_leaves_cancels_the_call_in_the_modern_era(gate: FakeGate, modern: bool) -> None:
    """The legacy server behind it is told so, by its own id; a legacy disconnect cancels nothing."""
    upstream = Tools("echo", modern=False)
    async with before(gate, up=upstream) as up, up.raw() as client:
        await listed(client)
        session = {} if modern else await begin(client)
        upstream.hold, upstream.arrived = asyncio.Event(), asyncio.Event()
        headers = routing(name="up__echo") if modern else session
        upstream.hold.set()
        await client.post("", json=call("up__echo", modern=modern), headers=headers)
        upstream.hold.clear()
        sending = asyncio.ensure_future(client.post("", json=call("up__echo", modern=modern), headers=headers))
        await until(lambda: len(upstream.calls()) == 2)
        await asyncio.sleep(0.1)
        sending.cancel()
        if modern:
            done = await gate.completions.get()
            while done.error != "client_gone":
                done = await gate.completions.get()
        await asyncio.sleep(0.1)
        upstream.hold.set()
        if modern:
            await until(lambda: upstream.requests[-1]["method"] == "notifications/cancelled")
            assert upstream.requests[-1]["params"]["requestId"] == json.loads(upstream.calls()[-1].body)["id"]
        else:
            await until(lambda: len(gate.completed) == 3)
            assert gate.completed[-1][1].error == ""
            assert not [one for one in upstream.requests if one["method"] == "notifications/cancelled"]


@pytest.mark.parametrize("modern", [True, False])
async def test_a_legacy_client_cancels_by_saying_so(gate: FakeGate, modern: bool) -> None:
    """A modern server sees its connection close, a legacy one is told; the client gets no answer that it did not want."""
    upstream = Tools("echo", modern=modern)
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        await client.post("", json=call("up__echo", modern=False), headers=session)
        upstream.hold, upstream.headers = asyncio.Event(), []
        sending = asyncio.ensure_future(
            client.post("", json=call("up__echo", identity="c", modern=False), headers=session)
        )
        await until(lambda: len(upstream.calls()) == 2)
        note = rpc("notifications/cancelled", None, requestId="c")
        assert (await client.post("", json=note, headers=session)).status_code == 202
        answer = await sending
        upstream.hold.set()
        if not modern:
            await until(lambda: upstream.requests[-1]["method"] == "notifications/cancelled")
        await client.post("", json=rpc("ping"), headers=session)
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-type"] == "text/event-stream"
    assert gate.completed[-1][1].error == "cancelled"


async def test_the_same_id_twice_at_once_is_refused(gate: FakeGate) -> None:
    """Within a session nobody could tell the two answers apart, nor which one was cancelled."""
    upstream = Tools("echo")
    upstream.hold = asyncio.Event()
    upstream.hold.set()
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        await client.post("", json=call("up__echo", modern=False), headers=session)
        upstream.hold.clear()
        first = asyncio.ensure_future(client.post("", json=call("up__echo", modern=False), headers=session))
        await until(lambda: len(upstream.calls()) == 2)
        second = await client.post("", json=call("up__echo", modern=False), headers=session)
        upstream.hold.set()
        assert (await first).status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (400, -32600)
    assert len(decided(gate)) == 3


async def test_long_silence_is_bridged(gate: FakeGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a server thinks, the client hears that somebody is there, so that no proxy cuts the line."""
    monkeypatch.setattr("whygate.mcp.crossing.KEEPALIVE_S", 0.05)
    upstream = Tools("echo")
    async with before(gate, up=upstream) as up, up.raw() as client:
        await listed(client)
        upstream.hold = asyncio.Event()
        sending = asyncio.ensure_future(called(client, "up__echo"))
        await asyncio.sleep(0.3)
        upstream.hold.set()
        answer = await sending
    assert answer.text.count(": still here\n\n") >= 2
    assert events(answer.text)[0]["id"] == 1
