"""All servers in one address: real clients of every era before real servers of every kind, under a real policy and ledger."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.servers import npm
from tests.servers.gateway import Running, free_port, make_repository, running
from tests.servers.mcp_edge import call, routing

from whygate.testing.mcp_server import make
from whygate.testing.serve import served

AGENT = Path(__file__).parents[1] / "clients" / "mcp1_agent.py"
MODES = ["auto", "legacy", "2026-07-28"]
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: plain
    tools: ["json/echo", "events/echo", "events/slow", "time/*", "git/git_status", "git/git_log"]
    permit: {}
    why: Harmless.
  - id: small-sums
    tools: ["*/add"]
    when: args.a < 100
    permit: {}
    why: Small sums are routine.
  - id: read-files
    tools: ["files/read_*", "memory/create_entities", "memory/read_graph", "everything/echo", "everything/get-sum"]
    permit: {}
    why: The case's files and notes.
"""


@asynccontextmanager
async def _running(folder: Path, tools: dict[str, Any]) -> AsyncIterator[Running]:
    (folder / "policies").mkdir()
    (folder / "policies" / "support.yaml").write_text(RULES)
    async with (
        served(make().streamable_http_app(json_response=True), lifespan=True) as plain,
        served(make().streamable_http_app(json_response=False), lifespan=True) as events,
        running(
            folder,
            tools | {"json": {"mcp": {"url": f"{plain}/mcp"}}, "events": {"mcp": {"url": f"{events}/mcp"}}},
            policies=str(folder / "policies"),
        ) as made,
    ):
        yield made


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    """The fixture over HTTP, two servers of everyday use over stdio, and one that is down."""
    repository = make_repository(tmp_path / "repository")
    tools = {
        "git": {"mcp": {"command": [sys.executable, "-m", "mcp_server_git", "--repository", str(repository)]}},
        "time": {"mcp": {"command": [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]}},
        "down": {"mcp": {"url": f"http://127.0.0.1:{free_port()}/mcp"}},
    }
    async with _running(tmp_path, tools) as made:
        yield made


@asynccontextmanager
async def _client(gateway: Running, mode: str, server: str = "") -> AsyncIterator[Client]:
    address = f"{gateway.url}/mcp/{server}".rstrip("/")
    async with (
        httpx2.AsyncClient(headers=gateway.headers(), timeout=30) as http,
        Client(streamable_http_client(address, http_client=http), mode=mode) as made,
    ):
        yield made


def _calls(repository: Path) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        ("json", "echo", {"text": "grüß dich"}),
        ("events", "slow", {"steps": 3}),
        ("events", "add", {"a": 1, "b": 2}),
        ("json", "add", {"a": 1000, "b": 2}),
        ("git", "git_status", {"repo_path": str(repository)}),
        ("git", "git_reset", {"repo_path": str(repository)}),
        ("time", "get_current_time", {"timezone": "UTC"}),
        ("json", "nosuch", {}),
        ("ghost", "echo", {}),
    ]


REFUSED = [False, False, False, True, False, True, False, True, True]


