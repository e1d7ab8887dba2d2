"""MCP servers over stdio, behind the edge: sessions, sharing, routing, and the lives of processes."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.mcp_edge import META, Gateway, call, gateway, routing

from whygate.core.reasons import Code
from whygate.mcp.backend import Limits, Server
from whygate.mcp.process import one_line
from whygate.testing.gate import FakeGate

SCRIPT = Path(__file__).parents[1] / "servers" / "stdio_server.py"
HELLO = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}


def _server(**more: Any) -> Server:
    return Server(name="up", command=(sys.executable, str(SCRIPT)), env={"CONFIGURED": "yes"}, **more)


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
async def up(gate: FakeGate) -> AsyncIterator[Gateway]:
    async with gateway(_server(), gate) as made:
        yield made


async def _begin(client: httpx.AsyncClient) -> dict[str, str]:
    """Initialize; the headers of the session."""
    answer = await client.post("/up", json=HELLO)
    assert answer.status_code == 200, answer.text
    return {"mcp-session-id": answer.headers["mcp-session-id"]}


async def _legacy(client: httpx.AsyncClient, session: dict[str, str], **args: Any) -> httpx.Response:
    return await client.post("/up", json=call(args=args, modern=False), headers=session)


async def _modern(client: httpx.AsyncClient, identity: Any = 1, **args: Any) -> httpx.Response:
    return await client.post("/up", json=call(args=args, identity=identity), headers=routing())


def _told(answer: httpx.Response) -> dict[str, Any]:
    """What the server's tool told."""
    return json.loads(answer.json()["result"]["content"][0]["text"])


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


async def test_a_session_has_its_own_process_until_it_is_ended(up: Gateway) -> None:
    """Two sessions, two processes; DELETE ends one, and what comes after gets 404."""
    async with up.raw() as client:
        one, two = await _begin(client), await _begin(client)
        pids = [_told(await _legacy(client, session))["pid"] for session in (one, two, one)]
        ended = await client.delete("/up", headers=one)
        late = await _legacy(client, one)
        other = await _legacy(client, two)
    assert pids[0] == pids[2] != pids[1]
    assert (ended.status_code, late.status_code, other.status_code) == (204, 404, 200)
    assert late.headers["whygate-outcome"] == "permitted"


async def test_a_session_is_only_for_whom_it_was_made(up: Gateway) -> None:
    """Not even the existence of another's session can be told."""
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        session = await _begin(one)
        up.edge._bindings.forget("up", session["mcp-session-id"])  # as if long ago: the process's own check holds
        stolen = await _legacy(two, session)
        invented = await _legacy(two, {"mcp-session-id": "x"})
        missing = await two.post("/up", json=call(modern=False))
    assert (stolen.status_code, stolen.content) == (404, invented.content)
    assert missing.status_code == 400


async def test_the_eras_never_share_a_process_and_neither_do_principals(up: Gateway) -> None:
    """A process may keep state, and its first message pins its era."""
    async with up.raw(agent="a") as one, up.raw(agent="b") as two:
        session = await _begin(one)
        pids = {
            "legacy": _told(await _legacy(one, session))["pid"],
            "modern": _told(await _modern(one))["pid"],
            "other": _told(await _modern(two))["pid"],
        }
        again = _told(await _modern(one))["pid"]
    assert len(set(pids.values())) == 3
    assert again == pids["modern"]


async def test_ids_and_progress_tokens_are_restored(up: Gateway) -> None:
    """On a shared process they are ours; each client sees its own again, whatever its kind."""
    async with up.raw() as client:
        meta = {"progressToken": "mine"}
        bodies = [call(args={"progress": 2}, identity=identity, **meta) for identity in ("a", "a", 7)]
        answers = await asyncio.gather(*(client.post("/up", json=body, headers=routing()) for body in bodies))
    for answer, identity in zip(answers, ("a", "a", 7), strict=True):
        assert answer.headers["content-type"] == "text/event-stream"
        first, second, last = _events(answer)
        assert [one["params"]["progressToken"] for one in (first, second)] == ["mine", "mine"]
        assert last["id"] == identity
        assert last["result"]["_meta"]["dev.whygate/decision"]["outcome"] == "permitted"


