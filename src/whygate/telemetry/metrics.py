"""Prometheus metrics: counted in the hot path, with children that are looked up once.

Rules of this file:

1. Labels are bounded: closed lists, and tools of the catalogue. No agent, task, user, decision or grant is a label.
2. What other places know (the ledger, the projector) is asked at the scrape, not told in the hot path.
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whygate.core.calls import ToolCall
from whygate.core.reasons import Outcome
from whygate.core.things import RESOURCE
from whygate.flow.ports import Admission, Completion
from whygate.telemetry import names
from whygate.telemetry.status import load_status
from whygate.telemetry.tallies import Counters, Histogram, Histograms

DECISION_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
OPERATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""As the MCP conventions advise."""
MAX_TOOLS: Final = 2000
"""Tools with a label of their own. A catalogue is an upstream's word, so it has a bound here, too."""
NO_TOOL: Final = ""
"""The method names no tool."""

_JSON_RPC: Final = re.compile(r"-32[0-9]{3}")
_WORDS: Final = frozenset(
    ("tool_error", "client_gone", "stopped", "cancelled", "internal", "not_sent", "unanswered", "unreadable")
)


class Metrics:
    """Implements ``flow.ports.Observer``. Belongs to the event loop; ``render`` may be called anywhere."""

    def __init__(
        self,
        *,
        version: str,
        newest: Callable[[], int] = lambda: 0,
        failed: Callable[[], bool] = lambda: False,
        policy: Callable[[], tuple[float, bool]] = lambda: (0.0, False),
        projector: Path | None = None,
    ) -> None:
        """``newest`` gives the number of the ledger's newest record, ``failed`` whether the ledger can't write, ``policy``
        when the policies were last found good (Unix time) and whether they were refused since; ``projector`` is
        the projector's status file, ``None`` where nothing is exported.
        """
        # For the whole process, which is ours: twice the series, to say when each began.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs has no annotations
        registry = self.registry = CollectorRegistry()
        self._decisions = Counters("whygate_decisions", "Decisions.", ("outcome", "code", "tool"))
        self._deciding = Histograms(
            "whygate_decision_duration_seconds",
            "From the question to the durable decision.",
            ("outcome",),
            DECISION_BUCKETS,
        )
        labels = ("mcp_method_name", "gen_ai_tool_name", "error_type")
        self._operations = Histograms(
            "mcp_server_operation_duration_seconds",
            "MCP calls: refused ones to their decision, allowed ones from there to the end of the answer.",
            labels,
            OPERATION_BUCKETS,
        )
        self._requests = Histograms(
            "http_server_request_duration_seconds",
            "Calls of plain HTTP tools, measured likewise.",
            ("http_request_method", *labels[1:]),
            OPERATION_BUCKETS,
        )
        for family in (self._decisions, self._deciding, self._operations, self._requests):
            registry.register(family)
        Gauge("whygate_build_info", "What runs.", ("version",), registry=registry).labels(version).set(1)
        Gauge(
            "whygate_ledger_failed", "1 while nothing can be recorded, and so nothing passes.", registry=registry
        ).set_function(lambda: float(failed()))
        Gauge(
            "whygate_policy_loaded_timestamp_seconds",
            "When the policy folder was last looked at and found good.",
            registry=registry,
        ).set_function(lambda: policy()[0])
        Gauge(
            "whygate_policy_refused",
            "1 while what the policy folder holds was refused, and older policies stay in force.",
            registry=registry,
        ).set_function(lambda: float(policy()[1]))
        self._shed = Counter("whygate_requests_shed", "Requests turned away unread, under overload.", registry=registry)
        ProcessCollector(registry=registry)
        if projector is not None:
            registry.register(_Projection(projector, newest))
        self._tools: set[str] = set()
        self._timers = {outcome: self._deciding.child((outcome.value,)) for outcome in Outcome}
        self._durations: dict[tuple[str, str, str, str], Histogram] = {}

    def decided(self, admission: Admission, seconds: float) -> None:
        """See ``flow.ports.Observer``."""
        decision, tool = admission.decision, self._tool(admission.call)
        self._decisions.add((decision.outcome, decision.code, tool))
        self._timers[decision.outcome].observe(seconds)
        if not decision.allows:
            error = "" if decision.outcome is Outcome.CHALLENGED else decision.code.value
            self._took(admission.call, tool, error, seconds)

    def completed(self, admission: Admission, completion: Completion, seconds: float) -> None:
        """See ``flow.ports.Observer``."""
        error = completion.code.value if completion.code is not None else _error(completion)
        self._took(admission.call, self._tool(admission.call), error, seconds)

    def shed(self) -> None:
        """A request was turned away unread: no decision, so nobody else counts it."""
        self._shed.inc()

    def render(self) -> tuple[bytes, str]:
        """The Prometheus text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _took(self, call: ToolCall, tool: str, error: str, seconds: float) -> None:
        key = (call.protocol, call.method, tool, error)
        child = self._durations.get(key)
        if child is None:
            method = call.method if call.method in names.METHODS else names.OTHER
            family = self._requests if call.protocol == "http" else self._operations
            child = family.child((method, tool, error))
            # Methods that nobody knows are not remembered: there is no end of them.
            if method == call.method:
                self._durations[key] = child
        child.observe(seconds)

    def _tool(self, call: ToolCall) -> str:
        tool = call.tool
        if tool is None:
            return names.UNKNOWN_TOOL if call.protocol == "http" or call.method == "tools/call" else NO_TOOL
        if tool.type == RESOURCE:  # there is no end of URIs
            return NO_TOOL
        if not tool.known:
            return names.UNKNOWN_TOOL
        found = tool.id
        if found not in self._tools:
            if len(self._tools) >= MAX_TOOLS:
                return names.OTHER
            self._tools.add(found)
        return found


def _error(completion: Completion) -> str:
    """``error.type`` from a closed list: what an upstream makes up has no series of its own."""
    text = completion.error
    if not text:
        return "tool_error" if completion.is_error else ""
    if (
        text in _WORDS
        or _JSON_RPC.fullmatch(text)
        or (text == str(completion.status) and 400 <= completion.status < 600)
    ):
        return text
    return names.OTHER


class _Projection(Collector):
    """How far the projector is behind, as its status file and the ledger tell at the scrape."""

    def __init__(self, path: Path, newest: Callable[[], int]) -> None:
        self._path = path
        self._newest = newest

    def collect(self) -> Iterator[Metric]:
        """``whygate_projector_lag_*`` and ``whygate_telemetry_*``. A projector that is dead lags, too."""
        found = load_status(self._path)
        behind = max(self._newest() - (found.seq if found is not None else 0), 0)
        yield GaugeMetricFamily("whygate_projector_lag_records", "Records that are not exported yet.", behind)
        since_us = (found.waiting_since_us or found.updated_us) if found is not None and behind else 0
        late_s = max(time.time() - since_us / 1e6, 0.0) if since_us else 0.0
        yield GaugeMetricFamily("whygate_projector_lag_seconds", "Age of the oldest of them, about.", late_s)
        up = found is not None and not found.trouble
        yield GaugeMetricFamily("whygate_projector_exporting", "0 while the projector can't export.", float(up))
        if found is None:
            return
        yield CounterMetricFamily("whygate_telemetry_exported", "Spans that a collector took.", found.exported)
        dropped = CounterMetricFamily("whygate_telemetry_dropped", "What is in no trace.", labels=("reason",))
        for reason in ("rejected", "refused", "unreadable"):
            dropped.add_metric((reason,), getattr(found, reason))
        yield dropped