def _decided(gateway: Running) -> list[dict[str, Any]]:
    """What was decided about calls, without what can't be the same twice."""
    found = []
    for record in gateway.decisions():
        if record["action"]["name"] == "tools/call":
            kept = ("action", "arguments", "determined_by", "effect", "evaluations", "outcome", "reason", "resource")
            found.append({key: record.get(key) for key in kept} | {"subject": record["subject"]["id"]})
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_the_current_sdk(gateway: Running, tmp_path: Path, mode: str) -> None:
    """Lists all servers' permitted tools, calls them, hears progress and is refused: and every call's record says the same as
    if it had been made on the server's own address.
    """
    calls = _calls(tmp_path / "repository")
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    async with _client(gateway, mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        results = [
            await client.call_tool(f"{server}__{tool}", args, progress_callback=progress)
            for server, tool, args in calls
        ]
    assert names == [
        *("events__echo", "events__add", "events__slow", "git__git_status", "git__git_log", "json__echo", "json__add"),
        *("time__get_current_time", "time__convert_time"),
        *("whygate__request_elevation", "whygate__approval_status", "whygate__explain_decision"),
    ]
    assert [bool(result.is_error) for result in results] == REFUSED
    assert "grüß dich" in results[0].content[0].text
    assert "note.md" in results[4].content[0].text
    assert heard == [1, 2, 3]
    merged = _decided(gateway)
    for server, tool, args in calls[:-1]:  # a server that does not exist has no address
        async with _client(gateway, mode, server) as client:
            await client.call_tool(tool, args)
    for one, other in zip(merged[:-1], _decided(gateway)[len(merged) :], strict=True):
        assert one == other
    assert merged[-1]["resource"] == {"asked": "ghost__echo"}
    listed = [one for one in gateway.records() if one["kind"] == "completion" and "servers" in one]
    assert [each["name"] for each in listed[0]["servers"]] == ["down", "events", "git", "json", "time", "whygate"]
    assert listed[0]["servers"][0]["code"] == "upstream.failed"


@pytest.mark.mcp1
async def test_the_last_sdk_of_the_1x_line(gateway: Running, tmp_path: Path, mcp1_python: Path) -> None:
    """An older client in a process of its own sees the same."""
    calls = [(f"{server}__{tool}", args) for server, tool, args in _calls(tmp_path / "repository")]
    process = await asyncio.create_subprocess_exec(
        str(mcp1_python),
        str(AGENT),
        f"{gateway.url}/mcp",
        gateway.tokens.make("agent:support"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps(calls).encode())
    assert process.returncode == 0, errors.decode()
    hello, listed, *told, ping = [json.loads(line) for line in output.splitlines()]
    assert (hello["hello"], hello["revision"]) == ("whygate", "2025-11-25")
    assert len(listed["tools"]) == 9 + 3
    assert [one["error"] for one in told] == REFUSED
    assert told[1]["progress"] == [1, 2, 3]
    assert ping == {"ping": True}


async def test_why_a_list_is_as_it_is(gateway: Running) -> None:
    """Asked about a list, the ledger tells which server gave how much, and which gave nothing and why."""
    async with _client(gateway, "auto") as client:
        found = await client.list_tools()
    decision = found.meta["dev.whygate/decision"]["id"]
    async with asyncio.timeout(5):
        while not any(one.get("decision") == decision for one in gateway.records()):  # noqa: ASYNC110  # a file's growth
            await asyncio.sleep(0.02)
    why = [sys.executable, "-m", "whygate", "why", decision, "--ledger", str(gateway.ledger)]
    told = await asyncio.to_thread(subprocess.run, why, capture_output=True, text=True, check=True)
    flat = " ".join(told.stdout.split())
    assert "From events (3 tools), git (2 tools), json (2 tools), time (2 tools), whygate (3 tools)." in flat
    assert "Left out, because they gave no list: down (upstream.failed)." in flat


@pytest.mark.parametrize("name", ["json__\u202eecho", "json__" + "x" * 200, "json__e cho", "ghost__e\u200bcho"])
async def test_a_name_without_a_tools_shape_reaches_no_server(gateway: Running, name: str) -> None:
    """It is refused before any rule is asked, and stands in the record as what was asked for."""
    async with httpx.AsyncClient() as client:
        body = json.dumps(call(name, modern=False)).encode()
        headers = gateway.headers() | {"content-type": "application/json"}
        answer = await client.post(f"{gateway.url}/mcp", content=body, headers=headers)
    result = answer.json()["result"]
    assert (result["isError"], result["_meta"]["dev.whygate/decision"]["code"]) == (True, "tool.unknown")
    assert gateway.decision(answer)["resource"]["asked"]


async def test_where_tokens_come_from(gateway: Running) -> None:
    """Without a credential the challenge names this address's own metadata (RFC 9728)."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{gateway.url}/mcp", json=call(name := "json__echo"), headers=routing(name=name))
        address = answer.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
        metadata = (await client.get(address)).json()
    assert answer.status_code == 401
    assert metadata["resource"] == f"{gateway.url}/mcp"


@pytest.mark.slow  # Node takes half a second to start
@pytest.mark.parametrize("mode", MODES)
async def test_servers_of_the_older_era(npm_packages: Path, tmp_path: Path, mode: str) -> None:
    """Npm's servers speak only the older era, over stdio; a client of any era calls them beside modern ones."""
    files, memory = tmp_path / "files", tmp_path / "memory.place"
    files.mkdir()
    (files / "case.txt").write_text("The case of the grüne Kanne.")
    memory.write_text(str(tmp_path / "memory.jsonl"))
    entity = {"name": "Kanne", "entityType": "thing", "observations": ["green"]}

    def mcp(name: str, *arguments: str, **more: Any) -> dict[str, Any]:
        return {"mcp": {"command": npm.command(f"@modelcontextprotocol/server-{name}", *arguments)} | more}

    tools = {
        "files": mcp("filesystem", str(files)),
        "memory": mcp("memory", env={"MEMORY_FILE_PATH": f"file:{memory}"}),
        "everything": mcp("everything", "stdio"),
    }
    async with _running(tmp_path, tools) as gateway, _client(gateway, mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        read = await client.call_tool("files__read_text_file", {"path": str(files / "case.txt")})
        written = await client.call_tool("files__write_file", {"path": str(files / "new.txt"), "content": "x"})
        made = await client.call_tool("memory__create_entities", {"entities": [entity]})
        graph = await client.call_tool("memory__read_graph", {})
        echoed = await client.call_tool("everything__echo", {"message": "grüß dich"})
        total = await client.call_tool("everything__get-sum", {"a": 1, "b": 2})
    assert {"files__read_text_file", "memory__read_graph", "everything__get-sum", "json__echo"} <= names
    assert "files__write_file" not in names
    assert "grüne Kanne" in read.content[0].text
    assert written.is_error
    assert not made.is_error
    assert graph.structured_content["entities"] == [entity]
    assert "grüß dich" in echoed.content[0].text
    assert "3" in total.content[0].text
