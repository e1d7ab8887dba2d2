"""The tests' own servers keep what they promise, so that a test that uses them can be believed."""

import secrets
import time

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.servers.jaeger import Jaeger, spans

pytestmark = pytest.mark.jaeger


def send_span(jaeger: Jaeger, service: str, name: str, tags: dict[str, str], *, at_s: float | None = None) -> str:
    """Send one span in a trace of its own; returns the trace's id."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    trace_id = secrets.token_bytes(16)
    start_ns = int((at_s if at_s is not None else time.time()) * 1e9)
    span = resource.scope_spans.add().spans.add(
        trace_id=trace_id,
        span_id=secrets.token_bytes(8),
        name=name,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + 1_000_000,
    )
    for key, value in tags.items():
        span.attributes.add(key=key).value.string_value = value
    answer = httpx.post(
        f"{jaeger.otlp_http}/v1/traces",
        content=request.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
        trust_env=False,
    )
    assert answer.status_code == 200
    return trace_id.hex()


def test_a_span_is_found_by_its_tags_and_by_its_trace(jaeger: Jaeger) -> None:
    """What was sent is found by service, by tag and by trace id, and reads back with its tags."""
    trace_id = send_span(
        jaeger, "house-found", "authorize blocked policy.no_match", {"house.outcome": "blocked", "house.rule": "none"}
    )
    found = jaeger.wait_for(lambda it: it.traces("house-found", tags={"house.outcome": "blocked"}))
    assert [trace["traceID"] for trace in found] == [trace_id]
    assert "house-found" in jaeger.services()
    assert jaeger.operations("house-found") == ["authorize blocked policy.no_match"]
    whole = jaeger.trace(trace_id)
    assert whole is not None
    assert spans(whole)[0]["tags"].items() >= {"house.outcome": "blocked", "house.rule": "none"}.items()


def test_a_tag_that_was_not_sent_finds_nothing(jaeger: Jaeger) -> None:
    """A search by tags is a real one: another value, and two tags of which one is wrong, find nothing."""
    trace_id = send_span(jaeger, "house-missed", "call", {"house.outcome": "permitted"})
    assert jaeger.wait_for(lambda it: it.trace(trace_id))
    assert jaeger.traces("house-missed", tags={"house.outcome": "blocked"}) == []
    assert jaeger.traces("house-missed", tags={"house.outcome": "permitted", "house.rule": "other"}) == []
    assert jaeger.trace("0" * 31 + "1") is None


def test_old_spans_are_found(jaeger: Jaeger) -> None:
    """A search without times covers all times, where Jaeger by itself looks back two days; with times it keeps to them."""
    week_ago_s = time.time() - 7 * 86_400
    trace_id = send_span(jaeger, "house-old", "call", {}, at_s=week_ago_s)
    assert [trace["traceID"] for trace in jaeger.wait_for(lambda it: it.traces("house-old"))] == [trace_id]
    assert jaeger.traces("house-old", start=int((week_ago_s + 60) * 1e6)) == []


def test_tags_must_be_strings(jaeger: Jaeger) -> None:
    """A number as a tag's value would silently find nothing, so it is refused."""
    with pytest.raises(TypeError, match="strings"):
        jaeger.traces("any", tags={"house.count": 7})  # type: ignore[dict-item]  the mistake under test
