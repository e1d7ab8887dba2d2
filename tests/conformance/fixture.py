"""The server that the conformance suite wants to find: its tools, resources and prompts, named and shaped as the suite's
own descriptions ask for. ``make()`` returns the ASGI application with both eras on ``/mcp``; run as a program, it serves stdio.
"""

import asyncio
import base64
import itertools
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server import Server
from mcp.server.caching import CacheHint
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from tests.conformance import fixture_asking as asking
from tests.conformance.fixture_asking import Answer, Context, text

STEP_S = 0.05
"""The suite's own word for the pause between two messages: it wants to see that they arrive one by one."""
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
MODERN = "2026-07-28"
MISSING_CAPABILITY = -32021
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def _png() -> str:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    return _b64(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b""))


def _wav() -> str:
    """Eight silent samples."""
    head = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    data = b"fmt " + head + b"data" + struct.pack("<I", 8) + b"\x80" * 8
    return _b64(b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE = types.ImageContent(data=_png(), mime_type="image/png")


def _resource(uri: str, words: str, kind: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=kind, text=words))


# --- tools ---


def _always(*content: types.ContentBlock, is_error: bool = False) -> Callable[..., Awaitable[Answer]]:
    async def call(_: Context, __: types.CallToolRequestParams) -> Answer:
        return types.CallToolResult(content=list(content), is_error=is_error)

    return call


async def _log(context: Context, words: str) -> None:
    """A log message on the call's own stream; in the modern era only for those who asked for it."""
    if context.protocol_version == MODERN and LOG_LEVEL not in (context.meta or {}):
        return
    note = types.LoggingMessageNotification(params=types.LoggingMessageNotificationParams(level="info", data=words))
    await context.session.send_notification(note, related_request_id=context.request_id)


async def _logs(context: Context, _: types.CallToolRequestParams) -> Answer:
    await _log(context, "Tool execution started")
    await asyncio.sleep(STEP_S)
    await _log(context, "Tool processing data")
    await asyncio.sleep(STEP_S)
    await _log(context, "Tool execution completed")
    return text("Logged three times.")


async def _progresses(context: Context, _: types.CallToolRequestParams) -> Answer:
    await context.session.report_progress(0, 100)
    await asyncio.sleep(STEP_S)
    await context.session.report_progress(50, 100)
    await asyncio.sleep(STEP_S)
    await context.session.report_progress(100, 100)
    return text("Progressed to the end.")


async def _closes_stream(context: Context, _: types.CallToolRequestParams) -> Answer:
    """SEP-1699: closes its stream in mid-call; the client comes back for the answer."""
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    await asyncio.sleep(2 * STEP_S)
    return text("Answered after the stream was closed.")


async def _needs_sampling(context: Context, _: types.CallToolRequestParams) -> Answer:
    able = context.session.client_capabilities
    if able is None or able.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_CAPABILITY, "Missing required client capability", needed)
    return text("The client can sample.")


async def _echoes(_: Context, params: types.CallToolRequestParams) -> Answer:
    return text(str((params.arguments or {}).get("region", "")))


_CONTACT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


def _one(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}


_TOOLS: dict[str, tuple[Callable[..., Awaitable[Answer]], dict[str, Any]]] = {
    "test_simple_text": (_always(types.TextContent(text="This is a simple text response for testing.")), _NOTHING),
    "test_image_content": (_always(IMAGE), _NOTHING),
    "test_audio_content": (_always(types.AudioContent(data=_wav(), mime_type="audio/wav")), _NOTHING),
    "test_embedded_resource": (
        _always(_resource("test://embedded-resource", "This is an embedded resource content.")),
        _NOTHING,
    ),
    "test_multiple_content_types": (
        _always(
            types.TextContent(text="Multiple content types test:"),
            IMAGE,
            _resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
        ),
        _NOTHING,
    ),
    "test_error_handling": (
        _always(types.TextContent(text="This tool intentionally returns an error for testing"), is_error=True),
        _NOTHING,
    ),
    "test_tool_with_logging": (_logs, _NOTHING),
    "test_tool_with_progress": (_progresses, _NOTHING),
    "test_reconnection": (_closes_stream, _NOTHING),
    "test_sampling": (asking.sampling, _one("prompt")),
    "test_elicitation": (asking.elicitation, _one("message")),
    "test_elicitation_sep1034_defaults": (asking.elicitation_defaults, _NOTHING),
    "test_elicitation_sep1330_enums": (asking.elicitation_enums, _NOTHING),
    "json_schema_2020_12_tool": (_always(types.TextContent(text="Noted.")), _CONTACT),
    "test_header_region": (_echoes, _REGION),
    "test_missing_capability": (_needs_sampling, _NOTHING),
    "test_streaming_elicitation": (asking.asks_name, _NOTHING),
    "test_logging_tool": (_logs, _NOTHING),
    "test_input_required_result_elicitation": (asking.asks_name, _NOTHING),
    "test_input_required_result_sampling": (asking.asks_model, _NOTHING),
    "test_input_required_result_list_roots": (asking.asks_roots, _NOTHING),
    "test_input_required_result_request_state": (asking.keeps_state, _NOTHING),
    "test_input_required_result_tampered_state": (asking.keeps_state, _NOTHING),
    "test_input_required_result_multiple_inputs": (asking.asks_three, _NOTHING),
    "test_input_required_result_multi_round": (asking.asks_twice, _NOTHING),
    "test_input_required_result_capabilities": (asking.asks_what_it_may, _NOTHING),
}
_TRIGGERS = {"test_trigger_tool_change": ToolsListChanged, "test_trigger_prompt_change": PromptsListChanged}


