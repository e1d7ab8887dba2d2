"""A small MCP server for tests and benchmarks, both eras: ``python -m whygate.testing.mcp_server`` serves stdio.

Needs the ``mcp`` SDK (the ``demo`` extra).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import mcp_types as types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server

Context = ServerRequestContext[Any, Any]
Handler = Callable[[Context, Mapping[str, Any]], Awaitable[types.CallToolResult]]


def _text(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)


async def _echo(_: Context, args: Mapping[str, Any]) -> types.CallToolResult:
    return _text(str(args["text"]))


async def _add(_: Context, args: Mapping[str, Any]) -> types.CallToolResult:
    return _text(str(args["a"] + args["b"]))


async def _slow(context: Context, args: Mapping[str, Any]) -> types.CallToolResult:
    """Reports each of its steps before it answers."""
    steps = int(args["steps"])
    for step in range(1, steps + 1):
        await context.session.report_progress(step, steps, f"step {step}")
    return _text(f"{steps} steps")


async def _fail(_: Context, args: Mapping[str, Any]) -> types.CallToolResult:
    return _text(str(args.get("text", "it failed")), is_error=True)


async def _seen(context: Context, _: Mapping[str, Any]) -> types.CallToolResult:
    """What reached it besides its arguments."""
    request = context.request
    headers = dict(request.headers) if request is not None else {}
    return _text(json.dumps({"meta": dict(context.meta or {}), "headers": headers}, default=str))


_STRING: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_TOOLS: Final[dict[str, tuple[str, dict[str, Any], Handler]]] = {
    "echo": ("Says what it is told.", {"text": _STRING}, _echo),
    "add": ("Adds two integers.", {"a": _INTEGER, "b": _INTEGER}, _add),
    "slow": ("Reports progress, then answers.", {"steps": _INTEGER}, _slow),
    "fail": ("Answers with an error.", {"text": _STRING}, _fail),
    "seen": ("Tells which metadata and headers reached it.", {}, _seen),
}


async def _list(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(
        tools=[
            types.Tool(name=name, description=about, input_schema={"type": "object", "properties": properties})
            for name, (about, properties, _) in _TOOLS.items()
        ]
    )


async def _call(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    if params.name not in _TOOLS:
        return _text(f"no tool {params.name}", is_error=True)
    return await _TOOLS[params.name][2](context, params.arguments or {})


def make() -> Server[Any]:
    """A fresh server; its ``streamable_http_app`` serves both eras over HTTP."""
    return Server("whygate-fixture", version="1", on_list_tools=_list, on_call_tool=_call)


async def _serve_stdio() -> None:
    server = make()
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(_serve_stdio())
