"""``/mcp``: what servers ask there is under the same rules as at ``/mcp/{server}``, and a state is its caller's there, too."""

import json
import sys
from typing import Any

import pytest
from tests.servers.mcp_edge import Seen, call, routing
from tests.servers.merged import DECISION, SCRIPT, Tools, before, begin, called, decided, events

from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate

LED = {"mode": "url", "message": "Sign in", "url": "https://evil.example/in", "elicitationId": "e1"}
FORM = {"method": "elicitation/create", "params": {"mode": "form", "message": "Your name?"}}
PAGE = {"method": "elicitation/create", "params": LED}
REFUSED = {"up/elicitation": Code.POLICY_NO_MATCH, "up/page": Code.POLICY_NO_MATCH}


def _asks(*questions: dict[str, Any], state: str = "s") -> Any:
    requests = {str(number): question for number, question in enumerate(questions)}
    result = {"resultType": "input_required", "inputRequests": requests, "requestState": state}
    return lambda _: {"result": result}


async def test_a_legacy_servers_question_that_may_not_be_asked_is_never_shown() -> None:
    """The server is answered in the client's place, and its call goes on; the refusal has a record."""
    gate = FakeGate(refuse=REFUSED)
    server = Server(name="up", command=(sys.executable, str(SCRIPT)))
    async with before(gate, server) as up, up.raw() as client:
        session = await begin(client)
        answer = await client.post("", json=call("up__echo", {"ask": "sure?"}, modern=False), headers=session)
    assert "elicitation/create" not in answer.text.replace("\\", "")
    [last] = events(answer.text) if "data: " in answer.text else [answer.json()]
    told = json.loads(last["result"]["content"][0]["text"])
    assert (told["id"], told["error"]["code"], told["error"]["data"]) == ("q1", 1403, {"code": "policy.no_match"})
    [asked] = decided(gate, "elicitation/create")
    assert (asked.call.server, asked.call.args, asked.allowed) == ("up", {"message": "sure?"}, False)


@pytest.mark.parametrize("modern", [True, False])
async def test_a_modern_servers_questions_that_may_not_be_asked_are_withheld(modern: bool) -> None:
    """From a client of its own era, and from a legacy one, for whom they would be translated. Of those that come together one is
    enough.
    """
    gate = FakeGate(refuse={"up/page": Code.POLICY_NO_MATCH})
    upstream = Tools("echo")
    upstream.called = _asks(FORM, PAGE)
    async with before(gate, up=upstream) as up, up.raw() as client:
        if modern:
            answer = await called(client, "up__echo")
        else:
            answer = await client.post("", json=call("up__echo", modern=False), headers=await begin(client))
    assert "evil.example" not in answer.text
    assert "Your name?" not in answer.text
    told = answer.json()["result"]["_meta"][DECISION]
    assert (told["code"], told["completion"]) == ("role.permitted", "result.question_refused")
    assert [each.allowed for each in decided(gate, "elicitation/create")] == [True, False]
    assert decided(gate, "elicitation/create")[1].call.asked == "evil.example"
    [(_, done)] = [each for each in gate.completed if each[0].call.method == "tools/call"]
    assert done.code is Code.RESULT_QUESTION_REFUSED
    assert len(upstream.calls()) == 1


