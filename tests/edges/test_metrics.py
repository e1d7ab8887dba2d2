"""What ``/metrics`` says, read back with Prometheus's own parser."""

import re
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from whygate.core.calls import Tool, ToolCall
from whygate.core.decision import Decision
from whygate.core.reasons import Code, Outcome
from whygate.flow.ports import Admission, Answer, Completion
from whygate.telemetry import metrics
from whygate.telemetry.metrics import Metrics
from whygate.telemetry.status import Status, save_status

REFUND = Tool(server="billing", name="refund", type="mcp")


def admission(code: Code = Code.ROLE_PERMITTED, tool: Tool | None = REFUND, **call: str) -> Admission:
    asked = ToolCall(**{"protocol": "mcp", "method": "tools/call", **call}, tool=tool)
    entry = code.entry
    decision = Decision(outcome=code.outcome, code=code, admin="", user="", next=entry.next)
    answer = Answer(id="", outcome=code.outcome, code=code, note="", next=entry.next)
    return Admission(call=asked, decision=decision, record=None, answer=answer)


def scraped(it: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text, content_type = it.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(it: Metrics, name: str, **labels: str) -> float | None:
    return scraped(it).get((name, frozenset(labels.items())))


@pytest.mark.parametrize("code", [code for code in Code if code.entry.outcome is not None])
def test_every_decision_is_counted_once(code: Code) -> None:
    """Each decision counts under its outcome, code and tool, and its duration under its outcome."""
    it = Metrics(version="1")
    it.decided(admission(code), 0.0007)
    it.decided(admission(code), 0.0007)
    labels = {"outcome": code.outcome.value, "code": code.value, "tool": "billing/refund"}
    assert value(it, "whygate_decisions_total", **labels) == 2
    assert value(it, "whygate_decision_duration_seconds_count", outcome=code.outcome.value) == 2


def test_an_operation_is_measured_once() -> None:
    """A refused call is measured when it is decided, an allowed one when it ends, with what went wrong."""
    it = Metrics(version="1")
    name = "mcp_server_operation_duration_seconds_count"
    labels = {"mcp_method_name": "tools/call", "gen_ai_tool_name": "billing/refund"}
    it.decided(admission(), 0.001)
    assert value(it, name, **labels, error_type="") is None
    it.completed(admission(), Completion(status=200), 0.2)
    it.completed(admission(), Completion(is_error=True, error="tool_error"), 0.2)
    it.completed(admission(), Completion(is_error=True, code=Code.UPSTREAM_TIMEOUT), 0.2)
    it.decided(admission(Code.POLICY_NO_MATCH), 0.001)
    it.decided(admission(Code.STEP_UP_REQUIRED), 0.001)
    assert value(it, name, **labels, error_type="") == 2
    assert value(it, name, **labels, error_type="tool_error") == 1
    assert value(it, name, **labels, error_type="upstream.timeout") == 1
    assert value(it, name, **labels, error_type="policy.no_match") == 1


def test_plain_http_has_its_own_histogram() -> None:
    """HTTP tools are measured under HTTP's convention."""
    it = Metrics(version="1")
    it.completed(admission(protocol="http", method="POST"), Completion(status=503, error="503", is_error=True), 0.2)
    labels = {"http_request_method": "POST", "gen_ai_tool_name": "billing/refund", "error_type": "503"}
    assert value(it, "http_server_request_duration_seconds_count", **labels) == 1


def test_labels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever callers and upstreams make up gets no series of its own."""
    monkeypatch.setattr(metrics, "MAX_TOOLS", 4)
    it = Metrics(version="1")
    for number in range(50):
        made_up = Tool(server="billing", name=f"made-up-{number}", type="mcp", known=False)
        it.decided(admission(Code.TOOL_UNKNOWN, made_up), 0.001)
        it.decided(admission(Code.TOOL_UNKNOWN, None), 0.001)
        it.decided(admission(Code.ROLE_PERMITTED, msgspec.structs.replace(made_up, known=True)), 0.001)
        it.decided(admission(Code.REQUEST_METHOD_UNKNOWN, None, method=f"made/up{number}"), 0.001)
        it.completed(admission(), Completion(is_error=True, error=f"made up {number}"), 0.1)
    counted = {dict(labels)["tool"] for name, labels in scraped(it) if name == "whygate_decisions_total"}
    assert counted == {"_unknown", "_OTHER", "", *(f"billing/made-up-{number}" for number in range(3))}
    assert len(scraped(it)) < 400


def test_all_outcomes_are_there_from_the_start() -> None:
    """A rate over an outcome that has not happened yet is 0, not absent."""
    it = Metrics(version="1.2.3")
    for outcome in Outcome:
        assert value(it, "whygate_decision_duration_seconds_count", outcome=outcome.value) == 0
    assert value(it, "whygate_build_info", version="1.2.3") == 1


def test_a_ledger_that_failed_shows() -> None:
    """The gauge asks the ledger at the scrape."""
    failed = False
    it = Metrics(version="1", failed=lambda: failed)
    assert value(it, "whygate_ledger_failed") == 0
    failed = True
    assert value(it, "whygate_ledger_failed") == 1


def test_lag_is_seen_at_the_scrape(tmp_path: Path) -> None:
    """Lag is the ledger's newest record less what was exported: also while no projector lives to tell it."""
    path = tmp_path / "ledger.db.otlp-status"
    it = Metrics(version="1", newest=lambda: 10, projector=path)
    assert value(it, "whygate_projector_lag_records") == 10
    assert value(it, "whygate_projector_exporting") == 0
    now_us = time.time_ns() // 1000
    save_status(path, Status(seq=4, waiting_since_us=now_us - 60_000_000, trouble="down", exported=8, refused=1))
    assert value(it, "whygate_projector_lag_records") == 6
    assert 59 < (value(it, "whygate_projector_lag_seconds") or 0) < 120
    assert value(it, "whygate_telemetry_exported_total") == 8
    assert value(it, "whygate_telemetry_dropped_total", reason="refused") == 1
    save_status(path, Status(seq=10, updated_us=now_us - 60_000_000))
    assert value(it, "whygate_projector_lag_seconds") == 0
    assert value(it, "whygate_projector_exporting") == 1


def test_without_export_there_is_no_lag() -> None:
    """Where no collector is configured, nothing lags."""
    assert value(Metrics(version="1", newest=lambda: 10), "whygate_projector_lag_records") is None


def test_the_page_lists_every_metric(tmp_path: Path) -> None:
    """docs/telemetry.md names each metric of ours, and none that is gone."""
    path = tmp_path / "status"
    save_status(path, Status(refused=1))
    it = Metrics(version="1", projector=path)
    it.decided(admission(), 0.1)
    ours = {family.name for family in text_string_to_metric_families(it.render()[0].decode())}
    page = (Path(__file__).resolve().parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    rows = {name.removesuffix("_total") for name in re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)}
    assert rows - {"ip"} == {name for name in ours if not name.startswith("process_")}
