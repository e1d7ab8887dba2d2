"""A client can't choose its trace, its labels, or another's task: by no header and no ``_meta`` key, over neither edge.

What it says of them is kept as its word (``claimed``, ``link``) or dropped; it decides nothing, and reaches no tool as ours.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
from tests.servers.gateway import Running, billing_tool, running, settings
from tests.servers.mcp_edge import Canned, call, result, routing

from whygate.testing.billing import BillingServer
from whygate.testing.serve import served

POLICY: Final = """
policy: all
version: 1
owner: all@example.com
agents: ["role:support-agent", "role:researcher"]
rules:
  - {id: all, tools: ["*"], permit: {}, why: This test is not about rules.}
"""
FOREIGN: Final = "ab" * 16
PARENT: Final = f"00-{FOREIGN}-{'cd' * 8}-01"
WISH: Final = "a-wish-of-the-client"
HEADERS: Final[dict[str, dict[str, str]]] = {
    "traceparent": {"traceparent": PARENT},
    "traceparent, not sampled": {"traceparent": PARENT[:-2] + "00"},
    "tracestate": {"traceparent": PARENT, "tracestate": f"vendor={WISH}"},
    "baggage": {"baggage": f"whygate.task={WISH},workflow={WISH}"},
    "b3": {"b3": f"{FOREIGN}-{'cd' * 8}-1"},
    "x-b3": {"x-b3-traceid": FOREIGN, "x-b3-spanid": "cd" * 8, "x-b3-sampled": "0"},
    "uber-trace-id": {"uber-trace-id": f"{FOREIGN}:{'cd' * 8}:0:1"},
    "workflow": {"whygate-workflow": WISH},
    "incident": {"whygate-incident": WISH},
    "decision": {"whygate-decision": WISH, "whygate-outcome": "permitted"},
    "labels": {"whygate-labels": WISH, "whygate-chain": WISH, "whygate-principal": "ada@example.com"},
    "identity": {"x-forwarded-user": WISH, "remote-user": WISH},
    "other tracers": {"x-amzn-trace-id": f"Root=1-{FOREIGN}", "x-datadog-trace-id": FOREIGN, "sentry-trace": FOREIGN},
}
META: Final[dict[str, dict[str, Any]]] = {
    "traceparent": {"traceparent": PARENT},
    "tracestate": {"traceparent": PARENT, "tracestate": f"vendor={WISH}"},
    "baggage": {"baggage": f"workflow={WISH}"},
    "in another case": {"TraceParent": PARENT, "TRACESTATE": WISH, " baggage": WISH, "Dev.Whygate/Task": WISH},
    "workflow": {"dev.whygate/workflow": WISH},
    "incident": {"dev.whygate/incident": WISH},
    "labels": {"dev.whygate/labels": [WISH], "dev.whygate/chain": {"labels": []}},
    "decision": {"dev.whygate/decision": {"code": "role.permitted", "outcome": "permitted"}},
    "of another type": {"traceparent": [PARENT], "dev.whygate/workflow": {"a": WISH}, "dev.whygate/task": ""},
}


class Both(NamedTuple):
    gateway: Running
    billing: BillingServer
    upstream: Canned


@pytest.fixture
async def both(tmp_path: Path, billing: BillingServer) -> AsyncIterator[Both]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "all.yaml").write_text(POLICY, encoding="utf-8")
    upstream = Canned()
    upstream.answer = lambda seen: result(json.loads(seen.body)["id"])
    async with served(upstream) as url:
        tools = {"billing": billing_tool(billing, tmp_path), "up": {"mcp": {"url": url}}}
        async with running(tmp_path, tools, policies=str(policies), pins={"up": [{"name": "echo"}]}) as gateway:
            yield Both(gateway, billing, upstream)


async def _http(both: Both, agent: str = "agent:support", **more: str) -> httpx.Response:
    headers = both.gateway.headers(agent) | more
    async with httpx.AsyncClient() as client:
        return await client.get(f"{both.gateway.url}/http/billing/invoices/1042", headers=headers)


async def _mcp(both: Both, meta: dict[str, Any], agent: str = "agent:support", **more: str) -> httpx.Response:
    headers = both.gateway.headers(agent) | {"accept": "application/json, text/event-stream"} | routing() | more
    async with httpx.AsyncClient() as client:
        return await client.post(f"{both.gateway.url}/mcp/up", json=call(**meta), headers=headers)


def _unmoved(both: Both, answer: httpx.Response) -> None:
    """The call passed in a task of its own, whose trace and labels nobody chose; the tool heard nothing of the wish."""
    record = both.gateway.decision(answer)
    assert record["outcome"] == "permitted"
    context = record["context"]
    assert context["trace_id"] != FOREIGN
    assert context.get("parent", "") != "cd" * 8
    assert WISH not in (context.get("workflow"), context.get("incident"), context["task"])
    assert record["subject"]["id"] == "agent:support"
    (task,) = {one["task"]["id"] for one in both.gateway.records() if one["kind"] == "task"}
    assert context["task"] == task
    told = [str(one["headers"]) for one in both.billing.seen]
    told += [str(seen.headers) + seen.body.decode() for seen in both.upstream.seen]
    (heard,) = told
    for never in (WISH, "tracestate", "baggage", "dev.whygate/", "whygate-"):
        assert never not in heard.lower(), never
    assert context["trace_id"] in heard
    assert FOREIGN not in heard


@pytest.mark.parametrize("name", HEADERS)
async def test_by_header_over_plain_http(both: Both, name: str) -> None:
    """A header is the caller's word, and nothing more."""
    _unmoved(both, await _http(both, **HEADERS[name]))


