"""Every refusal leaves a record, a span, and an answer with a reason code and a way forward.

The paths that can refuse are listed here, and the last test fails when the source refuses with a code that the list does
not have.
"""

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from joserfc.jwk import ECKey
from tests.servers.gateway import Running, billing_tool, running

from whygate.core import records
from whygate.core.reasons import Code, Next, Outcome
from whygate.mcp.backend import Server
from whygate.mcp.looking import whole
from whygate.telemetry.shapes import Kind
from whygate.telemetry.spans import Instance, of_decision
from whygate.testing.billing import BillingServer
from whygate.testing.mcp_server import make
from whygate.testing.serve import served

SOURCE = Path(__file__).parents[2] / "src" / "whygate"
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: read
    tools: [billing/invoice_get, up/echo]
    permit: {}
    why: Reading is routine.
  - id: tools-that-are-not-as-accepted
    tools: [up/seen, up/unheard_of]
    permit: {}
    why: Permitted, if only they were as they were accepted.
  - id: small
    tools: [billing/refund]
    when: args.amount_cents <= 10000
    permit: {}
    why: Small refunds are routine.
  - id: large
    tools: [billing/refund]
    when: args.amount_cents > 10000
    permit: {require: {human: {approvers: ["group:leads"]}}}
    why: Large refunds need a person.
  - id: cap
    tools: [billing/refund]
    when: args.amount_cents > 500000
    deny: {code: args.limit_exceeded}
    why: Nobody refunds that much.
  - id: never
    tools: [up/fail]
    deny: {code: policy.explicit_deny}
    why: This tool is never used.
  - id: scoped
    tools: [up/add]
    permit: {require: {scope: [sums]}}
    why: Adding needs a scope.
