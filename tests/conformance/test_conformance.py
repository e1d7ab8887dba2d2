"""MCP through the gateway is MCP: the protocol's own conformance suite can't tell the gateway from the server behind it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.badge import badge
from tests.conformance.fixture import make
from tests.conformance.suite import LEGS, Leg, run
from tests.servers.gateway import Running, free_port, running

from whygate.testing.serve import served

RULES = """
policy: everything
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: everything
    tools: ["*"]
    permit: {}
    why: The suite may call whatever it likes.
"""
ROOT = Path(__file__).parents[2]
COUNTS = {
    "0.1.16": {"SUCCESS": 44, "WARNING": 2, "INFO": 6},
    "0.2.0-alpha.12, 2025-11-25": {"SUCCESS": 84, "INFO": 8},
    "0.2.0-alpha.12, 2026-07-28": {"SUCCESS": 152, "INFO": 1},
}
"""What the suite finds without the gateway. That nothing is left out or fails there is part of the promise: two empty tables are
alike as well. The two warnings are the suite's own: 0.1.16 looks for priming events as a client too old to get any.
"""
NOT_OVER_STDIO = {
    "server-sse-polling": "what comes over stdio carries no event ids, so there is no stream to take up again",
    "server-sse-multiple-streams": "an answer that nothing came before is sent in one piece, not as a stream",
}
"""Scenarios that find less to look at where the server speaks stdio, and why. None of them fails."""


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with served(make(), lifespan=True) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def behind(tmp_path: Path, upstream: dict[str, Any]) -> AsyncIterator[tuple[str, Running]]:
    """A gateway before a server, with a credential put in for the suite, which can't send one."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "everything.yaml").write_text(RULES)
    port = free_port()
    async with (
        running(
            tmp_path,
            {"conformance": {"mcp": upstream}},
            policies=str(folder),
            public_url=f"http://127.0.0.1:{port}",
        ) as gateway,
        badge(port, to_port=int(gateway.url.rpartition(":")[2]), credential=gateway.tokens.make()),
    ):
        yield f"http://127.0.0.1:{port}/mcp/conformance", gateway


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
async def test_the_suite_sees_no_difference(npm_packages: Path, server: str, tmp_path: Path, leg: Leg) -> None:
    """Scenario by scenario and check by check, the suite's verdict is the same with the gateway in between."""
    direct = await run(leg, server, tmp_path / "direct")
    assert dict(direct.count()) == COUNTS[leg.name]
    async with behind(tmp_path, {"url": server}) as (url, gateway):
        proxied = await run(leg, url, tmp_path / "through")
        assert len([one for one in gateway.decisions() if one["action"]["name"] == "tools/call"]) > 10
    assert direct.differing(proxied) == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
async def test_a_server_over_stdio_looks_like_one_over_http(
    npm_packages: Path, server: str, tmp_path: Path, leg: Leg
) -> None:
    """Run as a process by the gateway, the same server gets the verdict that it gets over HTTP, but for what stdio lacks."""
    direct = await run(leg, server, tmp_path / "direct")
    command = [sys.executable, "-m", "tests.conformance.fixture"]
    async with behind(tmp_path, {"command": command, "cwd": str(ROOT)}) as (url, _):
        proxied = await run(leg, url, tmp_path / "through")
    assert {name: found for name, found in direct.differing(proxied).items() if name not in NOT_OVER_STDIO} == {}
    assert proxied.count().keys() <= {"SUCCESS", "INFO"}
