"""Requests that the gateway reads one way and the upstream might read another: each of them is refused, and recorded."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running
from tests.servers.mcp_edge import Canned, call, result, routing

from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable, loads
from whygate.http.routes import Route, Router
from whygate.testing.billing import BillingServer
from whygate.testing.serve import served

POLICY = """
policy: attacks
version: 1
owner: attacks@example.com
agents: ["role:support-agent"]
mode: enforce
rules:
  - id: everything
    tools: ["up/*", "billing/*"]
    permit: {}
    why: Everything but one thing.
  - id: not-that
    tools: ["up/danger"]
    deny: {}
    why: Nobody does that.
"""
PINNED = [{"name": name} for name in ("fine", "echo", "danger", "x")]


@pytest.fixture
def upstream() -> Canned:
    return Canned()


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, upstream: Canned) -> AsyncIterator[Running]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "attacks.yaml").write_text(POLICY, encoding="utf-8")
    upstream.answer = lambda seen: result(json.loads(seen.body)["id"]) if seen.body else b"{}"
    async with served(upstream) as url:
        tools = {"billing": billing_tool(billing, tmp_path), "up": {"mcp": {"url": url}}}
        async with running(tmp_path, tools, policies=str(policies), pins={"up": PINNED}) as made:
            yield made


async def _mcp(gateway: Running, body: bytes, method: str = "POST", **headers: str) -> httpx.Response:
    sent = gateway.headers() | {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"{gateway.url}/mcp/up", content=body, headers=sent)


def _refused(gateway: Running, answer: httpx.Response, code: Code) -> None:
    assert answer.headers.get("whygate-reason") == code.value, answer.text
    assert gateway.decision(answer)["reason"]["code"] == code.value


DANGER = '"params":{"name":"danger"}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call",' + DANGER + "}", Code.REQUEST_DUPLICATE_KEY),
        ('{"jsonrpc":"2.0","id":1,"result":{},"Method":"tools/call",' + DANGER + "}", Code.REQUEST_MALFORMED),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","Params":{"name":"danger"}}', Code.REQUEST_MALFORMED),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fine","NAME":"danger"}}',
            Code.REQUEST_DUPLICATE_KEY,
        ),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fine","Arguments":{"a":1}}}',
            Code.REQUEST_MALFORMED,
        ),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fine","argument\u017f":{"a":1}}}',
            Code.REQUEST_MALFORMED,
        ),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"to":"a","TO":"b"}}}',
            Code.REQUEST_DUPLICATE_KEY,
        ),
        (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fine","n\\u0061me":"danger"}}',
            Code.REQUEST_DUPLICATE_KEY,
        ),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/call ",' + DANGER + "}", Code.REQUEST_MALFORMED),
        ('{"jsonrpc":"2.0","id":1,"method":"Tools/Call",' + DANGER + "}", Code.REQUEST_MALFORMED),
    ],
)
async def test_members_that_others_would_match_without_regard_to_case(
    gateway: Running, upstream: Canned, body: str, code: Code
) -> None:
    """A server that takes ``Method`` for ``method`` (Go's encoding/json does) never gets what was not decided."""
    _refused(gateway, await _mcp(gateway, body.encode()), code)
    assert upstream.seen == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_where_none_belongs_is_not_passed_on(gateway: Running, upstream: Canned, method: str) -> None:
    """What a GET carries is decided by nobody; a server that looks at the body alone would act on it."""
    body = json.dumps(call("danger", modern=False)).encode()
    _refused(gateway, await _mcp(gateway, body, method), Code.REQUEST_MALFORMED)
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_http_method_override": "DELETE"}, Code.REQUEST_PATH_AMBIGUOUS),
        ({"x_original_url": "/admin"}, Code.REQUEST_PATH_AMBIGUOUS),
        ({"content_encoding": "deflate"}, Code.REQUEST_MALFORMED),
        ({"content_type": "application/json; charset=utf-7"}, Code.REQUEST_MALFORMED),
    ],
)
async def test_headers_that_give_a_message_a_second_reading(
    gateway: Running, upstream: Canned, headers: dict[str, str], code: Code
) -> None:
    """A polyglot body, or a header that replaces the path, would make another call of the one that was decided."""
    body = json.dumps(call("fine", modern=False)).encode()
    _refused(gateway, await _mcp(gateway, body, **headers), code)
    assert upstream.seen == []