async def test_the_answer_is_json_when_nothing_came_before_it(up: Gateway) -> None:
    """And a client that takes no events gets JSON in any case."""
    async with up.raw() as client:
        plain = await _modern(client)
        session = await _begin(client)
        headers = session | {"accept": "application/json"}
        quiet = await client.post("/up", json=call(args={"log": "hello"}, modern=False), headers=headers)
    assert plain.headers["content-type"] == quiet.headers["content-type"] == "application/json"
    assert quiet.json()["id"] == 1


async def test_the_servers_question_and_the_clients_answer_find_each_other(up: Gateway) -> None:
    """Legacy: the question comes on the call's stream, the answer is posted, and the call goes on. All three are recorded."""
    reply = {"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept"}}
    events = []
    async with up.raw() as client:
        session = await _begin(client)
        body = call(args={"ask": "sure?"}, modern=False)
        async with client.stream("POST", "/up", json=body, headers=session) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
                    if len(events) == 1:
                        accepted = await client.post("/up", json=reply, headers=session)
                        assert accepted.status_code == 202
    recorded = [admission.call.method for admission, _ in up.gate.completed]
    assert recorded == ["initialize", "elicitation/create", "response", "tools/call"]
    assert events[0]["method"] == "elicitation/create"
    assert json.loads(events[1]["result"]["content"][0]["text"]) == reply


async def test_what_belongs_to_no_request_comes_on_the_get_stream(up: Gateway) -> None:
    """Also what was said before the stream was opened; a second stream is refused."""
    async with up.raw() as client:
        session = await _begin(client)
        quiet = session | {"accept": "application/json"}
        await client.post("/up", json={"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel"}, headers=quiet)
        async with client.stream("GET", "/up", headers=session) as stream:
            lines = stream.aiter_lines()
            seen = [line async for line in _until_data(lines)]
            second = await client.get("/up", headers=session)
            assert second.status_code == 409
            await client.post("/up", json={"jsonrpc": "2.0", "id": 2, "method": "logging/setLevel"}, headers=quiet)
            seen += [line async for line in _until_data(lines)]
    told = [json.loads(line.removeprefix("data: "))["method"] for line in seen]
    assert told == ["notifications/tools/list_changed"] * 2


