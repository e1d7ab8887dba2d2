"""In a real Jaeger, the challenge, the person's answer and the retried call read as one story."""

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.servers.gateway import billing_tool, running
from tests.servers.jaeger import Jaeger, Trace, spans
from tests.stepping_up import answer

from whygate.testing.billing import BillingServer

pytestmark = pytest.mark.jaeger
RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: refund
    tools: [billing/refund]
    permit: {require: {human: {approvers: ["group:leads"]}}}
    why: Refunds need a lead.
"""
REFUND = {"invoice_id": "1042", "amount_cents": 5000}


async def test_the_wait_is_a_span_below_the_call_that_asked(
    jaeger: Jaeger, billing: BillingServer, tmp_path: Path
) -> None:
    """From the question to the answer; the call that used it refers to it; and nobody's name is in the trace."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    telemetry = {"otlp": jaeger.otlp_http, "service_name": f"whygate-{tmp_path.name}"}
    tools = {"billing": billing_tool(billing, tmp_path)}
    async with running(tmp_path, tools, telemetry=telemetry, policies=str(tmp_path / "policies")) as gateway:
        task = await gateway.open_task("agent:support")
        headers = gateway.headers() | {"whygate-task": task["id"]}
        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            told = await http.post(f"{gateway.url}/http/billing/refunds", json=REFUND)
            await answer(gateway, note="By Ada, who looked.")
            done = await http.post(f"{gateway.url}/http/billing/refunds", json=REFUND)
    assert (told.status_code, done.status_code) == (403, 201)

    def whole(server: Jaeger) -> Trace | None:
        trace = server.trace(task["trace_id"])
        return trace if trace and len(trace["spans"]) >= 6 else None

    trace = await asyncio.to_thread(jaeger.wait_for, whole)
    found = spans(trace)
    (waited,) = [span for span in found if span["operationName"] == "approval approved"]
    by_decision = {
        span["tags"].get("whygate.decision.id"): span
        for span in found
        if "server" in str(span["tags"].get("span.kind"))
    }
    asked, used = by_decision[told.headers["whygate-decision"]], by_decision[done.headers["whygate-decision"]]
    assert [ref["spanID"] for ref in waited["references"]] == [asked["spanID"]]
    assert waited["spanID"] in [ref["spanID"] for ref in used["references"]]
    assert waited["tags"]["whygate.approval.id"] == told.json()["approval"] == used["tags"]["whygate.approval.id"]
    assert waited["startTime"] >= asked["startTime"]
    assert waited["startTime"] + waited["duration"] <= used["startTime"] + used["duration"]
    assert "ada" not in str(trace).lower()
