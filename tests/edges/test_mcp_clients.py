"""Real MCP clients of both eras through the edge, in front of real servers over HTTP and stdio."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import MCPError
from tests.servers.mcp_edge import fixture_upstream, gateway

from whygate.core.reasons import Code
from whygate.mcp.backend import Server
from whygate.testing.gate import FakeGate

DECISION = "dev.whygate/decision"
MODES = ["auto", "legacy", "2026-07-28"]
UPSTREAMS = ["json", "events", "stdio"]


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.mark.parametrize("kind", UPSTREAMS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_client_works_through_the_gateway_as_without_it(mode: str, kind: str, gate: FakeGate) -> None:
    """List, call, progress and tool errors, whatever era and transport; each call decided and completed once."""
    steps: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async with fixture_upstream(kind) as server, gateway(server, gate) as made, made.client(mode) as client:
        tools = await client.list_tools()
        echoed = await client.call_tool("echo", {"text": "hällo \U0001f600"})
        added = await client.call_tool("add", {"a": 2, "b": 3})
        slow = await client.call_tool("slow", {"steps": 3}, progress_callback=progress)
        failed = await client.call_tool("fail", {"text": "no"})
    assert [tool.name for tool in tools.tools] == ["echo", "add", "slow", "fail", "seen"]
    assert echoed.content[0].text == "hällo \U0001f600"
    assert (added.content[0].text, slow.content[0].text) == ("5", "3 steps")
    assert failed.is_error
    if kind != "json":  # a server that answers JSON has no way to report progress
        assert steps == [1, 2, 3]
    assert echoed.meta[DECISION]["outcome"] == "permitted"
    calls = [done for admission, done in gate.completed if admission.call.method == "tools/call"]
    assert [done.error for done in calls] == ["", "", "", "tool_error"]
    assert len(gate.completed) == len(gate.admitted)


@pytest.mark.parametrize("kind", UPSTREAMS)
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_refused_call_is_a_result_that_the_model_can_read(mode: str, kind: str, gate: FakeGate) -> None:
    """Not a protocol error: what was refused, what to do next, and the decision's id stand in the text."""
    gate.refuse["up/add"] = Code.POLICY_NO_MATCH
    async with fixture_upstream(kind) as server, gateway(server, gate) as made, made.client(mode) as client:
        answer = await client.call_tool("add", {"a": 2, "b": 3})
    assert answer.is_error
    decision = answer.meta[DECISION]
    assert (decision["code"], decision["outcome"], decision["next"]) == ("policy.no_match", "blocked", "none")
    text = answer.content[0].text
    assert decision["note"] in text
    assert "policy.no_match" in text
    assert decision["id"] in text


@pytest.mark.parametrize("kind", UPSTREAMS)
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_hidden_tools_are_neither_listed_nor_told_from_unknown_ones(mode: str, kind: str) -> None:
    """The list leaves them out, a call answers as for a tool that is not, and the record counts what was hidden."""
    gate = FakeGate(hidden={"up/add", "up/fail"})
    async with fixture_upstream(kind) as server, gateway(server, gate) as made, made.client(mode) as client:
        tools = await client.list_tools()
        hidden = await client.call_tool("add", {"a": 2, "b": 3})
        unknown = await client.call_tool("nosuch", {"a": 2, "b": 3})
    assert [tool.name for tool in tools.tools] == ["echo", "slow", "seen"]
    assert made.catalogue.learnt[:5] == ["up/echo", "up/add", "up/slow", "up/fail", "up/seen"]
    lists = [done for admission, done in gate.completed if admission.call.method == "tools/list"]
    assert {done.hidden for done in lists} == {2}
    told = [(answer.content[0].text, dict(answer.meta[DECISION])) for answer in (hidden, unknown)]
    ids = [decision.pop("id") for _, decision in told]
    assert told[0][1] == told[1][1]
    assert told[0][0].replace(ids[0], "") == told[1][0].replace(ids[1], "")


