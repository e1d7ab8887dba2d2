"""The story of a task in a real Jaeger: found, readable, and the same however often it is sent."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers import otlp_sink
from tests.servers.jaeger import Jaeger, Trace, spans
from tests.telemetry_records import Shelf, completion, decision, story, task, trace_of, uuid

from whygate.core import ids
from whygate.core.reasons import Code
from whygate.projector_main import headers
from whygate.stores.sqlite import SqliteLedger
from whygate.telemetry import status
from whygate.telemetry.otlp import Collector, Encoder, Fate
from whygate.telemetry.projector import Projector, Round

STORY, FOUND, MISSED, AGAIN = 10_000, 12_000, 14_000, 16_000
"""Where each test's ids begin: a trace of its own, in the one Jaeger that all tests share."""

Export = Callable[[str, int], None]


def trace_id(base: int) -> str:
    return trace_of(uuid(base + 1))


@pytest.fixture
def export(jaeger: Jaeger, tmp_path: Path) -> Iterator[Export]:
    """Projects the story under a service name, each time as a projector that remembers nothing."""
    collector = Collector(jaeger.otlp_http)

    def run(service: str, base: int) -> None:
        status.cursor_path(tmp_path / "ledger").unlink(missing_ok=True)
        it = Projector(Shelf(story(base)), collector, Encoder(service), tmp_path / "ledger")
        while it.step() is Round.MOVED:
            pass

    yield run
    collector.close()


def tree(trace: Trace) -> list[str]:
    """One line for each span, indented by depth, in order of start."""
    found = spans(trace)
    parents = {
        span["spanID"]: reference["spanID"]
        for span in found
        for reference in span["references"]
        if reference["refType"] == "CHILD_OF"
    }

    def depth(span_id: str) -> int:
        return 0 if span_id not in parents else 1 + depth(parents[span_id])

    lines = []

    def walk(span: dict[str, object]) -> None:
        lines.append("  " * depth(str(span["spanID"])) + str(span["operationName"]))
        for child in found:
            if parents.get(child["spanID"]) == span["spanID"]:
                walk(child)

    for span in found:
        if span["spanID"] not in parents:
            walk(span)
    return lines


@pytest.mark.jaeger
def test_a_task_is_one_trace_and_reads_as_its_story(jaeger: Jaeger, export: Export) -> None:
    """One trace for the task: calls under the root, delegated ones under the hop, verdicts in plain words below them."""
    export("story", STORY)
    mine = trace_id(STORY)
    whole = jaeger.wait_for(lambda it: len((it.trace(mine) or {"spans": []})["spans"]) >= 25 and it.trace(mine))
    assert whole
    assert [trace["traceID"] for trace in jaeger.traces("story")] == [mine]
    assert tree(whole) == [
        "invoke_workflow refund-claim",
        "  tools/call orders/lookup",
        "    tools/call orders/lookup",
        "  tools/call agents/delegate",
        "    tools/call agents/delegate",
        "      tools/call crm/customer_export",
        "        authorize blocked policy.no_match",
        "      tools/call billing/refund",
        "        authorize challenged step_up.required",
        "  tools/call billing/refund",
        "    authorize error policy.eval_error",
        "  tools/call billing/refund",
        "    tools/call billing/refund",
        "  tools/call billing/ledger_adjust",
        "    authorize elevated jit.grant_active",
        "    tools/call billing/ledger_adjust",
        "  tools/call orders/lookup",
        "    tools/call orders/lookup",
        "  tools/list",
        "    tools/list",
        "  POST shop/order_create",
        "    POST shop/order_create",
        "  tools/call _unknown",
        "    authorize blocked tool.unknown",
        "  task completed",
    ]
    assert not [warning for span in whole["spans"] for warning in span.get("warnings") or []]


@pytest.mark.jaeger
def test_refusals_are_found(jaeger: Jaeger, export: Export) -> None:
    """Every query that docs/telemetry.md promises finds the trace, and a verdict can be picked from the operations."""
    export("found", FOUND)
    blocked = uuid(FOUND + 12)
    assert jaeger.wait_for(lambda it: it.traces("found", tags={"whygate.reason.code": "policy.no_match"}))
    asked: list[dict[str, str]] = [
        {"whygate.effect": "deny"},
        {"whygate.effect": "deny", "whygate.reason.code": "policy.eval_error"},
        {"whygate.effect": "deny", "gen_ai.agent.id": "spiffe://example.com/agent/payments"},
        {"whygate.privileged": "true"},
        {"whygate.policy.id": "payments-agent", "whygate.rule.id": "refund-small"},
        {"whygate.completion.code": "outcome.unknown"},
        {"whygate.decision.id": blocked},
        {"whygate.task.id": uuid(FOUND + 1)},
        {"whygate.linked.trace_id": "d" * 32},
    ]
    for tags in asked:
        assert [trace["traceID"] for trace in jaeger.traces("found", tags=tags)] == [trace_id(FOUND)]
    assert "authorize blocked policy.no_match" in jaeger.operations("found")
    assert jaeger.traces("found", operation="authorize blocked policy.no_match")


