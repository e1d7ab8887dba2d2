"""Bad input, of each kind and over both edges: a clear answer with its reason, a record, and nothing at the tool.

Real sockets throughout. What HTTP itself leaves open (framing, trailers, upgrades) is in ``attacks/test_framing.py``.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from joserfc.jwk import ECKey
from tests.servers.gateway import Running, billing_tool, running
from tests.servers.mcp_edge import Canned, call, result, routing
from tests.servers.raw import exchange

from whygate.core.reasons import Code
from whygate.testing.billing import BillingServer
from whygate.testing.serve import served

POLICY = """
policy: all
version: 1
owner: all@example.com
agents: ["role:support-agent"]
rules:
  - {id: all, tools: ["*"], permit: {}, why: This test is not about rules.}
  - {id: deep, tools: ["*"], when: "has(args.deep) && args.deep == 1", deny: {}, why: What a rule reads is bounded.}
"""
DEEP = 100_000
HUGE = 5 * 1024 * 1024
Change = Callable[[Running, dict[str, str]], None]


class Bad(NamedTuple):
    name: str
    code: Code
    status: int
    body: bytes | None = None
    """In place of the valid one."""
    headers: Change = lambda *_: None
    """What to do to the valid headers."""
    path: str = ""
    method: str = "POST"


def _set(**changed: str) -> Change:
    return lambda _, headers: headers.update({name.replace("_", "-"): value for name, value in changed.items()})


def _token(make: Callable[[Running], str]) -> Change:
    return lambda gateway, headers: headers.update(authorization=make(gateway))


def _signed_by_nobody(gateway: Running) -> str:
    """A good token's claims under ``alg: none``, without a signature."""
    claims = gateway.tokens.make().split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"Bearer {head}.{claims}."