@pytest.mark.parametrize("kind", UPSTREAMS)
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_upstream_sees_our_trace_and_none_of_whygates_keys(mode: str, kind: str, gate: FakeGate) -> None:
    """Trace context names our span, baggage and tracestate end here, and so do the correlation hints, which are read."""
    meta = {
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "tracestate": "x=y",
        "baggage": "user=secret",
        "dev.whygate/task": "t-1",
        "com.example/mine": {"kept": 1.50},
    }
    async with fixture_upstream(kind) as server, gateway(server, gate) as made, made.client(mode) as client:
        answer = await client.call_tool("seen", {}, meta=meta)
    seen = json.loads(answer.content[0].text)
    [admission] = [one for one in gate.admitted if one.call.method == "tools/call"]
    assert seen["meta"]["traceparent"] == admission.traceparent
    assert not {"tracestate", "baggage", "dev.whygate/task"} & seen["meta"].keys()
    assert seen["meta"]["com.example/mine"] == {"kept": 1.5}
    assert admission.call.hints.task == "t-1"
    if kind != "stdio":
        assert seen["headers"]["traceparent"] == admission.traceparent
        assert seen["headers"]["authorization"] == "Bearer ours"
    if mode == "legacy":
        assert admission.call.hints.session


async def test_calls_of_one_agent_share_a_modern_process_and_are_told_apart(gate: FakeGate) -> None:
    """Two clients of one agent use the same JSON-RPC ids and progress tokens at once; each gets its own answers."""
    async with fixture_upstream("stdio") as server, gateway(server, gate) as made:
        async with made.client("2026-07-28") as one, made.client("2026-07-28") as two:
            for number in range(20):
                first, second = f"one {number}", f"two {number}"
                answers = await asyncio.gather(
                    one.call_tool("echo", {"text": first}), two.call_tool("echo", {"text": second})
                )
                assert [answer.content[0].text for answer in answers] == [first, second]
        assert len(made.edge._backends["up"]._shared) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_the_time_server_works_through_the_gateway(mode: str, gate: FakeGate) -> None:
    """A server that nobody here wrote, over stdio."""
    server = Server(name="up", command=(sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"))
    async with gateway(server, gate) as made, made.client(mode) as client:
        tools = await client.list_tools()
        answer = await client.call_tool("get_current_time", {"timezone": "Europe/Berlin"})
    assert [tool.name for tool in tools.tools] == ["get_current_time", "convert_time"]
    assert not answer.is_error
    assert "Europe/Berlin" in answer.content[0].text


def _git(where: Path, *words: str) -> int:
    return subprocess.run(["git", "-C", str(where), *words], check=False, capture_output=True).returncode


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_git_server_works_through_the_gateway(mode: str, gate: FakeGate, tmp_path: Path) -> None:
    """Reading is permitted, committing is refused, and nothing was committed."""
    _git(tmp_path, "init", "-q")
    gate.refuse["up/git_commit"] = Code.POLICY_NO_MATCH
    server = Server(name="up", command=(sys.executable, "-m", "mcp_server_git", "--repository", str(tmp_path)))
    async with gateway(server, gate) as made, made.client(mode) as client:
        status = await client.call_tool("git_status", {"repo_path": str(tmp_path)})
        commit = await client.call_tool("git_commit", {"repo_path": str(tmp_path), "message": "x"})
    assert not status.is_error
    assert commit.is_error
    assert _git(tmp_path, "log") != 0  # no commits yet


async def test_a_refused_list_is_a_protocol_error_with_the_same_data(gate: FakeGate) -> None:
    """Code 1403, outside of what JSON-RPC and MCP reserve."""
    async with fixture_upstream("json") as server, gateway(server, gate) as made, made.client("legacy") as client:
        gate.always = Code.POLICY_INVALID
        with pytest.raises(MCPError) as caught:
            await client.list_tools()
    assert caught.value.error.code == 1403
    assert caught.value.error.data["code"] == "policy.invalid"