@pytest.mark.jaeger
def test_what_did_not_happen_is_not_found(jaeger: Jaeger, export: Export) -> None:
    """A code that no decision had finds nothing, nor does a pair that no one span carries."""
    export("missed", MISSED)
    assert jaeger.wait_for(lambda it: it.traces("missed", tags={"whygate.reason.code": "policy.no_match"}))
    assert jaeger.traces("missed", tags={"whygate.reason.code": "agent.suspended"}) == []
    mixed = {"whygate.effect": "allow", "whygate.reason.code": "policy.no_match"}
    assert jaeger.traces("missed", tags=mixed) == []


@pytest.mark.jaeger
def test_sent_again_nothing_doubles(jaeger: Jaeger, export: Export) -> None:
    """A projector that lost its cursor sends everything once more, and the trace stays as it was."""
    export("again", AGAIN)
    mine = {"whygate.decision.id": uuid(AGAIN + 20)}
    assert jaeger.wait_for(lambda it: it.traces("again", tags=mine))

    def of_service(trace: Trace) -> list[str]:
        wanted = {key for key, process in trace["processes"].items() if process["serviceName"] == "again"}
        return sorted(span["spanID"] for span in trace["spans"] if span["processID"] in wanted)

    once = of_service(jaeger.traces("again")[0])
    assert len(once) == len(set(once)) > 20
    export("again", AGAIN)
    export("again-is-there", AGAIN)
    assert jaeger.wait_for(lambda it: it.traces("again-is-there", tags=mine))
    assert of_service(jaeger.traces("again")[0]) == once


@pytest.mark.jaeger
def test_a_collector_takes_a_request_with_nothing_in_it(jaeger: Jaeger) -> None:
    """What the projector asks before it believes that a refusal is about its spans."""
    collector = Collector(jaeger.otlp_http)
    assert collector.send(b"").fate is Fate.TAKEN
    collector.close()


async def test_the_process_projects_a_real_ledger_and_ends_with_its_gateway(tmp_path: Path) -> None:
    """Killed and started again, the process exports the rest; it ends, with everything sent, when its stdin closes."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path, start={"host": "gate-1", "ip": "127.0.0.1"})
    with otlp_sink.running() as sink:
        command = (sys.executable, "-m", "whygate.projector_main", "--ledger", str(path), "--otlp", sink.url)
        try:
            allowed = decision(4)
            await ledger.append(task(1), decision(2, Code.POLICY_NO_MATCH), allowed)
            first = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
            assert await asyncio.to_thread(sink.arrived.wait, 20)
            first.kill()
            await first.communicate(b"")
            ledger.follow(completion(allowed))
            await ledger.append(decision(3, Code.TOOL_UNKNOWN))
            second = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
            await second.communicate(b"")  # which closes it, as the end of a gateway does
            assert second.returncode == 0
        finally:
            ledger.close()
        seen = sink.seen()
    assert {ids.span_id("server", uuid(number)) for number in (2, 3, 4)} <= seen.keys()
    assert ids.span_id("client", uuid(4)) in seen
    assert all(len(forms) == 1 for forms in seen.values())


async def test_terminated_it_ends_in_order(tmp_path: Path) -> None:
    """SIGTERM is the other way to end it; Ctrl-C, which a terminal sends to its gateway too, is the gateway's to hear."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path, start={})
    with otlp_sink.running() as sink:
        command = (sys.executable, "-m", "whygate.projector_main", "--ledger", str(path), "--otlp", sink.url)
        try:
            await ledger.append(task(1))
            process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
            assert await asyncio.to_thread(sink.arrived.wait, 20)
            sink.arrived.clear()
            process.send_signal(signal.SIGINT)
            await ledger.append(decision(2, Code.POLICY_NO_MATCH))
            assert await asyncio.to_thread(sink.arrived.wait, 20)
            process.terminate()
            assert await process.wait() == 0
        finally:
            ledger.close()
    assert status.load_cursor(status.cursor_path(path)).seq == 3


def test_a_process_without_a_ledger_says_so(tmp_path: Path) -> None:
    """It does not wait for something that nobody will make."""
    command = [sys.executable, "-m", "whygate.projector_main", "--ledger", str(tmp_path / "none"), "--otlp", "http://x"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 3
    assert "none" in done.stderr


def test_headers_come_by_environment() -> None:
    """OpenTelemetry's own variable, percent-encoded."""
    given = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc,x-scope=a=b, ,"}
    assert headers(given) == {"authorization": "Bearer abc", "x-scope": "a=b"}
    httpx.Headers(headers(given))
