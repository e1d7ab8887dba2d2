"""The conformance fixture's tools that ask something of the client: in mid-call (2025), or by `input_required` (2026)."""

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata

Context = ServerRequestContext[Any, Any]
Answer = types.CallToolResult | types.InputRequiredResult


def text(words: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=words)], is_error=is_error)


# --- 2025: requests to the client on the call's own stream ---


async def sampling(context: Context, params: types.CallToolRequestParams) -> Answer:
    """Has the client's model answer the prompt it was called with."""
    prompt = str((params.arguments or {})["prompt"])
    made = await context.session.send_request(
        sample(prompt),
        types.CreateMessageResult,
        metadata=ServerMessageMetadata(related_request_id=context.request_id),
    )
    return text(f"LLM response: {_words(made)}")


async def elicitation(context: Context, params: types.CallToolRequestParams) -> Answer:
    message = str((params.arguments or {})["message"])
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    made = await _elicit(context, message, {"type": "object", "properties": fields, "required": ["username", "email"]})
    return text(f"User response: action={made.action}, content={made.content}")


async def elicitation_defaults(context: Context, _: types.CallToolRequestParams) -> Answer:
    """SEP-1034: a default for each primitive type."""
    fields: dict[str, Any] = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    made = await _elicit(context, "Please check your details", {"type": "object", "properties": fields})
    return text(f"Elicitation completed: action={made.action}, content={made.content}")


async def elicitation_enums(context: Context, _: types.CallToolRequestParams) -> Answer:
    """SEP-1330: each form an enumeration can have."""
    plain = ["option1", "option2", "option3"]
    first = [
        {"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)
    ]
    many = [{"const": f"value{n}", "title": f"{word} Choice"} for n, word in enumerate(("First", "Second", "Third"), 1)]
    fields: dict[str, Any] = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": first},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": many}},
    }
    made = await _elicit(context, "Please choose", {"type": "object", "properties": fields})
    return text(f"Elicitation completed: action={made.action}, content={made.content}")


async def _elicit(context: Context, message: str, schema: dict[str, Any]) -> types.ElicitResult:
    return await context.session.elicit_form(message, schema, related_request_id=context.request_id)


# --- 2026: the call is answered with what is missing, and made again with it (SEP-2322) ---


def form(message: str, field: str, kind: str = "string") -> types.ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str, most: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=most))


NAME = form("What is your name?", "name")


def ask(requests: Mapping[str, types.InputRequest], state: str | None = None) -> types.InputRequiredResult:
    return types.InputRequiredResult(input_requests=dict(requests), request_state=state)


def given(params: types.InputResponseRequestParams, key: str) -> types.InputResponse | None:
    return (params.input_responses or {}).get(key)


def _words(answer: types.InputResponse | None) -> str:
    if isinstance(answer, types.CreateMessageResult) and isinstance(answer.content, types.TextContent):
        return answer.content.text
    return ""


def _field(answer: types.InputResponse | None, field: str) -> str:
    """What an accepted form says; empty where there is none."""
    found = answer.content if isinstance(answer, types.ElicitResult) else None
    return str(found[field]) if found and field in found else ""


async def asks_name(_: Context, params: types.CallToolRequestParams) -> Answer:
    name = _field(given(params, "user_name"), "name")
    return text(f"Hello, {name}!") if name else ask({"user_name": NAME})


async def asks_model(_: Context, params: types.CallToolRequestParams) -> Answer:
    said = _words(given(params, "capital_question"))
    return text(said) if said else ask({"capital_question": sample("What is the capital of France?")})


async def asks_roots(_: Context, params: types.CallToolRequestParams) -> Answer:
    found = given(params, "client_roots")
    if not isinstance(found, types.ListRootsResult):
        return ask({"client_roots": types.ListRootsRequest()})
    return text(f"Roots: {', '.join(str(root.uri) for root in found.roots)}")


async def keeps_state(_: Context, params: types.CallToolRequestParams) -> Answer:
    """What it remembers is sealed on its way out and opened on its way in by the SDK's boundary."""
    if given(params, "confirm") is None or params.request_state != "asked":
        return ask({"confirm": form("Please confirm", "ok", "boolean")}, "asked")
    return text("state-ok")


async def asks_three(_: Context, params: types.CallToolRequestParams) -> Answer:
    wanted = {
        "user_name": NAME,
        "greeting": sample("Generate a greeting", 50),
        "client_roots": types.ListRootsRequest(),
    }
    if params.request_state != "three" or not wanted.keys() <= (params.input_responses or {}).keys():
        return ask(wanted, "three")
    return text(f"{_words(given(params, 'greeting'))} {_field(given(params, 'user_name'), 'name')}".strip() or "Hello")


async def asks_twice(_: Context, params: types.CallToolRequestParams) -> Answer:
    if params.request_state == "round-2" and given(params, "step2") is not None:
        return text(f"Favourite colour: {_field(given(params, 'step2'), 'color')}")
    if params.request_state == "round-1" and given(params, "step1") is not None:
        return ask({"step2": form("Step 2: What is your favorite color?", "color")}, "round-2")
    return ask({"step1": form("Step 1: What is your name?", "name")}, "round-1")


async def asks_what_it_may(context: Context, params: types.CallToolRequestParams) -> Answer:
    """Only what the client says it can answer."""
    able = context.session.client_capabilities or types.ClientCapabilities()
    wanted: dict[str, types.InputRequest] = {}
    if able.elicitation is not None:
        wanted["user_name"] = NAME
    if able.sampling is not None:
        wanted["greeting"] = sample("Generate a greeting", 50)
    if not wanted or wanted.keys() <= (params.input_responses or {}).keys():
        return text("Nothing more to ask.")
    return ask(wanted)


async def prompt_with_context(
    params: types.GetPromptRequestParams,
) -> types.GetPromptResult | types.InputRequiredResult:
    found = _field(given(params, "user_context"), "context")
    if not found:
        return ask({"user_context": form("What context should the prompt use?", "context")})
    words = types.TextContent(text=f"Work in this context: {found}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=words)])