"""
TYPED = {
    "openapi": "3.1.0",
    "paths": {
        "/invoices": {
            "get": {
                "operationId": "invoice_list",
                "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
            }
        }
    },
}
Send = Callable[[Running, httpx.AsyncClient], Awaitable[httpx.Response]]


class PathThatRefuses(NamedTuple):
    name: str
    code: Code
    status: int
    send: Send


PATHS: list[PathThatRefuses] = []


def path(code: Code, status: int) -> Callable[[Send], Send]:
    def keep(send: Send) -> Send:
        PATHS.append(PathThatRefuses(send.__name__, code, status, send))
        return send

    return keep


def _invoice(gateway: Running) -> str:
    return f"{gateway.url}/http/billing/invoices/1042"


def _rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


async def _call(gateway: Running, client: httpx.AsyncClient, tool: str, **arguments: Any) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps(_rpc("tools/call", name=tool, arguments=arguments)).encode())


async def _mcp(gateway: Running, client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    base = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    sent = {**gateway.headers(), **base, **headers}
    sent = {name: value for name, value in sent.items() if value}
    return await client.post(f"{gateway.url}/mcp/up", content=body, headers=sent)


# --- who ---


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def http_without_credential(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway))


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def http_with_another_issuers_signature(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    key = ECKey.generate_key("P-256", {"kid": "test-1"})
    return await client.get(_invoice(gateway), headers=gateway.headers(key=key))


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def http_with_two_credentials(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    (value,) = gateway.headers().values()
    return await client.get(_invoice(gateway), headers=[("authorization", value), ("authorization", value)])


@path(Code.AGENT_TOKEN_EXPIRED, 401)
async def http_with_an_expired_token(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers(exp=1))


@path(Code.AGENT_TOKEN_AUDIENCE, 401)
async def http_with_a_token_for_somebody_else(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers(aud="other"))


@path(Code.DELEGATION_INVALID, 401)
async def http_with_a_broken_chain(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers("ada@example.com", act={"sub": 7}))


@path(Code.AGENT_SUSPENDED, 403)
async def http_by_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers("agent:suspended"))


@path(Code.AGENT_RETIRED, 403)
async def http_by_a_retired_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers("agent:retired"))


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def mcp_without_credential(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps(_rpc("tools/list")).encode(), authorization="")


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def mcp_initialize_without_credential(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps(_rpc("initialize")).encode(), authorization="")


@path(Code.AGENT_SUSPENDED, 200)
async def mcp_by_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    body = json.dumps(_rpc("tools/call", name="echo", arguments={})).encode()
    return await _mcp(gateway, client, body, **gateway.headers("agent:suspended"))


# --- what was sent ---


@path(Code.REQUEST_ORIGIN_REFUSED, 403)
async def http_for_another_host(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers() | {"host": "evil.example"})


@path(Code.REQUEST_ORIGIN_REFUSED, 403)
async def mcp_from_a_web_page(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps(_rpc("tools/list")).encode(), origin="https://evil.example")


@path(Code.REQUEST_SERVER_UNKNOWN, 404)
async def http_tool_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/http/nothing/x", headers=gateway.headers())


@path(Code.REQUEST_SERVER_UNKNOWN, 404)
async def a_path_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/admin", headers=gateway.headers())


@path(Code.REQUEST_SERVER_UNKNOWN, 404)
async def mcp_server_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(f"{gateway.url}/mcp/nothing", json=_rpc("tools/list"), headers=gateway.headers())


@path(Code.TOOL_UNKNOWN, 404)
async def http_operation_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/http/billing/payments", headers=gateway.headers())


@path(Code.REQUEST_METHOD_UNKNOWN, 405)
async def http_method_that_no_tool_has(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.request("OPTIONS", _invoice(gateway), headers=gateway.headers())


@path(Code.REQUEST_METHOD_UNKNOWN, 405)
async def mcp_method_of_http_that_is_not_spoken(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.put(f"{gateway.url}/mcp/up", headers=gateway.headers())


@path(Code.REQUEST_PATH_AMBIGUOUS, 400)
async def http_path_with_an_encoded_slash(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/http/billing/invoices/1%2f2", headers=gateway.headers())


@path(Code.REQUEST_PATH_AMBIGUOUS, 400)
async def http_with_a_method_override(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(_invoice(gateway), headers=gateway.headers() | {"x-http-method-override": "DELETE"})


@path(Code.REQUEST_DUPLICATE_KEY, 400)
async def http_body_with_a_key_twice(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    headers = gateway.headers() | {"content-type": "application/json"}
    body = b'{"amount_cents": 9000000, "amount_cents": 1}'
    return await client.post(f"{gateway.url}/http/billing/refunds", content=body, headers=headers)


@path(Code.REQUEST_MALFORMED, 400)
async def http_body_that_is_not_json(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    headers = gateway.headers() | {"content-type": "application/json"}
    return await client.post(f"{gateway.url}/http/billing/refunds", content=b"{", headers=headers)


@path(Code.REQUEST_TOO_LARGE, 413)
async def http_body_above_the_cap(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    headers = gateway.headers() | {"content-type": "application/json"}
    body = b'{"x": "' + b"a" * (5 * 1024 * 1024) + b'"}'
    return await client.post(f"{gateway.url}/http/billing/refunds", content=body, headers=headers)


@path(Code.REQUEST_MALFORMED, 400)
async def mcp_body_that_is_not_json(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, b"{")


@path(Code.REQUEST_DUPLICATE_KEY, 400)
async def mcp_body_with_a_key_twice(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fail","name":"echo","arguments":{}}}'
    return await _mcp(gateway, client, body)


@path(Code.REQUEST_BATCH, 400)
async def mcp_batch(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps([_rpc("tools/list")]).encode())


@path(Code.REQUEST_TOO_LARGE, 413)
async def mcp_body_above_the_cap(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _mcp(gateway, client, b" " * (5 * 1024 * 1024))


@path(Code.REQUEST_HEADER_MISMATCH, 400)
async def mcp_header_that_names_another_tool(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    body = json.dumps(_rpc("tools/call", name="fail", arguments={})).encode()
    return await _mcp(gateway, client, body, **{"mcp-method": "tools/call", "mcp-name": "echo"})


@path(Code.REQUEST_VERSION_UNSUPPORTED, 400)
async def mcp_revision_that_nobody_speaks(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    meta = {"io.modelcontextprotocol/protocolVersion": "1999-01-01", "io.modelcontextprotocol/clientCapabilities": {}}
    body = json.dumps(_rpc("tools/list", _meta=meta)).encode()
    return await _mcp(gateway, client, body, **{"mcp-method": "tools/list", "mcp-protocol-version": "1999-01-01"})


# --- for which work ---


@path(Code.TASK_NOT_USABLE, 403)
async def http_in_a_task_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    headers = gateway.headers() | {"whygate-task": "01a20a2d-d0d2-7e10-837b-961b8a86a016"}
    return await client.get(_invoice(gateway), headers=headers)


@path(Code.TASK_NOT_USABLE, 403)
async def http_in_somebody_elses_task(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    task = await gateway.open_task("agent:researcher")
    return await client.get(_invoice(gateway), headers=gateway.headers() | {"whygate-task": task["id"]})


@path(Code.TASK_NOT_USABLE, 200)
async def mcp_in_somebody_elses_task(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    task = await gateway.open_task("agent:researcher")
    params = {"name": "echo", "arguments": {}, "_meta": {"dev.whygate/task": task["id"]}}
    return await _mcp(gateway, client, json.dumps(_rpc("tools/call", **params)).encode())


# --- by rule ---


@path(Code.ARGS_TOO_LARGE, 413)
async def http_argument_too_deep_to_look_at(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    deep: Any = 1
    for _ in range(40):
        deep = {"x": deep}
    body = {"amount_cents": deep}
    return await client.post(f"{gateway.url}/http/billing/refunds", json=body, headers=gateway.headers())


@path(Code.ARGS_SCHEMA_INVALID, 422)
async def http_argument_that_is_not_as_declared(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/http/typed/invoices?limit=many", headers=gateway.headers())


@path(Code.ARGS_SCHEMA_INVALID, 200)
async def mcp_argument_that_the_tool_does_not_take(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "echo", text="x", secret="y")


@path(Code.TOOL_UNPINNED, 200)
async def mcp_tool_that_nobody_accepted(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "unheard_of")


@path(Code.TOOL_SCHEMA_CHANGED, 200)
async def mcp_tool_that_is_not_what_was_accepted(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    modern = {"mcp-method": "tools/list", "mcp-protocol-version": "2026-07-28"}
    listed = await _mcp(gateway, client, json.dumps(_rpc("tools/list", _meta=meta)).encode(), **modern)
    assert "seen" not in {tool["name"] for tool in listed.json()["result"]["tools"]}
    return await _call(gateway, client, "seen")


@path(Code.POLICY_NO_MATCH, 403)
async def http_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(f"{gateway.url}/http/billing/customers/export", headers=gateway.headers())


@path(Code.ARGS_LIMIT_EXCEEDED, 403)
async def http_by_a_deny_rule(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    url = f"{gateway.url}/http/billing/refunds"
    return await client.post(url, json={"amount_cents": 900_000}, headers=gateway.headers())


@path(Code.STEP_UP_REQUIRED, 403)
async def http_that_needs_a_person(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    url = f"{gateway.url}/http/billing/refunds"
    return await client.post(url, json={"amount_cents": 90_000}, headers=gateway.headers())


@path(Code.POLICY_EVAL_ERROR, 500)
async def http_with_an_argument_missing(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(f"{gateway.url}/http/billing/refunds", json={"x": 1}, headers=gateway.headers())


@path(Code.POLICY_NO_MATCH, 200)
async def mcp_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "slow")


@path(Code.POLICY_NO_MATCH, 200)
async def mcp_tool_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "no_such_tool")


@path(Code.TOOL_UNKNOWN, 200)
async def mcp_tool_whose_name_no_tool_can_have(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "no such\ntool")


@path(Code.POLICY_EXPLICIT_DENY, 200)
async def mcp_by_a_deny_rule(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "fail")


@path(Code.SCOPE_INSUFFICIENT, 403)
async def mcp_that_needs_a_scope(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _call(gateway, client, "add", a=1, b=2)


# --- what is no tool ---


async def _asked(gateway: Running, client: httpx.AsyncClient, method: str, **params: Any) -> httpx.Response:
    return await _mcp(gateway, client, json.dumps(_rpc(method, **params)).encode())


@path(Code.POLICY_NO_MATCH, 200)
async def mcp_resource_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "resources/read", uri="file:///etc/passwd")


@path(Code.POLICY_NO_MATCH, 200)
async def mcp_prompt_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "prompts/get", name="greet")


@path(Code.TOOL_UNKNOWN, 200)
async def mcp_prompt_whose_name_no_prompt_can_have(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "prompts/get", name="a\nb")


@path(Code.REQUEST_PATH_AMBIGUOUS, 200)
async def mcp_uri_with_a_dot_segment(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "resources/read", uri="file:///srv/docs/../../etc/passwd")


@path(Code.REQUEST_MALFORMED, 200)
async def mcp_uri_that_is_none(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "resources/subscribe", uri="/etc/passwd")


@path(Code.ARGS_TOO_LARGE, 200)
async def mcp_uri_without_end(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "resources/read", uri="x:" + "y" * 5000)


@path(Code.POLICY_NO_MATCH, 200)
async def mcp_completion_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    ref, argument = {"type": "ref/resource", "uri": "file:///{path}"}, {"name": "path", "value": "e"}
    return await _asked(gateway, client, "completion/complete", ref=ref, argument=argument)


@path(Code.HANDLE_NOT_USABLE, 200)
async def mcp_task_that_is_not_the_callers(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "tasks/result", taskId="t-1")


@path(Code.HANDLE_NOT_USABLE, 400)
async def mcp_state_that_was_never_given_out(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "tools/call", name="echo", arguments={}, requestState="wg1.00.mine")


@path(Code.REQUEST_METHOD_UNKNOWN, 200)
async def mcp_method_that_nobody_knows(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _asked(gateway, client, "skills/run", name="echo")


@path(Code.REQUEST_METHOD_UNKNOWN, 400)
async def mcp_notification_that_nobody_knows(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    body = json.dumps({"jsonrpc": "2.0", "method": "notifications/x"}).encode()
    return await _mcp(gateway, client, body)


@path(Code.AGENT_SUSPENDED, 403)
async def mcp_notification_of_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    body = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    return await _mcp(gateway, client, body, **gateway.headers("agent:suspended"))


@path(Code.AGENT_SUSPENDED, 403)
async def mcp_stream_of_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    headers = gateway.headers("agent:suspended") | {"accept": "text/event-stream"}
    return await client.get(f"{gateway.url}/mcp/up", headers=headers)


# --- by the address of all servers ---


async def _merged(gateway: Running, client: httpx.AsyncClient, message: Any, **headers: str) -> httpx.Response:
    sent = {**gateway.headers(), "accept": "application/json, text/event-stream", **headers}
    return await client.post(
        f"{gateway.url}/mcp", json=message, headers={key: value for key, value in sent.items() if value}
    )


def _tool(name: str, **more: Any) -> dict[str, Any]:
    return _rpc("tools/call", name=name, arguments={}, **more)


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def merged_without_credential(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _rpc("initialize"), authorization="")


@path(Code.AGENT_SUSPENDED, 200)
async def merged_by_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _rpc("ping"), **gateway.headers("agent:suspended"))


@path(Code.AGENT_SUSPENDED, 200)
async def merged_call_by_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__echo"), **gateway.headers("agent:suspended"))


@path(Code.REQUEST_BATCH, 400)
async def merged_batch(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, [_rpc("tools/list")])


@path(Code.REQUEST_METHOD_UNKNOWN, 200)
async def merged_method_that_is_not_there(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _rpc("resources/read", uri="x://y"))


@path(Code.REQUEST_METHOD_UNKNOWN, 405)
async def merged_method_of_http_that_is_not_spoken(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.put(f"{gateway.url}/mcp", headers=gateway.headers())


@path(Code.REQUEST_MALFORMED, 400)
async def merged_list_from_somewhere_in_the_middle(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _rpc("tools/list", cursor="2"))


@path(Code.REQUEST_VERSION_UNSUPPORTED, 400)
async def merged_revision_that_nobody_speaks(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _rpc("tools/list"), **{"mcp-protocol-version": "1999-01-01"})


@path(Code.REQUEST_HEADER_MISMATCH, 400)
async def merged_header_with_the_tools_own_name(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__echo"), **{"mcp-name": "echo"})


@path(Code.TASK_NOT_USABLE, 200)
async def merged_in_somebody_elses_task(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    task = await gateway.open_task("agent:researcher")
    return await _merged(gateway, client, _tool("up__echo", _meta={"dev.whygate/task": task["id"]}))


@path(Code.POLICY_NO_MATCH, 200)
async def merged_by_default(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__slow"))


@path(Code.POLICY_NO_MATCH, 200)
async def merged_tool_of_a_server_that_does_not_exist(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("ghost__echo"))


@path(Code.POLICY_NO_MATCH, 200)
async def merged_tool_of_a_server_that_is_not_mcp(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("billing__invoice_get"))


@path(Code.TOOL_UNKNOWN, 200)
async def merged_tool_whose_name_no_tool_can_have(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__no\u200bsuch"))


@path(Code.HANDLE_NOT_USABLE, 400)
async def merged_state_that_was_never_given_out(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__echo", requestState="wg1.00.mine"))


@path(Code.REQUEST_METHOD_UNKNOWN, 400)
async def merged_notification_that_nobody_knows(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, {"jsonrpc": "2.0", "method": "notifications/x"})


@path(Code.AGENT_SUSPENDED, 403)
async def merged_notification_of_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    return await _merged(gateway, client, message, **gateway.headers("agent:suspended"))


@path(Code.AGENT_SUSPENDED, 403)
async def merged_goodbye_of_a_suspended_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.delete(f"{gateway.url}/mcp", headers=gateway.headers("agent:suspended"))


@path(Code.POLICY_EXPLICIT_DENY, 200)
async def merged_by_a_deny_rule(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await _merged(gateway, client, _tool("up__fail"))


# --- opening tasks ---


@path(Code.AGENT_UNAUTHENTICATED, 401)
async def task_opened_by_nobody(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(f"{gateway.operators_url}/v1/tasks", json={"agents": ["agent:support"]})


@path(Code.POLICY_EXPLICIT_DENY, 403)
async def task_opened_by_an_agent(gateway: Running, client: httpx.AsyncClient) -> httpx.Response:
    url = f"{gateway.operators_url}/v1/tasks"
    return await client.post(url, json={"agents": ["agent:support"]}, headers=gateway.headers())


ELSEWHERE = {
    Code.AUDIT_UNAVAILABLE: "promises/test_no_record_no_call.py",
    Code.CONTEXT_INCOMPLETE: "edges/test_gatekeeper.py",
    Code.INTERNAL_ERROR: "edges/test_gatekeeper.py",
    Code.OVERLOAD_SHED: "promises/test_too_much_is_turned_away.py",
    Code.POLICY_INVALID: "edges/test_gatekeeper.py",
    Code.QUESTION_REFUSED: "promises/test_nothing_passes_undecided.py",
    Code.QUOTA_EXCEEDED: "edges/test_mcp_stdio.py",
    Code.AUTHN_INSUFFICIENT: "core/test_decide.py",
    Code.BREAK_GLASS_AVAILABLE: "core/test_decide.py",
    Code.JIT_GRANT_REQUIRED: "core/test_decide.py",
    Code.APPROVAL_UNVERIFIABLE: "core/test_satisfying.py",
    Code.STEP_UP_BINDING_MISMATCH: "core/test_satisfying.py",
    Code.STEP_UP_DENIED: "core/test_satisfying.py",
    Code.STEP_UP_EXPIRED: "core/test_satisfying.py",
    Code.STEP_UP_PENDING: "core/test_satisfying.py",
    Code.JIT_GRANT_EXPIRED: "core/test_satisfying.py",
    Code.JIT_GRANT_PENDING: "core/test_satisfying.py",
    Code.JIT_GRANT_REVOKED: "core/test_satisfying.py",
    Code.JIT_OUT_OF_SCOPE: "core/test_satisfying.py",
    Code.APPROVAL_SELF_APPROVAL: "edges/test_people_decide.py",
    Code.ARGS_NOT_ALLOWED: "edges/test_people_decide.py",
    Code.BREAK_GLASS_REVIEW_OVERDUE: "edges/test_people_decide.py",
    Code.JIT_NOT_ELIGIBLE: "edges/test_people_decide.py",
}
"""Refusals that no request of a test can bring about here: shown where a fake or a rule can."""


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Running]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    async with served(make().streamable_http_app(json_response=True), lifespan=True) as upstream:
        (tmp_path / "typed.json").write_text(json.dumps(TYPED))
        tools = {
            "billing": billing_tool(billing, tmp_path),
            "typed": {"http": {"url": billing.url, "openapi": str(tmp_path / "typed.json")}},
            "up": {"mcp": {"url": f"{upstream}/mcp"}},
        }
        found, _ = await whole(Server(name="up", url=f"{upstream}/mcp"))
        found["seen"]["description"] = "What was accepted is not what it says."
        pins = {"up": list(found.values())}
        async with running(tmp_path, tools, pins=pins, policies=str(tmp_path / "policies")) as made:
            yield made


@pytest.mark.parametrize("one", PATHS, ids=[one.name for one in PATHS])
async def test_a_refusal_leaves_record_span_and_answer(
    gateway: Running, billing: BillingServer, one: PathThatRefuses
) -> None:
    """One record with the code and both notes, one SERVER span, an answer with a way forward; nothing reached the tool."""
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await one.send(gateway, client)
    assert (answer.status_code, answer.headers.get("whygate-reason")) == (one.status, one.code.value), answer.text
    record = gateway.decision(answer)
    assert (record["reason"]["code"], record["effect"]) == (one.code.value, "deny")
    assert record["outcome"] == one.code.outcome.value == answer.headers["whygate-outcome"]
    assert record["reason"]["admin"]
    told = _told(answer)
    assert told["id"] == record["id"]
    assert (told["code"], told["outcome"]) == (one.code.value, record["outcome"])
    # Which argument does not fit may be said beside it: the agent has the schema.
    assert told["note"].partition(" Wrong: ")[0] == one.code.entry.user
    assert Next(told["next"]) is one.code.entry.next
    decision = msgspec.convert(record, records.DecisionRecord)
    servers = [
        span for span in of_decision(decision, Instance(writer="w", host="h", ip="")) if span.kind is Kind.SERVER
    ]
    (server,) = servers
    assert dict(server.attributes)["whygate.reason.code"] == one.code.value
    assert billing.seen == []
    if answer.status_code == 401:
        assert "resource_metadata=" in answer.headers["www-authenticate"]


def _told(answer: httpx.Response) -> dict[str, Any]:
    """The machine-readable part of an answer, wherever its protocol keeps it."""
    body: dict[str, Any] = answer.json()
    if answer.headers["content-type"].startswith("application/problem+json"):
        return body
    if "result" in body:
        assert body["result"]["isError"] is True
        assert body["result"]["content"][0]["text"]
        found: dict[str, Any] = body["result"]["_meta"]["dev.whygate/decision"]
        return found
    error: dict[str, Any] = body["error"]["data"]
    return error.get("dev.whygate/decision", error)


def test_no_path_is_missing_from_the_list() -> None:
    """Every refusing code that the gateway's source names is shown by a path above, or where ELSEWHERE says."""
    named: set[Code] = set()
    for file in SOURCE.rglob("*.py"):
        part = file.relative_to(SOURCE).parts[0]
        if part in ("testing", "cli", "telemetry") or file.name in ("reasons.py", "refusals.py"):
            continue  # they name codes and refuse nothing
        if file == SOURCE / "core" / "policy" / "parse.py":
            continue  # the codes that a deny rule may name: one path for all of them, `*_by_a_deny_rule`
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code":
                named.add(Code[node.attr])
    refusing = {code for code in named if code.entry.outcome is not None and not code.entry.outcome.allows}
    assert refusing - {one.code for one in PATHS} - ELSEWHERE.keys() == set()
    for code, place in ELSEWHERE.items():
        text = (Path(__file__).parents[1] / place).read_text(encoding="utf-8")
        assert code.value in text or f"Code.{code.name}" in text, f"{place} does not show {code}"


def test_every_code_has_what_a_refusal_needs() -> None:
    """Both texts, an outcome, and a way forward, for each refusing code in the vocabulary."""
    for code in Code:
        entry = code.entry
        assert entry.meaning
        assert entry.user
        if entry.outcome is Outcome.CHALLENGED:
            assert entry.next is not Next.NONE, code


async def test_recording_refusals_in_parallel_mixes_nothing_up(gateway: Running) -> None:
    """Fifty refusals at once: each answer's decision is the one about its own call."""
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"{gateway.url}/http/billing/refunds"
        amounts = [900_000 if number % 2 else 90_000 for number in range(50)]
        answers = await asyncio.gather(
            *(client.post(url, json={"amount_cents": amount}, headers=gateway.headers()) for amount in amounts)
        )
    assert len({answer.headers["whygate-decision"] for answer in answers}) == 50
    for amount, answer in zip(amounts, answers, strict=True):
        # The same call asks one person once, however often it is made.
        asked = {"step_up.required", "step_up.pending"}
        assert answer.json()["code"] in ({"args.limit_exceeded"} if amount > 500_000 else asked)