async def _list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    schemas = {name: schema for name, (_, schema) in _TOOLS.items()} | dict.fromkeys(_TRIGGERS, _NOTHING)
    return types.ListToolsResult(
        tools=[
            types.Tool(name=name, description=f"Fixture {name}.", input_schema=schema)
            for name, schema in schemas.items()
        ]
    )


def _schema_of(name: str) -> dict[str, Any] | None:
    return _TOOLS[name][1] if name in _TOOLS else None


# --- resources ---

_STATIC = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", None),
    "test://watched-resource": ("text/plain", "This resource can be watched."),
}


async def _list_resources(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=uri, name=uri.removeprefix("test://"), description=f"Fixture {uri}.", mime_type=kind)
            for uri, (kind, _) in _STATIC.items()
        ]
    )


async def _list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="Fixture with a parameter.",
        mime_type="application/json",
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def _read(_: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    head, tail = "test://template/", "/data"
    found: types.TextResourceContents | types.BlobResourceContents
    if uri.startswith(head) and uri.endswith(tail) and len(uri) > len(head + tail):
        identity = uri[len(head) : -len(tail)]
        words = f'{{"id":"{identity}","templateTest":true,"data":"Data for ID: {identity}"}}'
        found = types.TextResourceContents(uri=uri, mime_type="application/json", text=words)
    elif uri not in _STATIC:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    elif (words := _STATIC[uri][1]) is None:
        found = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=_png())
    else:
        found = types.TextResourceContents(uri=uri, mime_type="text/plain", text=words)
    return types.ReadResourceResult(contents=[found])


async def _nothing_more(_: Context, __: Any) -> types.EmptyResult:
    """For subscriptions, which never have anything to tell here, and for the log level, which is always heard."""
    return types.EmptyResult()


# --- prompts ---

_PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def _list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"Fixture {name}.",
                arguments=[types.PromptArgument(name=each, description="Any.", required=True) for each in arguments],
            )
            for name, arguments in _PROMPTS.items()
        ]
    )


async def _get_prompt(
    _: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    if params.name == "test_input_required_result_prompt":
        return await asking.prompt_with_context(params)
    if params.name == "test_simple_prompt":
        return _said(types.TextContent(text="This is a simple prompt for testing."))
    if params.name == "test_prompt_with_arguments":
        words = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
        return _said(types.TextContent(text=words))
    if params.name == "test_prompt_with_embedded_resource":
        embedded = _resource(given["resourceUri"], "Embedded resource content for testing.")
        return _said(embedded, types.TextContent(text="Please process the embedded resource above."))
    if params.name == "test_prompt_with_image":
        return _said(IMAGE, types.TextContent(text="Please analyze the image above."))
    raise MCPError(types.INVALID_PARAMS, "Prompt not found")


def _said(*content: types.ContentBlock) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=each) for each in content])


async def _complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=words, total=len(words), has_more=False))


# --- the server ---


class Events(EventStore):
    """Remembers every event, so that a stream can be taken up again."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._kept: dict[str, tuple[str, types.JSONRPCMessage | None]] = {}

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        identity = str(next(self._ids))
        self._kept[identity] = (stream_id, message)
        return identity

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if last_event_id not in self._kept:
            return None
        stream = self._kept[last_event_id][0]
        for identity, (its, message) in list(self._kept.items()):
            if its == stream and int(identity) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, identity))
        return stream


def _server() -> Server[Any]:
    bus = InMemorySubscriptionBus()

    async def call(context: Context, params: types.CallToolRequestParams) -> Answer:
        if params.name in _TRIGGERS:
            await bus.publish(_TRIGGERS[params.name]())
            return text("Changed.")
        if params.name not in _TOOLS:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await _TOOLS[params.name][0](context, params)

    hint = CacheHint(ttl_ms=1000, scope="public")
    server: Server[Any] = Server(
        "conformance-fixture",
        version="1",
        cache_hints=dict.fromkeys(
            ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"), hint
        ),
        get_tool_input_schema=_schema_of,
        on_list_tools=_list_tools,
        on_call_tool=call,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read,
        on_subscribe_resource=_nothing_more,
        on_unsubscribe_resource=_nothing_more,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_completion=_complete,
    )
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, _nothing_more)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="fixture"))
    return server


def make() -> Any:
    """The ASGI application; it needs its lifespan."""
    return _server().streamable_http_app(event_store=Events(), retry_interval=100)


async def _serve_stdio() -> None:
    server = _server()
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(_serve_stdio())
