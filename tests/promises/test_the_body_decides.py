"""The body decides, headers are only checked: what a tool gets is what was evaluated, read by whomever.

``tests/fuzz`` shows the same for a million bent requests; here it is shown for the ones that somebody would write on purpose,
over real sockets and both edges.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
from tests.fuzz import readers
from tests.servers.gateway import Running, running
from tests.servers.mcp_edge import Canned, call, result, routing

from whygate.testing.serve import served

POLICY: Final = """
policy: body
version: 1
owner: body@example.com
agents: ["role:support-agent"]
rules:
  - {id: fine, tools: ["up/fine", "plain/order"], when: "!has(args.amount) || args.amount <= 10", permit: {}, why: Small ones.}
  - {id: never, tools: ["up/danger"], deny: {}, why: Nobody does that.}
"""
ODD: Final = b'{ "amount" :1,\n\t"note":"\\u00fc \xc3\xbc \\ud83d\\ude00","exact":1.10,"big":9007199254740991,"e":1E+2,"nested":{"b":1,"a":2}}'
"""Spacing, escapes, number forms and the order of keys: nothing of it is anybody's to change."""


class Both(NamedTuple):
    gateway: Running
    up: Canned
    plain: Canned


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "body.yaml").write_text(POLICY, encoding="utf-8")
    up, plain = Canned(), Canned()
    up.answer = lambda seen: result(json.loads(seen.body)["id"])
    plain.answer = lambda _: b"{}"
    async with served(up) as up_url, served(plain) as plain_url:
        operations = [{"name": "order", "method": "POST", "path": "/orders/{shop}", "class": "spend"}]
        tools = {
            "up": {"mcp": {"url": up_url}},
            "plain": {"http": {"url": plain_url}, "operations": operations},
        }
        async with running(
            tmp_path, tools, policies=str(policies), pins={"up": [{"name": "fine"}, {"name": "danger"}]}
        ) as gateway:
            yield Both(gateway, up, plain)


async def _mcp(both: Both, body: bytes, **headers: str) -> httpx.Response:
    sent = both.gateway.headers() | {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient() as client:
        return await client.post(f"{both.gateway.url}/mcp/up", content=body, headers=sent)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    ("named", "headers"),
    [
        ("danger", {"mcp-name": "fine"}),
        ("fine", {"mcp-name": "danger"}),
        ("danger", {"mcp-method": "ping", "mcp-name": "danger"}),
        ("danger", {"mcp-method": "tools/list", "mcp-name": "danger"}),
        ("danger", {"mcp-name": "=?base64?ZmluZQ==?="}),
    ],
)
async def test_headers_that_say_something_else_open_no_door(
    both: Both, named: str, headers: dict[str, str], *, modern: bool
) -> None:
    """In the legacy era, where they are not required, as in the modern: a header that disagrees is a refusal of its own."""
    base = routing(name=named) if modern else {}
    answer = await _mcp(both, json.dumps(call(named, modern=modern)).encode(), **base | headers)
    assert answer.headers["whygate-reason"] == "request.header_mismatch"
    assert both.gateway.decision(answer)["effect"] == "deny"
    assert both.up.seen == []


async def test_without_headers_the_body_alone_decides(both: Both) -> None:
    """A denied tool is denied, whether or not anybody routes by headers."""
    answer = await _mcp(both, json.dumps(call("danger", modern=False)).encode())
    assert answer.headers["whygate-reason"] == "policy.explicit_deny"
    assert both.up.seen == []


async def test_an_mcp_tool_gets_the_arguments_that_were_evaluated(both: Both) -> None:
    """The same bytes, for whoever takes the last of two keys, the first, or does not look at case."""
    body = b'{"jsonrpc":"2.0","id":"\\u0061","method":"tools/call","params":{"arguments":' + ODD + b',"name":"fine"}}'
    answer = await _mcp(both, body)
    assert answer.headers["whygate-outcome"] == "permitted", answer.text
    (seen,) = both.up.seen
    assert ODD in seen.body
    for name, reader, fold in readers.READERS:
        read = reader(seen.body)
        assert (read["method"], read["params"]["name"]) == ("tools/call", "fine"), name
        assert readers.same(read["params"]["arguments"], fold(json.loads(ODD))), name


async def test_a_plain_tool_gets_path_query_and_body_as_they_came(both: Both) -> None:
    """Byte for byte, percent-encoding and all."""
    target = "/http/plain/orders/caf%C3%A9%20x?q=a%2Bb+c&%C3%A9=1&empty="
    headers = both.gateway.headers() | {"content-type": "application/json"}
    async with httpx.AsyncClient() as client:
        request = client.build_request("POST", both.gateway.url, content=ODD, headers=headers)
        request.url = request.url.copy_with(raw_path=target.encode())
        answer = await client.send(request)
    assert answer.headers["whygate-outcome"] == "permitted", answer.text
    (seen,) = both.plain.seen
    assert seen.body == ODD
    assert seen.target == target.removeprefix("/http/plain").encode()


@pytest.mark.parametrize(
    "more",
    [
        {"x-http-method-override": "DELETE"},
        {"x-original-url": "/orders/other"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "identity, gzip"},
    ],
)
async def test_a_plain_tool_never_gets_a_header_that_changes_what_was_evaluated(
    both: Both, more: dict[str, Any]
) -> None:
    """Refused, not dropped: whoever sends it means something by it."""
    headers = both.gateway.headers() | {"content-type": "application/json"} | more
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{both.gateway.url}/http/plain/orders/a", content=b'{"amount": 1}', headers=headers)
    assert answer.status_code == 400
    assert both.gateway.decision(answer)["reason"]["code"].startswith("request.")
    assert both.plain.seen == []
