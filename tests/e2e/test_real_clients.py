"""Real MCP clients, today's and yesterday's, work through the gateway with nothing changed but the URL."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.servers.gateway import Running, running

from whygate.testing.mcp_server import make
from whygate.testing.serve import served

AGENT = Path(__file__).parents[1] / "clients" / "mcp1_agent.py"
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: plain
    tools: [stdio/echo, stdio/slow, json/echo, json/slow, events/echo, events/slow]
    permit: {}
    why: Harmless.
  - id: small-sums
    tools: ["*/add"]
    when: args.a < 100
    permit: {}
    why: Small sums are routine.
"""
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"text": "grüß dich"}),
    ("slow", {"steps": 3}),
    ("add", {"a": 1, "b": 2}),
    ("add", {"a": 1000, "b": 2}),
    ("fail", {}),
]
REFUSED = [False, False, False, True, True]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    """One fixture server, three ways to reach it."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    async with (
        served(make().streamable_http_app(json_response=True), lifespan=True) as plain,
        served(make().streamable_http_app(json_response=False), lifespan=True) as events,
        running(
            tmp_path,
            {
                "stdio": {"mcp": {"command": [sys.executable, "-m", "whygate.testing.mcp_server"]}},
                "json": {"mcp": {"url": f"{plain}/mcp"}},
                "events": {"mcp": {"url": f"{events}/mcp"}},
            },
            policies=str(tmp_path / "policies"),
        ) as made,
    ):
        yield made


@pytest.mark.parametrize("server", ["stdio", "json", "events"])
@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
async def test_the_current_sdk(gateway: Running, server: str, mode: str) -> None:
    """In every era it speaks, over both kinds of upstream: lists filtered, calls decided, progress heard."""
    async with (
        httpx2.AsyncClient(headers=gateway.headers(), timeout=20) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp/{server}", http_client=http), mode=mode) as client,
    ):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert sorted(tools) == ["add", "echo", "slow"]
        heard: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            heard.append(done)

        results = [await client.call_tool(name, arguments, progress_callback=progress) for name, arguments in CALLS]
    assert [bool(result.is_error) for result in results] == REFUSED
    assert "grüß dich" in results[0].content[0].text
    assert bool(heard) == (server != "json")  # an upstream that answers in one piece has no way to tell progress
    for result in results:
        told = result.meta["dev.whygate/decision"]
        assert told["id"]
    codes = [result.meta["dev.whygate/decision"]["code"] for result in results]
    assert codes == ["role.permitted", "role.permitted", "role.permitted", "policy.no_match", "policy.no_match"]
    recorded = [one for one in gateway.decisions() if one["action"]["name"] == "tools/call"]
    assert [one["reason"]["code"] for one in recorded] == codes
    assert {one["context"]["revision"] for one in recorded} == {"2025-11-25" if mode == "legacy" else "2026-07-28"}


@pytest.mark.mcp1
@pytest.mark.parametrize("server", ["stdio", "json", "events"])
async def test_the_last_sdk_of_the_1x_line(gateway: Running, mcp1_python: Path, server: str) -> None:
    """An older client in a process of its own, with sessions and the handshake, sees the same."""
    process = await asyncio.create_subprocess_exec(
        str(mcp1_python),
        str(AGENT),
        f"{gateway.url}/mcp/{server}",
        gateway.tokens.make("agent:support"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps(CALLS).encode())
    assert process.returncode == 0, errors.decode()
    hello, listed, *calls, ping = [json.loads(line) for line in output.splitlines()]
    assert hello["revision"] == "2025-11-25"
    assert listed["tools"] == ["add", "echo", "slow"]
    assert [call["error"] for call in calls] == REFUSED
    assert "grüß dich" in calls[0]["text"]
    assert bool(calls[1]["progress"]) == (server != "json")
    assert calls[3]["meta"]["dev.whygate/decision"]["code"] == "policy.no_match"
    assert ping == {"ping": True}