async def _until_data(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: "):
            yield line
            return


async def test_a_subscription_keeps_the_clients_own_id(up: Gateway) -> None:
    """Its notifications name the id that the client knows, on its stream, for as long as it listens."""
    params = {"_meta": META, "notifications": {"toolsListChanged": True}}
    body = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen", "params": params}
    headers = routing("subscriptions/listen", None)
    async with up.raw() as client, client.stream("POST", "/up", json=body, headers=headers) as stream:
        lines = stream.aiter_lines()
        seen = [json.loads(line.removeprefix("data: ")) for _ in "12" async for line in _until_data(lines)]
    assert [one["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for one in seen] == ["sub", "sub"]
    assert seen[0]["method"] == "notifications/subscriptions/acknowledged"


@pytest.mark.parametrize(("code", "status"), [(-32601, 404), (-32602, 400), (-32021, 400), (-32603, 200)])
async def test_modern_errors_get_the_statuses_of_the_transport(up: Gateway, code: int, status: int) -> None:
    """2026-07-28; a legacy answer is 200 whatever it says."""
    async with up.raw() as client:
        modern = await _modern(client, error=code)
        legacy = await _legacy(client, await _begin(client), error=code)
    assert (modern.status_code, modern.json()["error"]["code"]) == (status, code)
    assert legacy.status_code == 200
    calls = [done.error for admission, done in up.gate.completed if admission.call.method == "tools/call"]
    assert calls == [str(code)] * 2


async def test_a_modern_client_that_leaves_cancels_the_request(up: Gateway) -> None:
    """The process is told by notifications/cancelled, with the id that it knows."""
    said: asyncio.Queue[bytes] = asyncio.Queue()
    async with up.raw() as client:
        await _modern(client)
        await up.gate.completions.get()
        [seat] = up.edge._backends["up"]._shared.values()
        body = call(args={"log": "begun", "hang": True}, identity="mine")
        async with client.stream("POST", "/up", json=body, headers=routing()) as answer:
            await anext(answer.aiter_raw())
            seat.wire._anyone = said.put_nowait
        done = await up.gate.completions.get()
        cancelled = json.loads(await said.get())["params"]["data"]
    assert (done.is_error, done.error) == (True, "client_gone")
    assert cancelled["method"] == "notifications/cancelled"
    assert isinstance(cancelled["params"]["requestId"], int)


async def test_a_process_that_dies_fails_its_calls_and_its_session(up: Gateway) -> None:
    """The call is completed as failed; the session is gone with its process; a modern call starts a new one."""
    async with up.raw() as client:
        session = await _begin(client)
        died = await _legacy(client, session, die=True)
        late = await _legacy(client, session)
        first = _told(await _modern(client))["pid"]
        await _modern(client, die=True)
        second = _told(await _modern(client))["pid"]
    assert "upstream.failed" in died.json()["result"]["content"][0]["text"]
    assert late.status_code == 404
    assert first != second
    calls = [done.code for admission, done in up.gate.completed if admission.call.method == "tools/call"]
    assert calls[0] is Code.UPSTREAM_FAILED


async def test_a_command_that_ends_at_once_is_not_started_over_and_over(gate: FakeGate) -> None:
    """It fails at once and is left alone for a while, twice as long each time."""
    server = Server(name="up", command=(sys.executable, "-c", "pass"))
    async with gateway(server, gate) as up, up.raw() as client:
        first, second = await client.post("/up", json=HELLO), await client.post("/up", json=HELLO)
        backend = up.edge._backends["up"]
        assert backend._failed == 1
        backend._not_before = 0.0
        await client.post("/up", json=HELLO)
        assert backend._failed == 2
    assert [one.json()["error"]["data"]["completion"] for one in (first, second)] == ["upstream.failed"] * 2


async def test_a_command_that_is_not_there_is_a_failed_upstream(gate: FakeGate) -> None:
    """And says nothing of the command to the agent."""
    async with gateway(Server(name="up", command=("/nonexistent/server",)), gate) as up, up.raw() as client:
        answer = await _modern(client)
    assert "upstream.failed" in answer.json()["result"]["content"][0]["text"]
    assert "nonexistent" not in answer.text


async def test_lines_that_are_no_messages_are_dropped(up: Gateway) -> None:
    """A server that prints to its stdout is a nuisance, not an outage."""
    async with up.raw() as client:
        assert _told(await _modern(client, noise=True))["pid"]


async def test_a_child_sees_what_it_needs_and_nothing_else(up: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's own secrets stand in variables that are not handed down."""
    monkeypatch.setenv("WHYGATE_SECRET", "s")
    monkeypatch.setenv("LANG", "C.UTF-8")
    async with up.raw() as client:
        env = _told(await _modern(client))["env"]
    assert env["CONFIGURED"] == "yes"
    assert env["LANG"] == "C.UTF-8"
    assert env["PATH"] == os.environ["PATH"]
    assert "WHYGATE_SECRET" not in env


async def test_a_message_of_several_lines_arrives_as_one(up: Gateway) -> None:
    """Line ends between tokens become spaces; those in strings are escaped and stay."""
    body = json.dumps(call(args={"text": "a\nb"}, modern=False), indent=1).replace("\n", "\r\n").encode()
    async with up.raw() as client:
        answer = await client.post("/up", content=body, headers=await _begin(client))
    assert _told(answer)["params"]["arguments"] == {"text": "a\nb"}
    assert one_line(b'{"a":\r\n"\\n"}') == b'{"a":  "\\n"}'


async def test_one_agents_sessions_are_bounded_and_the_idle_give_way(gate: FakeGate) -> None:
    """The oldest idle one ends for a new one; where none is idle, the new one is refused and that is recorded."""
    async with gateway(_server(limits=Limits(per_principal=2)), gate) as up, up.raw() as client:
        first, second, third = [await _begin(client) for _ in range(3)]
        gone = await _legacy(client, first)
        async with client.stream("GET", "/up", headers=second), client.stream("GET", "/up", headers=third):
            refused = await client.post("/up", json=HELLO)
        async with up.raw(agent="b") as other:
            assert await _begin(other)
    assert gone.status_code == 404
    assert refused.status_code == 429
    assert refused.json()["error"]["data"]["code"] == "quota.exceeded"
    # It was allowed, and then there was no room for it: both are told, and that it was not sent.
    assert Code.QUOTA_EXCEEDED in [one.decision.code for one in gate.admitted if one.call.method == "initialize"]
    assert [done.error for one, done in gate.completed if one.call.method == "initialize"].count("not_forwarded") == 1


async def test_an_idle_session_ends_by_itself(gate: FakeGate) -> None:
    """A process that nobody uses is not kept for ever."""
    async with gateway(_server(limits=Limits(idle_s=0.05)), gate) as up, up.raw() as client:
        session = await _begin(client)
        seat = up.edge._backends["up"]._sessions[session["mcp-session-id"]]
        await seat.wire._process._child.wait()
        answer = await _legacy(client, session)
    assert answer.status_code == 404


async def test_who_is_called_off_while_it_ends_processes_leaves_none_behind(gate: FakeGate) -> None:
    """The gateway's own look at a server is called off at a stop, maybe while its process is on the way out."""
    async with gateway(_server(), gate) as up, up.raw() as client:
        session = await _begin(client)
        backend = up.edge._backends["up"]
        child = backend._sessions[session["mcp-session-id"]].wire._process._child
        closing = asyncio.create_task(backend.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert child.returncode is not None


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's open files there")
async def test_pipes_that_a_grandchild_keeps_open_are_let_go(up: Gateway) -> None:
    """A program that leaves another behind costs the gateway no descriptors."""
    async with up.raw() as client:
        _told(await _legacy(client, await _begin(client)))
        before = _open_files()
        for _ in range(3):
            session = await _begin(client)
            _told(await _legacy(client, session, leave=True))
            await client.delete("/up", headers=session)
        backend = up.edge._backends["up"]
        while backend._stops:
            await asyncio.wait(backend._stops)
        await asyncio.sleep(0)
        assert _open_files() <= before


async def test_the_modern_era_has_no_sessions(up: Gateway) -> None:
    """GET and DELETE answer 405, notifications are accepted, posted responses are not."""
    headers = {"mcp-protocol-version": "2026-07-28"}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {"_meta": META}}
    async with up.raw() as client:
        stream, goodbye = await client.get("/up", headers=headers), await client.delete("/up", headers=headers)
        noted = await client.post("/up", json=note, headers=headers)
        posted = await client.post("/up", json={"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers)
    assert (stream.status_code, goodbye.status_code, noted.status_code, posted.status_code) == (405, 405, 202, 400)


async def test_arguments_repeated_in_headers_are_compared_with_the_body(up: Gateway) -> None:
    """Before a stdio server the gateway is the HTTP server: what its list wants repeated has to be there, and the same."""
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    body = call(args={"region": "eu"})
    async with up.raw() as client:
        before = await client.post("/up", json=body, headers=routing())
        await client.post("/up", json=listing, headers=routing("tools/list", None))
        missing = await client.post("/up", json=body, headers=routing())
        wrong = await client.post("/up", json=body, headers=routing() | {"mcp-param-region": "us"})
        right = await client.post("/up", json=body, headers=routing() | {"mcp-param-region": "eu"})
    assert before.status_code == 200  # its list is not known yet
    assert [(one.status_code, one.json()["error"]["code"]) for one in (missing, wrong)] == [(400, -32020)] * 2
    assert _told(right)["params"]["arguments"] == {"region": "eu"}
    assert [done.error for _, done in up.gate.completed if done.error] == ["-32020"] * 2


async def test_the_modern_era_has_no_handshake(up: Gateway) -> None:
    """What the revision has taken out does not exist, whether or not the process knows it from the other era."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"_meta": META}}
    async with up.raw() as client:
        answer = await client.post("/up", json=body, headers=routing("initialize", None))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
