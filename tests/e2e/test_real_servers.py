"""MCP servers that people use every day work behind the gateway, over stdio and HTTP, and only as far as the policy says."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
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
  - id: everything-to-read
    tools: ["resource:*/demo://resource/static/document/f*", "resource:*/demo://resource/dynamic/text/*", "prompt:*/args-prompt"]
    when: '!has(args.city) || args.city != "Atlantis"'
    permit: {}
    why: Some of what there is to read.
  - id: everything-asked
    tools: ["*/trigger-elicitation-request", "*/trigger-sampling-request", "*/trigger-url-elicitation", "*/simulate-research-query"]
    permit: {}
    why: Tools that ask, and one that takes its time.
  - id: may-ask
    tools: ["question:*/elicitation"]
    permit: {}
    why: Forms are fine; models and pages are not.
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


async def _refused(asked: Awaitable[Any]) -> str:
    """The reason of a refusal that is no tool's result."""
    with pytest.raises(MCPError) as caught:
        await asked
    code: str = caught.value.error.data["code"]
    return code


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
        templates = await agent.list_resource_templates()
        prompts = await agent.list_prompts()
        document = await agent.read_resource("demo://resource/static/document/features.md")
        made = await agent.read_resource("demo://resource/dynamic/text/7")
        prompt = await agent.get_prompt("args-prompt", {"city": "Rome"})
        codes = [await _refused(refused) for refused in (
            agent.read_resource("demo://resource/static/document/startup.md"),
            agent.read_resource("demo://resource/static/document/f/../startup.md"),
            agent.get_prompt("simple-prompt"),
            agent.get_prompt("args-prompt", {"city": "Atlantis"}),
        )]  # fmt: skip
    assert codes == ["policy.no_match", "request.path_ambiguous", "policy.no_match", "policy.no_match"]
    assert {"echo", "get-sum", "get-tiny-image", "trigger-long-running-operation"} <= names
    assert "get-env" not in names
    assert "grüß dich" in _text(echoed)
    assert "3" in _text(small)
    assert "image" in {each.type for each in picture.content}
    assert not long.is_error
    assert heard == [1, 2, 3]
    assert [(one.is_error, _code(one)) for one in (large, environment)] == [(True, "policy.no_match")] * 2
    assert [each.uri for each in resources.resources] == ["demo://resource/static/document/features.md"]
    assert [each.uri_template for each in templates.resource_templates] == ["demo://resource/dynamic/text/{resourceId}"]
    assert [each.name for each in prompts.prompts] == ["args-prompt"]
    assert document.contents[0].text
    assert made.contents[0].text
    assert "Rome" in str(prompt.messages)
    recorded = [one["reason"]["code"] for one in gateway.decisions() if one["action"]["name"] == "tools/call"]
    assert sorted(recorded) == ["policy.no_match"] * 2 + ["role.permitted"] * 4


async def _form(_: Any, __: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def _words(_: Any, __: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="hello"), model="m")


@pytest.mark.parametrize("server", ["everything", "remote"])
async def test_what_a_real_server_asks_is_decided(gateway: Running, server: str) -> None:
    """A form that a rule permits reaches the user and its answer the server; what none permits never arrives."""
    asked: list[str] = []

    async def form(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append("form" if isinstance(params, types.ElicitRequestFormParams) else "page")
        return await _form(context, params)

    async def words(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked.append("model")
        return await _words(context, params)

    async with (
        httpx2.AsyncClient(headers=gateway.headers(), timeout=20) as http,
        Client(
            streamable_http_client(f"{gateway.url}/mcp/{server}", http_client=http),
            mode="legacy",
            elicitation_callback=form,
            sampling_callback=words,
        ) as agent,
    ):
        given = await agent.call_tool("trigger-elicitation-request", {})
        sampled = await agent.call_tool("trigger-sampling-request", {"prompt": "x", "maxTokens": 5})
        with contextlib.suppress(MCPError):
            await agent.call_tool("trigger-url-elicitation", {"url": "https://evil.example/x"})
    assert asked == ["form"]
    assert "Ada" in _text(given)
    assert sampled.is_error
    decided = [(one["action"]["name"], one["reason"]["code"]) for one in gateway.decisions()]
    assert ("elicitation/create", "role.permitted") in decided
    assert ("sampling/createMessage", "policy.no_match") in decided
    assert ("response", "policy.public_tool") in decided


async def test_a_real_servers_task_is_its_callers(gateway: Running) -> None:
    """2025-11-25's tasks: followed to the tool's result by whoever made the call; to another agent there is no such task."""
    base = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

    async def rpc(client: httpx2.AsyncClient, method: str, **params: Any) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await client.post(f"{gateway.url}/mcp/everything", json=body)

    async with (
        httpx2.AsyncClient(headers=gateway.headers() | base, timeout=30) as one,
        httpx2.AsyncClient(headers=gateway.headers("agent:researcher") | base, timeout=30) as two,
    ):
        for client in (one, two):
            hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            begun = await rpc(client, "initialize", **hello)
            client.headers["mcp-session-id"] = begun.headers["mcp-session-id"]
            ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            assert (await client.post(f"{gateway.url}/mcp/everything", json=ready)).status_code == 202
        arguments = {"topic": "kettles"}
        born = _data(
            await rpc(one, "tools/call", name="simulate-research-query", arguments=arguments, task={"ttl": 60000})
        )
        task = born["result"]["task"]["taskId"]
        got = _data(await rpc(one, "tasks/get", taskId=task))
        stolen = _data(await rpc(two, "tasks/get", taskId=task))
        listed = _data(await rpc(one, "tasks/list"))
        result = _data(await rpc(one, "tasks/result", taskId=task))
    assert got["result"]["taskId"] == task
    assert stolen["error"]["data"]["code"] == "handle.not_usable"
    assert [each["taskId"] for each in listed["result"]["tasks"]] == [task]
    assert result["result"]["content"]
    assert result["result"]["_meta"]["dev.whygate/decision"]["code"] == "policy.public_tool"
    [followed] = [one for one in gateway.decisions() if one["action"]["name"] == "tasks/result"]
    assert followed["resource"]["id"] == "everything/simulate-research-query"


def _data(answer: httpx2.Response) -> dict[str, Any]:
    """The response, whether it came whole or as an event."""
    if "event-stream" not in answer.headers["content-type"]:
        found: dict[str, Any] = answer.json()
        return found
    events = [
        json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: {")
    ]
    return next(event for event in events if "method" not in event)
