"""Credentials never cross: the agent's never reaches a tool, the gateway's own never reaches an agent, and neither is
written down anywhere.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.servers import otlp_sink
from tests.servers.gateway import Running, billing_tool, running
from tests.servers.otlp_sink import Sink

from whygate.testing.billing import BillingServer
from whygate.testing.mcp_server import make
from whygate.testing.serve import served
from whygate.testing.threads import serving

OURS = "the-gateways-own-secret-for-billing"
OURS_MCP = "the-gateways-own-secret-for-mcp"
COOKIE = "session=cookie-of-the-agent"
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call"}
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - {id: all, tools: ["*"], permit: {}, why: This test is not about rules.}
"""


class Crossing(NamedTuple):
    gateway: Running
    billing: BillingServer
    sink: Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    with otlp_sink.running() as started:
        yield started


@pytest.fixture
async def crossing(tmp_path: Path, sink: Sink) -> AsyncIterator[Crossing]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    secret = tmp_path / "mcp.token"
    secret.write_text(OURS_MCP)
    with serving(BillingServer(OURS)) as billing:
        async with served(make().streamable_http_app(json_response=True), lifespan=True) as upstream:
            mcp = {"url": f"{upstream}/mcp", "credential": {"prefix": "Bearer ", "value": f"file:{secret}"}}
            tools = {"billing": billing_tool(billing, tmp_path), "up": {"mcp": mcp}}
            options = {"policies": str(tmp_path / "policies"), "telemetry": {"otlp": sink.url}}
            async with running(tmp_path, tools, **options) as gateway:
                yield Crossing(gateway, billing, sink)


def _message(tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": META}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def _use(crossing: Crossing, token: str) -> tuple[dict[str, str], str]:
    """Call both kinds of tool, and be refused as well: what the MCP tool saw, and all that the agent saw."""
    gateway = crossing.gateway
    sent = {
        "authorization": f"Bearer {token}",
        "cookie": COOKIE,
        "proxy-authorization": "Basic proxy-secret-of-the-agent",
        "x-api-key": "api-key-of-the-agent",
        "accept": "application/json, text/event-stream",
    }
    async with httpx.AsyncClient(headers=sent, timeout=20) as client:
        answers = [
            await client.get(f"{gateway.url}/http/billing/invoices/1042"),
            await client.get(f"{gateway.url}/http/billing/nothing"),
            await client.post(f"{gateway.url}/mcp/up", json=_message("seen"), headers=MODERN | {"mcp-name": "seen"}),
            await client.post(f"{gateway.url}/mcp/up", json=[]),
            await client.get(f"{gateway.url}/http/billing/invoices/1", headers={"authorization": f"Bearer {token}x"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 400, 401]
    seen = json.loads(answers[2].json()["result"]["content"][0]["text"])
    told = "\n".join(f"{answer.headers}\n{answer.text}" for number, answer in enumerate(answers) if number != 2)
    return {name.lower(): value for name, value in seen["headers"].items()}, told


async def test_the_agents_credential_stays_with_us_and_ours_with_the_tools(crossing: Crossing) -> None:
    """No header of the agent that proves something reaches a tool; no answer to the agent holds what we proved."""
    token = crossing.gateway.tokens.make()
    mcp_saw, told = await _use(crossing, token)
    http_saw = crossing.billing.seen[0]["headers"]
    assert http_saw["authorization"] == f"Bearer {OURS}"
    assert mcp_saw["authorization"] == f"Bearer {OURS_MCP}"
    for seen in (str(http_saw), str(mcp_saw)):
        assert token not in seen
        assert "of-the-agent" not in seen
    assert OURS not in told
    assert OURS_MCP not in told


async def test_no_credential_is_written_down(crossing: Crossing, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the ledger or beside it, not in a span, not in the metrics, not in the log; fingerprints only."""
    gateway = crossing.gateway
    token = gateway.tokens.make()
    with caplog.at_level(logging.DEBUG):
        await _use(crossing, token)
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{gateway.operators_url}/metrics")).text
        await gateway.gateway.stop()
    records = gateway.records()
    assert records
    fingerprints = {
        one["subject"]["credential"] for one in records if one["kind"] == "decision" and "credential" in one["subject"]
    }
    assert fingerprints
    assert all(one.startswith("sha256:") and len(one) == 23 for one in fingerprints)
    places = {"metrics": metrics.encode(), "log": caplog.text.encode(), "spans": b"".join(crossing.sink.bodies)}
    places |= {path.name: path.read_bytes() for path in gateway.ledger.parent.glob("whygate.db*") if path.is_file()}
    assert places["spans"]
    signature = token.rpartition(".")[2]
    for place, data in places.items():
        for secret in (token, signature, OURS, OURS_MCP, "of-the-agent"):
            assert secret.encode() not in data, f"{place} holds a credential"


async def test_a_redirect_of_a_tool_is_not_followed_with_our_credential(tmp_path: Path) -> None:
    """A tool that answers with a redirect gets no second request from us: neither to itself nor to anywhere inward."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        port = server.sockets[0].getsockname()[1]
        head = f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/inward\r\nset-cookie: a=b\r\ncontent-length: 0\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    billing = BillingServer(OURS)
    tool = billing_tool(billing, tmp_path)
    billing.server_close()
    tool["http"]["url"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, running(tmp_path, {"billing": tool}) as gateway, httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/http/billing/invoices/1042", headers=gateway.headers())
    assert len(asked) == 1
    assert answer.status_code == 302
    assert "set-cookie" not in answer.headers