async def test_a_tools_name_that_ends_in_a_line_break_is_no_tools_name(gateway: Running, upstream: Canned) -> None:
    """``danger`` with a line break is neither the tool that a deny names nor one that a glob permits."""
    answer = await _mcp(gateway, json.dumps(call("danger\n", modern=False)).encode())
    _refused(gateway, answer, Code.TOOL_UNKNOWN)
    labels: dict[str, Any] = {"dev.whygate/workflow": "wf\n", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01\n"}
    answer = await _mcp(gateway, json.dumps(call("fine", **labels)).encode(), **routing(name="fine"))
    context = gateway.decision(answer)["context"]
    assert "claimed" not in context
    assert "link" not in context


@pytest.mark.parametrize(
    "headers",
    [
        [("content-type", "application/json"), ("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "application/json"), ("content_type", "application/x-www-form-urlencoded")],
        [("content-type", "application/json; charset=utf-16")],
        [("content-type", "application/json"), ("content-encoding", "x-own")],
    ],
)
async def test_a_body_of_two_types(gateway: Running, billing: BillingServer, headers: list[tuple[str, str]]) -> None:
    """A body that is JSON to us and a form to the tool could hold two amounts."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        answer = await client.post(f"{gateway.url}/http/billing/refunds", content=b'{"a":"&b=1&"}', headers=headers)
    _refused(gateway, answer, Code.REQUEST_MALFORMED)
    assert billing.seen == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("amount=1;amount=9", "request.malformed"),
        ("amount=1&Amount=9", "request.duplicate_key"),
        ("amount=1&amount[]=9", "request.duplicate_key"),
        ("a.b=1&a_b=9", "request.duplicate_key"),
        ("_method=DELETE", "request.path_ambiguous"),
    ],
)
async def test_fields_that_frameworks_read_differently(
    gateway: Running, billing: BillingServer, query: str, code: str
) -> None:
    """``;`` as a separator, names without regard to case, PHP's brackets and dots, and a method in a field."""
    async with httpx.AsyncClient(headers=gateway.headers()) as client:
        asked = await client.get(f"{gateway.url}/http/billing/invoices/1042?{query}")
        sent = await client.post(
            f"{gateway.url}/http/billing/refunds",
            content=query,
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
    assert (asked.json()["code"], sent.json()["code"]) == (code, code)
    assert billing.seen == []


@pytest.mark.parametrize("path", [b"/customers/EXPORT", b"/customers/export.json", b"/customers/export%20"])
def test_a_path_that_almost_is_another_operation(path: bytes) -> None:
    """Many routers ignore case, endings or trailing blanks: what nearly names an operation can't pass for a parameter."""
    routes = [("one", "/customers/{id}"), ("export", "/customers/export")]
    router = Router(tuple(Route(name=name, method="GET", template=template) for name, template in routes))
    with pytest.raises(Unreadable) as refused:
        router.match("GET", path)
    assert refused.value.code is Code.REQUEST_PATH_AMBIGUOUS
    found = router.match("GET", b"/customers/exporters")
    assert found is not None
    assert found[0].name == "one"


def test_two_operations_whose_paths_are_alike_can_both_be_called() -> None:
    """Versions such as ``v1.0`` and ``v1.1`` are told apart where both are operations."""
    router = Router(tuple(Route(name=name, method="GET", template=f"/{name}/x") for name in ("v1.0", "v1.1")))
    assert [found[0].name for name in ("v1.0", "v1.1") if (found := router.match("GET", f"/{name}/x".encode()))] == [
        "v1.0",
        "v1.1",
    ]


async def test_headers_by_which_a_caller_would_speak_for_a_proxy(gateway: Running, billing: BillingServer) -> None:
    """The tool learns from us alone who calls; an underscore does not get a credential past the injected one, and
    ``connection`` does not take the body's type away.
    """
    sent = gateway.headers() | {
        "X_Api_Key": "mine",
        "x_forwarded_for": "10.0.0.1",
        "x-forwarded-user": "root",
        "cf-access-jwt-assertion": "x",
        "authorization_": "kept",
        "connection": "content-type, x-hop",
        "x-hop": "1",
        "api_version": "7",
    }
    async with httpx.AsyncClient(headers=sent) as client:
        answer = await client.post(f"{gateway.url}/http/billing/refunds", json={"amount_cents": 1})
    assert answer.status_code == 201
    got = billing.seen[0]["headers"]
    assert not {"x_api_key", "x_forwarded_for", "x-forwarded-user", "cf-access-jwt-assertion", "x-hop"} & got.keys()
    assert got["content-type"] == "application/json"
    assert got["api_version"] == "7"


@pytest.mark.parametrize("depth", range(900, 1010, 5))
def test_depth_is_refused_and_never_raises(depth: int) -> None:
    """However deep a body is nested, with surrogates in it or without: read, or refused."""
    for before in (b'"a",', b'"\\ud83d\\ude00",'):
        with contextlib.suppress(Unreadable):
            loads(b"[" + before + b"[" * depth + b"]" * depth + b"]")
