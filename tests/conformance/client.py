"""A client for the suite to look at, on the SDK: ``python -m tests.conformance.client [--through] URL``.

It lists what there is and calls every tool, with the arguments that the suite names, or else made up from the schema. With
``--through`` a gateway stands between: then the suite, which plays the server, sees what the gateway sends.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.conformance.between import unasked

_MADE_UP: dict[str, Any] = {"string": "x", "number": 1, "integer": 1, "boolean": True, "object": {}, "array": []}


async def _elicited(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    """What the form itself proposes."""
    assert isinstance(params, types.ElicitRequestFormParams)
    fields: dict[str, Any] = dict(params.requested_schema.get("properties", {}))
    return types.ElicitResult(
        action="accept", content={name: field["default"] for name, field in fields.items() if "default" in field}
    )


def _calls(tools: list[types.Tool]) -> list[tuple[str, dict[str, Any]]]:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    if "toolCalls" in context:
        return [(each["name"], each["arguments"]) for each in context["toolCalls"]]
    return [(tool.name, _arguments(tool, tools)) for tool in tools]


def _arguments(tool: types.Tool, tools: list[types.Tool]) -> dict[str, Any]:
    """Made up; but what asks for a schema gets the first tool's, as the client has read it."""
    fields: dict[str, Any] = tool.input_schema.get("properties", {})
    made = {name: _MADE_UP.get(str(field.get("type")), "x") for name, field in fields.items()}
    return made | ({"schema": tools[0].input_schema} if "schema" in fields else {})


async def _use(client: Client) -> None:
    tools = (await client.list_tools()).tools
    for name, arguments in _calls(tools):
        await client.call_tool(name, arguments)
    able = client.server_capabilities
    if able.resources is not None:
        for resource in (await client.list_resources()).resources:
            await client.read_resource(resource.uri)
    if able.prompts is not None:
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name, {each.name: "x" for each in prompt.arguments or []})


async def _run(url: str) -> None:
    mode = "auto" if os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "") >= "2026" else "legacy"
    async with (
        httpx2.AsyncClient(timeout=20) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, elicitation_callback=_elicited) as client,
    ):
        await _use(client)


async def main() -> None:
    url = sys.argv[-1]
    if "--through" not in sys.argv:
        await _run(url)
        return
    with tempfile.TemporaryDirectory() as folder:
        async with unasked(Path(folder), {"url": url}) as (between, _):
            await _run(between)


if __name__ == "__main__":
    asyncio.run(main())