def _signed_with_the_public_key(gateway: Running) -> str:
    """The old confusion: HS256 with what everybody can know."""
    claims = gateway.tokens.make().split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"test-1"}').rstrip(b"=").decode()
    public = json.dumps(gateway.tokens.jwks()["keys"][0]).encode()
    digest = hmac.new(public, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"Bearer {head}.{claims}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


UNAUTHENTICATED, MALFORMED = Code.AGENT_UNAUTHENTICATED, Code.REQUEST_MALFORMED
EVERYWHERE = [
    Bad("no token", UNAUTHENTICATED, 401, headers=lambda _, headers: headers.pop("authorization") and None),
    Bad("expired token", Code.AGENT_TOKEN_EXPIRED, 401, headers=_token(lambda g: g.headers(exp=1)["authorization"])),
    Bad("wrong audience", Code.AGENT_TOKEN_AUDIENCE, 401, headers=_token(lambda g: g.headers(aud="x")["authorization"])),
    Bad("alg: none", UNAUTHENTICATED, 401, headers=_token(_signed_by_nobody)),
    Bad("alg: HS256", UNAUTHENTICATED, 401, headers=_token(_signed_with_the_public_key)),
    Bad("another's key", UNAUTHENTICATED, 401, headers=_token(
        lambda g: g.headers(key=ECKey.generate_key("P-256", {"kid": "test-1"}))["authorization"])),
    Bad("no audience", Code.AGENT_TOKEN_AUDIENCE, 401, headers=_token(lambda g: g.headers(aud=None)["authorization"])),
    Bad("no expiry", UNAUTHENTICATED, 401, headers=_token(lambda g: g.headers(exp=None)["authorization"])),
    Bad("unknown issuer", UNAUTHENTICATED, 401, headers=_token(lambda g: g.headers(iss="https://x")["authorization"])),
    Bad("no token's shape", UNAUTHENTICATED, 401, headers=_set(authorization="Bearer a.b")),
    Bad("another scheme", UNAUTHENTICATED, 401, headers=_set(authorization="Basic YTpi")),
    Bad("huge token", UNAUTHENTICATED, 401, headers=_set(authorization="Bearer " + "x" * 20_000)),
    Bad("bad Host", Code.REQUEST_ORIGIN_REFUSED, 403, headers=_set(host="evil.example")),
    Bad("bad Origin", Code.REQUEST_ORIGIN_REFUSED, 403, headers=_set(origin="https://evil.example")),
    Bad("Origin: null", Code.REQUEST_ORIGIN_REFUSED, 403, headers=_set(origin="null")),
    Bad("cut-off JSON", MALFORMED, 400, b'{"a": '),
    Bad("trailing JSON", MALFORMED, 400, b'{"a": 1}{"b": 2}'),
    Bad("NaN", MALFORMED, 400, b'{"a": NaN}'),
    Bad("bytes that are no UTF-8", MALFORMED, 400, b'{"a": "\xff"}'),
    Bad("a byte order mark", MALFORMED, 400, b'\xef\xbb\xbf{"a": 1}'),
    Bad("a lone surrogate", MALFORMED, 400, b'{"a": "\\ud800"}'),
    Bad("an integer beyond 2^53", MALFORMED, 400, b'{"a": 9007199254740993}'),
    Bad("deep body", MALFORMED, 400, b"[" * DEEP + b"]" * DEEP),
    Bad("huge body", Code.REQUEST_TOO_LARGE, 413, b'{"a": "' + b"x" * HUGE + b'"}'),
    Bad("a key twice", Code.REQUEST_DUPLICATE_KEY, 400, b'{"a": 1, "a": 2}'),
    Bad("a key twice, spelt twice", Code.REQUEST_DUPLICATE_KEY, 400, b'{"a": 1, "\\u0061": 2}'),
    Bad("a key twice, but for case", Code.REQUEST_DUPLICATE_KEY, 400, b'{"a": 1, "A": 2}'),
    Bad("plain text", MALFORMED, 400, headers=_set(content_type="text/plain")),
    Bad("XML", MALFORMED, 400, headers=_set(content_type="application/xml")),
    Bad("no type", MALFORMED, 400, headers=lambda _, headers: headers.pop("content-type") and None),
    Bad("another charset", MALFORMED, 400, headers=_set(content_type="application/json; charset=utf-16")),
    Bad("encoded body", MALFORMED, 400, headers=_set(content_encoding="gzip")),
    Bad("method override", Code.REQUEST_PATH_AMBIGUOUS, 400, headers=_set(x_http_method_override="DELETE")),
    Bad("path override", Code.REQUEST_PATH_AMBIGUOUS, 400, headers=_set(x_original_url="/admin")),
]  # fmt: skip
MCP = [
    *EVERYWHERE,
    Bad("form", MALFORMED, 400, headers=_set(content_type="application/x-www-form-urlencoded")),
    Bad("empty body", MALFORMED, 400, b""),
    Bad("batch", Code.REQUEST_BATCH, 400, json.dumps([call()]).encode()),
    Bad("empty batch", Code.REQUEST_BATCH, 400, b"[]"),
    Bad("no JSON-RPC", MALFORMED, 400, b'{"method": "tools/call", "id": 1}'),
    Bad("null id", MALFORMED, 400, b'{"jsonrpc": "2.0", "id": null, "method": "tools/call", "params": {"name": "echo"}}'),
    Bad("call without id", MALFORMED, 400, b'{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo"}}'),
    Bad("no tool named", MALFORMED, 400, b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}'),
    Bad("arguments are a list", MALFORMED, 400, json.dumps(call(args=[1], modern=False)).encode()),
    Bad("unknown tool", Code.TOOL_UNKNOWN, 200, json.dumps(call("no such\ttool", modern=False)).encode()),
    Bad("deep arguments", Code.ARGS_TOO_LARGE, 200, json.dumps(call(args={"deep": [[[[[[[[[1]]]]]]]]]}, modern=False)).encode()),
    Bad("unknown server", Code.REQUEST_SERVER_UNKNOWN, 404, path="/mcp/nothing"),
    Bad("a path below", Code.REQUEST_SERVER_UNKNOWN, 404, path="/mcp/up/x"),
    Bad("ambiguous path", Code.REQUEST_SERVER_UNKNOWN, 404, path="/mcp/x%2f..%2fup"),
    Bad("unknown HTTP method", Code.REQUEST_METHOD_UNKNOWN, 405, method="PUT"),
    Bad("another tool in the header", Code.REQUEST_HEADER_MISMATCH, 400, headers=_set(mcp_name="other")),
    Bad("another method in the header", Code.REQUEST_HEADER_MISMATCH, 400, headers=_set(mcp_method="tools/list")),
    Bad("another revision in the header", Code.REQUEST_HEADER_MISMATCH, 400,
        json.dumps(call()).encode(), _set(**routing() | {"mcp-protocol-version": "2025-11-25"})),
    Bad("no routing headers", Code.REQUEST_HEADER_MISMATCH, 400, json.dumps(call()).encode()),
]  # fmt: skip
HTTP = [
    *EVERYWHERE,
    Bad("form with a field twice", Code.REQUEST_DUPLICATE_KEY, 400, b"a=1&a=2",
        _set(content_type="application/x-www-form-urlencoded")),
    Bad("form with a method in it", Code.REQUEST_PATH_AMBIGUOUS, 400, b"_method=DELETE",
        _set(content_type="application/x-www-form-urlencoded")),
    Bad("multipart", MALFORMED, 400, headers=_set(content_type="multipart/form-data; boundary=x")),
    Bad("deep arguments", Code.ARGS_TOO_LARGE, 413, b'{"deep": [[[[[[[[[1]]]]]]]]]}'),
    Bad("unknown tool", Code.REQUEST_SERVER_UNKNOWN, 404, path="/http/nothing/refunds"),
    Bad("unknown operation", Code.TOOL_UNKNOWN, 404, path="/http/billing/payments"),
    Bad("unknown address", Code.REQUEST_SERVER_UNKNOWN, 404, path="/admin"),
    Bad("OPTIONS", Code.REQUEST_METHOD_UNKNOWN, 405, method="OPTIONS"),
    Bad("TRACE", Code.REQUEST_METHOD_UNKNOWN, 405, method="TRACE"),
    Bad("PROPFIND", Code.REQUEST_METHOD_UNKNOWN, 405, method="PROPFIND"),
    Bad("a method of somebody's own", MALFORMED, 400, method="REFUND"),
    Bad("an argument from two places", Code.REQUEST_DUPLICATE_KEY, 400, path="/http/billing/refunds?amount_cents=2"),
    Bad("a query field twice", Code.REQUEST_DUPLICATE_KEY, 400, path="/http/billing/refunds?x=1&x=2"),
    Bad("a query with a semicolon", MALFORMED, 400, path="/http/billing/refunds?x=1;y=2"),
]  # fmt: skip
PATHS = (
    "1%2f2", "1%2F2", "..%2frefunds", "%2e%2e", "%2e", "%2E%2e/refunds", "1%252f2", "%252e%252e", "1;a=b", "1%3b", "1%5c2",
    "1\\2", "1//2", "1%00", "1%0a", "1%", "1%zz", "%c0%af", "%ff", "1042.json;x", "..;/refunds", "1%23x", "1/", "/1", "./1",
)  # fmt: skip
"""Each behind ``/http/billing/invoices/``; sent as it stands, since a client would tidy it up."""
NAMES = {
    "1%3b": Code.ROLE_PERMITTED,  # an encoded semicolon or number sign is a letter like any other
    "1%23x": Code.ROLE_PERMITTED,
}


@pytest.fixture
def upstream() -> Canned:
    return Canned()


@pytest.fixture
async def gateway(tmp_path: Path, billing: BillingServer, upstream: Canned) -> AsyncIterator[Running]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "all.yaml").write_text(POLICY, encoding="utf-8")
    upstream.answer = lambda seen: result(json.loads(seen.body)["id"])
    async with served(upstream) as url:
        tools = {"billing": billing_tool(billing, tmp_path), "up": {"mcp": {"url": url}}}
        async with running(tmp_path, tools, policies=str(policies), pins={"up": [{"name": "echo"}]}) as made:
            yield made


