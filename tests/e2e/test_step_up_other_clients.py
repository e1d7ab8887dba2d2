"""The ladder with clients that are not ours and not today's: the last 1.x Python SDK, and the TypeScript SDK."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers import npm
from tests.servers.gateway import Running, running
from tests.stepping_up import codes, somebody

CLIENTS = Path(__file__).parents[1] / "clients"
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: add
    tools: [tools/add]
    permit: {require: {human: {approvers: ["group:leads"], within: 5m}}}
    why: Sums need a lead.
"""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    command = [sys.executable, "-m", "whygate.testing.mcp_server"]
    tools = {"tools": {"mcp": {"command": command}}}
    async with running(tmp_path, tools, policies=str(tmp_path / "policies")) as made:
        yield made


async def run(gateway: Running, command: list[str], action: str, path: str = "/mcp/tools") -> list[dict[str, Any]]:
    """What the client was asked and got, as it printed it."""
    tool = "add" if path.endswith("tools") else "tools__add"
    process = await asyncio.create_subprocess_exec(
        *command,
        gateway.url + path,
        gateway.tokens.make("agent:support"),
        tool,
        json.dumps({"a": 1, "b": 2}),
        action,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()]


def mcp1(mcp1_python: Path) -> list[str]:
    return [str(mcp1_python), str(CLIENTS / "mcp1_step_up.py")]


def typescript(npm_packages: Path) -> list[str]:
    node = npm.node()
    assert node is not None
    return [str(node), str(CLIENTS / "step_up.mjs"), str(npm_packages / "node_modules/@modelcontextprotocol/sdk")]


@pytest.fixture(params=[pytest.param("mcp1", marks=pytest.mark.mcp1), "typescript"])
def command(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "mcp1":
        return mcp1(request.getfixturevalue("mcp1_python"))
    return typescript(request.getfixturevalue("npm_packages"))


@pytest.mark.parametrize("path", ["/mcp/tools", "/mcp"])
async def test_it_is_sent_to_the_page_and_gets_its_answer(gateway: Running, command: list[str], path: str) -> None:
    """A question on the call's own stream, then, once somebody agrees, the result."""
    async with somebody(gateway):
        asked, result = await run(gateway, command, "accept", path)
    assert asked["asked"] == "url"
    assert "/console/approvals/" in asked["url"]
    assert (result["error"], result["text"]) == (False, "3")
    assert result["meta"]["dev.whygate/decision"]["code"] == "step_up.satisfied"


async def test_it_declines_and_that_is_no_answer(gateway: Running, command: list[str]) -> None:
    """It ends the wait, and nothing passes."""
    _, result = await run(gateway, command, "decline")
    assert result["error"] is True
    assert "step_up.denied" in result["text"]


async def test_it_can_not_be_asked_and_is_held(gateway: Running, command: list[str]) -> None:
    """Until somebody agrees."""
    async with somebody(gateway):
        (result,) = await run(gateway, command, "none")
    assert (result["error"], result["text"]) == (False, "3")
    assert codes(gateway) == ["step_up.required", "step_up.satisfied"]
