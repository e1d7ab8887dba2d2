"""A whole task in a real Jaeger: one trace, the tree right, outcomes and codes readable and findable."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.servers.gateway import example_tools, make_repository, run_example, running
from tests.servers.jaeger import Jaeger, Trace, spans

from whygate.testing.billing import BillingServer

pytestmark = pytest.mark.jaeger


async def test_a_task_is_one_trace_and_its_refusals_are_found_by_code(
    jaeger: Jaeger, billing: BillingServer, tmp_path: Path
) -> None:
    """The agent's fourteen calls under the task's root; what was refused says so in the timeline and by tag."""
    repository = make_repository(tmp_path / "repository")
    telemetry = {"otlp": jaeger.otlp_http, "service_name": f"whygate-{tmp_path.name}"}
    since_us = time.time_ns() // 1000
    async with running(tmp_path, example_tools(tmp_path, billing, repository), telemetry=telemetry) as gateway:
        task = await gateway.open_task("agent:support", workflow="refund-claim")
        code, output = await run_example(
            "support_agent.py",
            WHYGATE_URL=gateway.url,
            WHYGATE_TOKEN=gateway.tokens.make("ada@example.com", act={"sub": "agent:support"}),
            WHYGATE_TASK=task["id"],
            TRACEPARENT=task["traceparent"],
            DEMO_REPOSITORY=str(repository),
        )
        assert code == 0, output
    # The gateway has stopped, and with it the projector, which sent what was left.
    records = {one["context"]["span_id"]: one for one in gateway.decisions()}

    def whole(server: Jaeger) -> Trace | None:
        trace = server.trace(task["trace_id"])
        return trace if trace and len(trace["spans"]) >= 2 * len(records) + 1 else None

    trace = await asyncio.to_thread(jaeger.wait_for, whole)
    found = spans(trace)
    by_id = {span["spanID"]: span for span in found}
    parents = {span["spanID"]: next((ref["spanID"] for ref in span["references"]), "") for span in found}
    (root,) = [span for span in found if not parents[span["spanID"]]]
    assert root["operationName"] == "invoke_workflow refund-claim"
    servers = {key: span for key, span in by_id.items() if key in records}
    assert len(servers) == len(records)
    for key, span in servers.items():
        record = records[key]
        assert parents[key] == root["spanID"]
        assert span["tags"]["whygate.reason.code"] == record["reason"]["code"]
        assert span["tags"]["whygate.outcome"] == record["outcome"]
        assert span["tags"]["whygate.decision.id"] == record["id"]
        children = sorted(by_id[child]["operationName"] for child, parent in parents.items() if parent == key)
        refused = record["effect"] == "deny"
        if refused:
            assert children == [f"authorize {record['outcome']} {record['reason']['code']}"]
        else:
            assert children == [span["operationName"]]  # the CLIENT span of what was forwarded
    assert not trace.get("warnings")
    assert not [span["warnings"] for span in found if span.get("warnings")]
    service = telemetry["service_name"]
    until_us = time.time_ns() // 1000
    for code_, hits in (("args.limit_exceeded", 1), ("step_up.required", 1), ("break_glass.invoked", 0)):
        found_traces = jaeger.traces(service, tags={"whygate.reason.code": code_}, start=since_us, end=until_us)
        assert [one["traceID"] for one in found_traces] == [task["trace_id"]] * hits
    told = await asyncio.to_thread(_whygate, "task", task["id"], "--ledger", str(gateway.ledger))
    assert [(call["id"], call["code"]) for call in told["calls"]] == [
        (record["id"], record["reason"]["code"]) for record in records.values()
    ]
    (refused,) = [record for record in records.values() if record["reason"]["code"] == "args.limit_exceeded"]
    why = await asyncio.to_thread(_whygate, "why", refused["id"], "--ledger", str(gateway.ledger))
    assert task["trace_id"] in json.dumps(why)
    assert refused["reason"]["admin"] in json.dumps(why)


def _whygate(*words: str) -> dict[str, Any]:
    """What the command line tells of the same ledger."""
    ran = subprocess.run([sys.executable, "-m", "whygate", *words, "--json"], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
