"""MCP servers that people use every day work behind the gateway, over stdio and HTTP, and only as far as the policy says."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.servers import npm
from tests.servers.gateway import Running, free_port, running

pytestmark = pytest.mark.slow  # Node takes half a second to start

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: read-files
    tools: ["files/read_*", "files/list_*", files/get_file_info]
    permit: {}
    why: Support agents may look at the case's files.
  - id: remember
    tools: [memory/create_entities, memory/read_graph]
    permit: {}
    why: Notes may be made and read, not unmade.
  - id: everything-harmless
    tools: ["*/echo", "*/get-tiny-image", "*/trigger-long-running-operation"]
    permit: {}
    why: Harmless.
  - id: small-sums
    tools: ["*/get-sum"]
    when: args.a < 100
    permit: {}
    why: Small sums are routine.
"""


def _command(name: str, *arguments: str) -> list[str]:
    found = npm.command(f"@modelcontextprotocol/server-{name}", *arguments)
    assert found is not None
    return found


@pytest.fixture
async def over_http(npm_packages: Path) -> AsyncIterator[str]:
    """The reference server with everything in it, on a port of its own."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *_command("everything", "streamableHttp"), env={**os.environ, "PORT": str(port)}, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while b"listening" not in (line := await process.stderr.readline()):
            assert line, "the server ended before it listened"
        draining = asyncio.ensure_future(process.stderr.read())
        yield f"http://127.0.0.1:{port}/mcp"
        process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def gateway(npm_packages: Path, over_http: str, tmp_path: Path) -> AsyncIterator[Running]:
    policies, files = tmp_path / "policies", tmp_path / "files"
    policies.mkdir()
    files.mkdir()
    (policies / "support.yaml").write_text(RULES)
    (files / "case.txt").write_text("The case of the grüne Kanne.")
    memory = tmp_path / "memory.place"
    memory.write_text(str(tmp_path / "memory.jsonl"))
    tools = {
        "files": {"mcp": {"command": _command("filesystem", str(files))}},
        "memory": {"mcp": {"command": _command("memory"), "env": {"MEMORY_FILE_PATH": f"file:{memory}"}}},
        "everything": {"mcp": {"command": _command("everything", "stdio")}},
        "remote": {"mcp": {"url": over_http}},
    }
    async with running(tmp_path, tools, policies=str(policies)) as made:
        yield made


@asynccontextmanager
async def client(gateway: Running, server: str, mode: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=gateway.headers(), timeout=20) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp/{server}", http_client=http), mode=mode) as made,
    ):
        yield made


def _text(result: Any) -> str:
    return " ".join(each.text for each in result.content if each.type == "text")


def _code(result: Any) -> str:
    code: str = result.meta["dev.whygate/decision"]["code"]
    return code


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_files(gateway: Running, tmp_path: Path, mode: str) -> None:
    """Files are read; writing and moving is not even shown, and refused where it is tried all the same."""
    files = tmp_path / "files"
    async with client(gateway, "files", mode) as agent:
        names = {tool.name for tool in (await agent.list_tools()).tools}
        read = await agent.call_tool("read_text_file", {"path": str(files / "case.txt")})
        outside = await agent.call_tool("read_text_file", {"path": str(tmp_path / "whygate.db")})
        written = await agent.call_tool("write_file", {"path": str(files / "new.txt"), "content": "x"})
        moved = await agent.call_tool(
            "move_file", {"source": str(files / "case.txt"), "destination": str(files / "gone.txt")}
        )
    assert "read_text_file" in names
    assert names.isdisjoint({"write_file", "edit_file", "move_file", "create_directory"})
    assert "grüne Kanne" in _text(read)
    assert outside.is_error  # permitted here, refused by the server itself: its word reaches the agent
    assert _code(outside) == "role.permitted"
    assert [(one.is_error, _code(one)) for one in (written, moved)] == [(True, "policy.no_match")] * 2
    assert [path.name for path in files.iterdir()] == ["case.txt"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_memory(gateway: Running, mode: str) -> None:
    """A server that keeps state keeps it from call to call; what may not be unmade stays."""
    entity = {"name": "Kanne", "entityType": "thing", "observations": ["green"]}
    async with client(gateway, "memory", mode) as agent:
        names = [tool.name for tool in (await agent.list_tools()).tools]
        made = await agent.call_tool("create_entities", {"entities": [entity]})
        unmade = await agent.call_tool("delete_entities", {"entityNames": ["Kanne"]})
        graph = await agent.call_tool("read_graph", {})
    assert sorted(names) == ["create_entities", "read_graph"]
    assert not made.is_error
    assert (unmade.is_error, _code(unmade)) == (True, "policy.no_match")
    assert graph.structured_content["entities"] == [entity]


@pytest.mark.parametrize("server", ["everything", "remote"])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_everything(gateway: Running, server: str, mode: str) -> None:
    """The protocol's own reference server, over stdio and HTTP alike: lists, calls, pictures, progress, and a refusal."""
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    async with client(gateway, server, mode) as agent:
        names = {tool.name for tool in (await agent.list_tools()).tools}
        echoed = await agent.call_tool("echo", {"message": "grüß dich"})
        small = await agent.call_tool("get-sum", {"a": 1, "b": 2})
        large = await agent.call_tool("get-sum", {"a": 1000, "b": 2})
        picture = await agent.call_tool("get-tiny-image", {})
        long = await agent.call_tool(
            "trigger-long-running-operation", {"duration": 0.3, "steps": 3}, progress_callback=progress
        )
        environment = await agent.call_tool("get-env", {})
        resources = await agent.list_resources()
        prompts = await agent.list_prompts()
    assert names == {"echo", "get-sum", "get-tiny-image", "trigger-long-running-operation"}
    assert "grüß dich" in _text(echoed)
    assert "3" in _text(small)
    assert "image" in {each.type for each in picture.content}
    assert not long.is_error
    assert heard == [1, 2, 3]
    assert [(one.is_error, _code(one)) for one in (large, environment)] == [(True, "policy.no_match")] * 2
    assert resources.resources
    assert prompts.prompts
    recorded = [one["reason"]["code"] for one in gateway.decisions() if one["action"]["name"] == "tools/call"]
    assert sorted(recorded) == ["policy.no_match"] * 2 + ["role.permitted"] * 4