@pytest.mark.parametrize("name", HEADERS)
async def test_by_header_over_mcp(both: Both, name: str) -> None:
    """The same over MCP."""
    _unmoved(both, await _mcp(both, {}, **HEADERS[name]))


@pytest.mark.parametrize("name", META)
async def test_by_meta_over_mcp(both: Both, name: str) -> None:
    """Nor by what stands beside the arguments."""
    _unmoved(both, await _mcp(both, META[name]))


async def test_anothers_task_is_out_of_reach_whatever_names_it(both: Both) -> None:
    """By header, by ``_meta``, by its trace, by its session: refused as one that does not exist, or overlooked."""
    task = await both.gateway.open_task("agent:researcher", workflow="theirs")
    session = {"mcp-session-id": "theirs"}
    theirs = await _mcp(both, {}, agent="agent:researcher", **session)
    there = both.gateway.decision(theirs)["context"]["task"]
    named = [
        await _http(both, **{"whygate-task": task["id"]}),
        await _mcp(both, {"dev.whygate/task": task["id"]}),
        await _mcp(both, {}, **{"whygate-task": there}),
        await _http(both, **{"whygate-task": "01a20a2d-d0d2-7e10-837b-961b8a86a016"}),
    ]
    told = {(answer.headers["whygate-reason"], answer.json().get("detail")) for answer in (named[0], named[3])}
    assert len(told) == 1, "one can tell a task that is another's from one that is not"
    for answer in named:
        assert both.gateway.decision(answer)["reason"]["code"] == "task.not_usable"
    overlooked = [
        await _http(both, traceparent=task["traceparent"]),
        await _mcp(both, {"traceparent": task["traceparent"]}),
        await _mcp(both, {}, **session),
    ]
    for answer in overlooked:
        context = both.gateway.decision(answer)["context"]
        assert context["task"] not in (task["id"], there)
        assert context["trace_id"] != task["trace_id"]
        assert context.get("workflow", "") == ""
    assert len(both.billing.seen) == 1
    assert len(both.upstream.seen) == 3


async def test_who_is_trusted_with_its_trace_keeps_it_and_nothing_else(tmp_path: Path, billing: BillingServer) -> None:
    """``adopt_trace`` is the operator's word for one principal: the trace is its own, labels and others' traces are not."""
    identities = settings(tmp_path, {})["identities"]
    identities["agents"][0]["adopt_trace"] = True
    async with running(tmp_path, {"billing": billing_tool(billing, tmp_path)}, identities=identities) as gateway:
        both = Both(gateway, billing, Canned())
        theirs = await gateway.open_task("agent:researcher")
        own = await _http(both, traceparent=PARENT, **{"whygate-workflow": WISH})
        taken = await _http(both, traceparent=theirs["traceparent"], **{"mcp-session-id": "second"})
        context, other = (gateway.decision(answer)["context"] for answer in (own, taken))
    assert context["trace_id"] == FOREIGN
    assert context.get("workflow", "") == ""
    assert other["trace_id"] != theirs["trace_id"]
