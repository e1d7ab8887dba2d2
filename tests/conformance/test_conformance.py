"""MCP through the gateway is MCP: the protocol's own conformance suite can't tell the gateway from the server behind it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tests.conformance.between import behind
from tests.conformance.fixture import make
from tests.conformance.renamed import renamed
from tests.conformance.suite import CLIENT_SCENARIOS, LEGS, ROOT, Leg, run, run_client

from whygate.testing.serve import served

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
"""Scenarios that find less to look at where the server speaks stdio, and why. None of them fails. The same on the merged address."""

REFUSED: Final = {"sep-2243-client-omit-null"}
"""Calls that do not fit what the suite's own server declares: ``null`` for a boolean. They are refused by the pinned schema."""

NOT_MERGED = {
    "resources-": "the merged address has tools only",
    "prompts-": "the same",
    "completion-": "the same",
    "logging-set-level": "the same",
    "tools-call-with-logging": "the suite sets the level first",
    "caching": "looks at the lists of prompts and resources as well",
    "sep-2164-resource-not-found": "about resources",
    "input-required-result-non-tool-request": "about prompts",
    "server-stateless": "looks at subscriptions to prompts and resources as well",
    "dns-rebinding-protection": "needs its own Host, which the renaming in between replaces",
}
"""Scenarios that have no place on the address of all servers, by the beginning of their names, and why."""


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with served(make(), lifespan=True) as url:
        yield f"{url}/mcp"


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


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
async def test_the_merged_address_serves_tools_alike(npm_packages: Path, server: str, tmp_path: Path, leg: Leg) -> None:
    """Where the gateway is itself the server, whatever is about tools gets the verdict that the server gets."""
    direct = await run(leg, server, tmp_path / "direct")
    async with behind(tmp_path, {"url": server}) as (_, gateway), renamed(gateway, "conformance") as url:
        merged = await run(leg, url, tmp_path / "merged")
    differing = direct.differing(merged)
    assert {name for name in differing if not name.startswith(tuple(NOT_MERGED))} <= NOT_OVER_STDIO.keys()
    for name in NOT_OVER_STDIO.keys() & merged.scenarios.keys():
        assert {status for _, _, status in merged.scenarios[name]} <= {"SUCCESS", "INFO"}
    assert len(merged.scenarios.keys() - differing.keys()) >= 15


@pytest.mark.slow
@pytest.mark.parametrize(("revision", "scenario"), CLIENT_SCENARIOS)
async def test_the_servers_side_sees_the_same_client(
    npm_packages: Path, tmp_path: Path, revision: str, scenario: str
) -> None:
    """What the suite sees of a client when it plays the server is the same whether or not a gateway stands between."""
    client = f"{sys.executable} -m tests.conformance.client"
    direct, through = await asyncio.gather(
        run_client(scenario, revision, client, tmp_path / "direct"),
        run_client(scenario, revision, f"{client} --through", tmp_path / "through"),
    )
    assert direct.count()["SUCCESS"]
    assert direct.count().keys() <= {"SUCCESS", "INFO", "SKIPPED"}
    found = [line for lines in direct.differing(through).values() for line in lines]
    assert [line for line in found if not any(check in line for check in REFUSED)] == []