async def _wrong(gateway: Running, client: httpx.AsyncClient, bad: Bad, path: str, body: bytes) -> list[str]:
    """What is not as it should be in the answer to ``bad``, and in its record."""
    headers = gateway.headers() | {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    bad.headers(gateway, headers)
    content = body if bad.body is None else bad.body
    answer = await client.request(bad.method, gateway.url + (bad.path or path), content=content, headers=headers)
    got = (answer.status_code, answer.headers.get("whygate-reason"))
    if got != (bad.status, bad.code.value):
        return [f"{bad.name}: {got}, not {(bad.status, bad.code.value)}"]
    wrong = []
    record = gateway.decision(answer)
    if record["reason"]["code"] != bad.code.value or not record["reason"]["admin"]:
        wrong.append(f"{bad.name}: recorded as {record['reason']}")
    if bad.code.entry.user not in answer.text or bad.code.entry.next.value not in answer.text:
        wrong.append(f"{bad.name}: not told what to do: {answer.text}")
    return wrong


async def test_over_mcp(gateway: Running, upstream: Canned) -> None:
    """The valid call passes; each bad one is refused with its own reason, recorded, and never sent on."""
    valid = json.dumps(call(modern=False)).encode()
    wrong: list[str] = []
    async with httpx.AsyncClient(timeout=20) as client:
        fine = Bad("valid", Code.ROLE_PERMITTED, 200)
        await _wrong(gateway, client, fine, "/mcp/up", valid)
        assert len(upstream.seen) == 1
        for bad in MCP:
            wrong += await _wrong(gateway, client, bad, "/mcp/up", valid)
    assert "\n".join(wrong) == ""
    assert len(upstream.seen) == 1


async def test_over_plain_http(gateway: Running, billing: BillingServer) -> None:
    """The same for plain HTTP."""
    valid = b'{"amount_cents": 1}'
    wrong: list[str] = []
    async with httpx.AsyncClient(timeout=20) as client:
        fine = Bad("valid", Code.ROLE_PERMITTED, 201)
        await _wrong(gateway, client, fine, "/http/billing/refunds", valid)
        for bad in HTTP:
            wrong += await _wrong(gateway, client, bad, "/http/billing/refunds", valid)
    assert "\n".join(wrong) == ""
    assert len(billing.seen) == 1


async def test_paths_that_two_servers_would_read_differently(gateway: Running, billing: BillingServer) -> None:
    """Raw on the wire, since clients normalise: refused, and not normalised; and nothing of it reaches the tool."""
    wrong = []
    (credential,) = gateway.headers().values()
    for path in PATHS:
        head = (
            f"GET /http/billing/invoices/{path} HTTP/1.1\r\nhost: {gateway.url[7:]}\r\nauthorization: {credential}\r\n"
        )
        answers = await exchange(gateway.url, head.encode("latin-1") + b"connection: close\r\n\r\n")
        if path in NAMES:
            assert len(answers) == 1
            assert answers[0].headers["whygate-reason"] == NAMES[path].value
            continue
        if not answers:
            wrong.append(f"{path}: no answer")
        for answer in answers:
            code = answer.headers.get("whygate-reason")
            if answer.status not in (400, 404) or code not in ("request.path_ambiguous", None):
                wrong.append(f"{path}: {answer.status} {code}")
    assert "\n".join(wrong) == ""
    assert [one["path"] for one in billing.seen] == [f"/invoices/{path}" for path in PATHS if path in NAMES]
