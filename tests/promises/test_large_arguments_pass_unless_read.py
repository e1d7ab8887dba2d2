"""What no rule reads may be as large as a request; what a rule reads is bounded before any rule is asked."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import changing
from tests.servers.gateway import Running, running
from tests.servers.mcp_edge import Canned

from whygate.testing.serve import served

MIB = 1024 * 1024
CAP = 4 * MIB
POLICY = """
policy: files
version: 1
owner: files@example.com
agents: ["role:support-agent"]
rules:
  - id: write
    tools: ["files/write", "plain/write"]
    when: args.path.startsWith("/files/") && has(args.text)
    permit: {}
    why: Whether there is a text is all that this rule asks.
  - id: read
    tools: ["files/checked", "plain/checked"]
    when: args.path.startsWith("/files/") && !args.text.contains("secret")
    permit: {}
    why: This one reads the text.
"""
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}, "text": {}}, "required": ["path"]}
TOOLS = [{"name": name, "inputSchema": SCHEMA} for name in ("write", "checked")]
LARGE: dict[str, Any] = {
    "a text of 1 MiB": "x" * MIB,
    "a text of 1 MiB outside ASCII": "ü" * (MIB // 2),
    "a list of 20,000": list(range(20_000)),
    "an object of 20,000": {str(number): number for number in range(20_000)},
    "one nested 100 deep": json.loads("[" * 100 + "]" * 100),
}


@pytest.fixture(params=["stdio", "http"])
async def mcp(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS), encoding="utf-8")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "files.yaml").write_text(POLICY, encoding="utf-8")
    async with AsyncExitStack() as stack:
        if request.param == "stdio":
            server: dict[str, Any] = {"command": [sys.executable, changing.__file__, str(tools)]}
        else:
            server = {"url": await stack.enter_async_context(served(changing.app(tools)))}
        options = {"policies": str(tmp_path / "policies")}
        yield await stack.enter_async_context(running(tmp_path, {"files": {"mcp": server}}, **options))


class Agent:
    """A legacy client with a session, where its server has sessions."""

    def __init__(self, gateway: Running, client: httpx.AsyncClient) -> None:
        self._url = f"{gateway.url}/mcp/files"
        self._client = client

    async def ask(self, method: str, **params: Any) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self._client.post(self._url, json=body)
        if method == "initialize" and "mcp-session-id" in answer.headers:
            self._client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        return answer

    async def code(self, tool: str, text: Any) -> str:
        answer = await self.ask("tools/call", name=tool, arguments={"path": "/files/a", "text": text})
        code: str = answer.json()["result"]["_meta"]["dev.whygate/decision"]["code"]
        return code


@pytest.fixture
async def agent(mcp: Running) -> AsyncIterator[Agent]:
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    async with httpx.AsyncClient(headers=mcp.headers() | headers, timeout=30) as client:
        made = Agent(mcp, client)
        info = {"name": "t", "version": "1"}
        await made.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        yield made


async def test_over_mcp(agent: Agent) -> None:
    """A megabyte that no rule reads, or of which a rule asks only whether it is there, is written; where a rule reads it,
    the same is ``args.too_large``.
    """
    for what, text in LARGE.items():
        assert (what, await agent.code("write", text)) == (what, "role.permitted")
        assert (what, await agent.code("checked", text)) == (what, "args.too_large")
    assert await agent.code("checked", "short") == "role.permitted"


async def test_over_plain_http_up_to_the_cap(tmp_path: Path) -> None:
    """The same for a JSON body, up to the last byte of the cap and no further; what passes arrives byte for byte."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "files.yaml").write_text(POLICY, encoding="utf-8")
    tool = Canned()
    tool.answer = lambda _: b"{}"
    operations = [
        {"name": name, "method": "POST", "path": f"/{name}", "class": "write"} for name in ("write", "checked")
    ]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(tool))
        tools = {"plain": {"http": {"url": url}, "operations": operations}}
        gateway = await stack.enter_async_context(running(tmp_path, tools, policies=str(tmp_path / "policies")))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{gateway.url}/http/plain", headers=gateway.headers(), timeout=30)
        )

        async def send(path: str, size: int) -> tuple[int, str]:
            body = b'{"path": "/files/a", "text": ""}'
            body = body[:-2] + b"x" * (size - len(body)) + body[-2:]
            json_type = {"content-type": "application/json"}
            answer = await client.post(path, content=body, headers=json_type)
            if answer.status_code == 200:
                assert tool.seen[-1].body == body
            return answer.status_code, answer.headers["whygate-reason"]

        for size in (MIB, CAP):
            assert await send("/write", size) == (200, "role.permitted")
            assert await send("/checked", size) == (413, "args.too_large")
        assert await send("/write", CAP + 1) == (413, "request.too_large")
    assert len(tool.seen) == 2
