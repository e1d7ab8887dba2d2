"""A tool that reads whatever address it is given, reached only as far as the policy says."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.servers.gateway import running

from whygate.testing.threads import serving

RULES = """
policy: reading
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: our-pages
    tools: [web/fetch]
    when: args.url.startsWith("PAGES/")
    permit: {}
    why: Agents may read our own pages.
"""


class _Pages(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.path == "/case.html"
        self.send_response(200 if found else 404)
        self.send_header("content-type", "text/html")
        self.end_headers()
        if found:
            self.wfile.write(
                b"<html><body><article><h1>The case</h1><p>The green can is lost.</p></article></body></html>"
            )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
        """Says nothing."""


@pytest.fixture
def pages() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), type("Pages", (_Pages,), {"asked": asked}))) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_only_permitted_addresses_are_fetched(pages: tuple[str, list[str]], tmp_path: Path, mode: str) -> None:
    """The page is read and its text comes back; another address is refused, and nobody asks there."""
    url, asked = pages
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "reading.yaml").write_text(RULES.replace("PAGES", url))
    tools = {"web": {"mcp": {"command": [sys.executable, "-m", "mcp_server_fetch", "--allow-private-ips"]}}}
    async with running(tmp_path, tools, policies=str(policies)) as gateway:
        async with (
            httpx2.AsyncClient(headers=gateway.headers(), timeout=20) as http,
            Client(streamable_http_client(f"{gateway.url}/mcp/web", http_client=http), mode=mode) as agent,
        ):
            names = [tool.name for tool in (await agent.list_tools()).tools]
            page = await agent.call_tool("fetch", {"url": f"{url}/case.html"})
            looked = list(asked)
            other = await agent.call_tool("fetch", {"url": "http://127.0.0.1:9/case.html"})
            near = await agent.call_tool("fetch", {"url": f"{url.replace('127.0.0.1', 'localhost')}/case.html"})
        codes = [one["reason"]["code"] for one in gateway.decisions() if one["action"]["name"] == "tools/call"]
    assert names == ["fetch"]
    assert not page.is_error
    assert any("green can" in each.text for each in page.content if each.type == "text")
    assert "/case.html" in looked
    assert (other.is_error, near.is_error) == (True, True)
    assert asked == looked
    assert codes == ["role.permitted", "policy.no_match", "policy.no_match"]