@pytest.mark.parametrize("may", [True, False])
async def test_an_error_that_leads_to_a_page_is_a_question(may: bool) -> None:
    """2025-11-25's -32042, which the merged address passes on as it is."""
    gate = FakeGate(refuse={} if may else REFUSED)
    upstream = Tools("echo", modern=False)
    error = {"code": -32042, "message": "Visit a page", "data": {"elicitations": [LED]}}
    upstream.called = lambda _: {"error": error}
    async with before(gate, up=upstream) as up, up.raw() as client:
        answer = await client.post("", json=call("up__echo", modern=False), headers=await begin(client))
    assert ("evil.example" in answer.text) == may
    assert [each.allowed for each in decided(gate, "elicitation/create")] == [may]


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":"q1","method":"elicitation/create","Method":"x","params":{"message":"sure?"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","Id":"q1","Method":"elicitation/create","params":{}}',
        b'{"jsonrpc":"2.0","method":"notifications/message","ID":"q1","RESULT":{},"params":{"level":"info","data":1}}',
        b'{"jsonrpc":"2.0","method":"elicitation/create","params":{"message":"sure?"}}',
    ],
)
async def test_what_can_be_read_as_a_question_by_some_is_not_passed_on(message: bytes) -> None:
    """Spelt so that a client which does not mind case asks its user, or without the id that an answer would need."""
    gate = FakeGate()
    upstream = Tools("echo", modern=False)
    plain, declined = upstream.answer, list[Any]()

    def answer(seen: Seen) -> bytes:
        if b'"error"' in seen.body:
            declined.append(json.loads(seen.body))
            return b""
        body = plain(seen)
        if b"tools/call" not in seen.body:
            return body
        upstream.headers = [(b"content-type", b"text/event-stream")]
        return b"data: " + message + b"\n\ndata: " + body + b"\n\n"

    upstream.answer = answer
    async with before(gate, up=upstream) as up, up.raw() as client:
        answer_ = await client.post("", json=call("up__echo", modern=False), headers=await begin(client))
    assert "elicitation" not in answer_.text
    assert "notifications/message" not in answer_.text
    # Who asked with an id is told that nobody can be asked, and does not wait.
    waits = b'"id"' in message
    assert [(each["id"], each["error"]["code"]) for each in declined] == ([("q1", -32601)] if waits else [])
    assert not (events(answer_.text)[-1] if "data: " in answer_.text else answer_.json())["result"]["isError"]


async def test_a_state_works_for_its_caller_and_its_call_only() -> None:
    """Under the server's own name, so that it works at both addresses; of a server that is not it tells nothing."""
    gate = FakeGate()
    upstream, other = Tools("echo", "drop"), Tools("echo")
    upstream.called = _asks(FORM)
    said = {"0": {"action": "accept"}}
    async with before(gate, up=upstream, other=other) as up, up.raw() as one, up.raw(agent="b") as two:
        sealed = (await called(one, "up__echo", {"a": 1})).json()["result"]["requestState"]

        async def again(client: Any, name: str, args: Any = None, path: str = "", state: str = sealed) -> Any:
            message = call(name, args or {"a": 1})
            message["params"] |= {"inputResponses": said, "requestState": state}
            return await client.post(path, json=message, headers=routing(name=name))

        good = [await again(one, "up__echo"), await again(one, "echo", path="/up")]
        bad = [
            await again(two, "up__echo"),
            await again(one, "up__echo", {"a": 2}),
            await again(one, "up__drop"),
            await again(one, "other__echo"),
            await again(one, "ghost__echo"),
            await again(one, "up__echo", state="s"),
            await again(one, "up__echo", state=sealed[:-1] + "t"),
        ]
    assert sealed != "s"
    for answer in good:
        assert answer.json()["result"]["requestState"] == sealed
    for answer in bad:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
        assert answer.json()["error"]["data"]["code"] == "handle.not_usable"
    assert [json.loads(seen.body)["params"].get("requestState") for seen in upstream.calls()] == [None, "s", "s"]
    assert other.calls() == []
    assert [each.call.answers for each in decided(gate) if each.allowed] == [{}, said, said]


async def test_what_a_client_answers_is_recorded_and_decided_with_the_next_round() -> None:
    """A rule may look at it: the call that carries it on is refused, and the server never learns of it."""
    gate = FakeGate()
    upstream = Tools("echo")
    upstream.called = _asks(FORM)
    async with before(gate, up=upstream) as up, up.raw() as client:
        session = await begin(client)
        async with client.stream("POST", "", json=call("up__echo", modern=False), headers=session) as stream:
            lines = stream.aiter_lines()
            question = events("\n".join([await anext(lines), await anext(lines)]))[0]
            gate.refuse["up/echo"] = Code.POLICY_NO_MATCH
            reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"n": "Ada"}}}
            assert (await client.post("", json=reply, headers=session)).status_code == 202
            rest = events("\n".join([line async for line in lines]))
    assert rest[-1]["result"]["_meta"][DECISION]["code"] == "policy.no_match"
    assert decided(gate)[1].call.answers == {"0": {"action": "accept", "content": {"n": "Ada"}}}
    [answer] = decided(gate, "response")
    assert answer.call.args == {"result": {"action": "accept", "content": {"n": "Ada"}}}
    assert len(upstream.calls()) == 1
