"""A call is gone when it is over: what refers to itself waits for the collector, and all calls wait while that works."""

import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import changing
from tests.servers.gateway import Running, billing_tool, running

from whygate.testing.billing import BillingServer
from whygate.testing.serve import served

POLICY = """
policy: echo
version: 1
owner: echo@example.com
agents: ["role:support-agent"]
rules:
  - {id: say, tools: ["echo/say", "billing/invoice_get"], when: "true", permit: {}, why: Harmless.}
"""
TOOLS = [{"name": "say", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}]
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def _call(name: str, meta: dict[str, Any] | None = None, **args: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": args} | ({"_meta": meta} if meta else {})
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def _routing(name: str) -> dict[str, str]:
    return {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": name}


LEGACY = {"mcp-protocol-version": "2025-11-25"}
CALLS: dict[str, tuple[str, str, dict[str, str], Any, int]] = {
    "permitted": ("POST", "/mcp/echo", LEGACY, _call("say", text="x"), 200),
    "modern": ("POST", "/mcp/echo", _routing("say"), _call("say", MODERN, text="x"), 200),
    "arguments refused": ("POST", "/mcp/echo", LEGACY, _call("say", text=1), 200),
    "unknown tool": ("POST", "/mcp/echo", LEGACY, _call("sing"), 200),
    "malformed": ("POST", "/mcp/echo", LEGACY, {"jsonrpc": "1.0"}, 400),
    "merged": ("POST", "/mcp", _routing("echo__say"), _call("echo__say", MODERN, text="x"), 200),
    "plain": ("GET", "/http/billing/invoices/1042", {}, None, 200),
    "plain refused": ("GET", "/http/billing/customers/export", {}, None, 403),
    "nowhere": ("GET", "/elsewhere", {}, None, 404),
}


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "echo.yaml").write_text(POLICY, encoding="utf-8")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(changing.app(tmp_path / "tools.json")))
        tools = {"echo": {"mcp": {"url": url}}, "billing": billing_tool(billing, tmp_path)}
        yield await stack.enter_async_context(running(tmp_path, tools, policies=str(tmp_path / "policies")))


def _ours(found: list[object]) -> Counter[str]:
    """By name, what of them is the gateway's. Not what only tests run, which stands in the same process."""
    modules = ((type(each).__module__, type(each).__qualname__) for each in found)
    return Counter(name for module, name in modules if module.startswith("whygate.") and ".testing" not in module)


@pytest.mark.parametrize("what", CALLS)
async def test_nothing_of_a_call_is_left_to_the_collector(gateway: Running, what: str) -> None:
    """However it ended: permitted, refused by a rule or before all rules, at each of the addresses."""
    method, path, headers, body, status = CALLS[what]
    headers = gateway.headers() | {"accept": "application/json, text/event-stream"} | headers
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        for _ in range(2):  # what is made once, and kept
            await client.request(method, path, json=body)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            answers = [await client.request(method, path, json=body) for _ in range(10)]
            gc.collect()
            left = _ours(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert {answer.status_code for answer in answers} == {status}
    assert left == Counter()
