"""OTLP over HTTP with protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp): spans to messages, and the sending.

The messages are the official ones, built without the SDK: ``docs/decisions/0001-otlp-messages-without-the-sdk.md``.
"""

import email.utils
import gzip
import ssl
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import httpx
import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from whygate.telemetry import names
from whygate.telemetry.shapes import SHAPES, Shape, Value
from whygate.telemetry.spans import Instance, Span

TIMEOUT_S: Final = 10.0
"""The specification's default for exporters. What comes too late is sent again, and is the same."""
MAX_RETRY_AFTER_S: Final = 300.0
"""However long a collector asks for, the lag is looked at again by then."""

_PASSING: Final = frozenset((408, 429, 502, 503, 504))


class Encoder:
    """Builds requests. What spans of one shape share is built once and copied: a third of the cost of a span."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self._patterns: dict[Shape, WireSpan] = {}

    def encode(self, spans: Sequence[Span]) -> bytes:
        """``spans`` as an ``ExportTraceServiceRequest``: the same bytes for the same spans."""
        request = ExportTraceServiceRequest()
        scopes: dict[Instance, ScopeSpans] = {}
        for span in spans:
            scope = scopes.get(span.instance)
            if scope is None:
                scope = scopes[span.instance] = self._scope(request, span.instance)
            self._add(scope, span)
        return request.SerializeToString(deterministic=True)

    def _scope(self, request: ExportTraceServiceRequest, instance: Instance) -> ScopeSpans:
        resource = request.resource_spans.add()
        told = (
            (names.SERVICE_NAME, self._service_name),
            (names.SERVICE_INSTANCE, instance.writer),
            (names.HOST_NAME, instance.host),
            (names.IP, instance.ip),
        )
        resource.resource.attributes.extend([_pair(name, value) for name, value in told if value])
        scope = resource.scope_spans.add()
        scope.scope.name = names.SCOPE
        return scope

    def _add(self, scope: ScopeSpans, span: Span) -> None:
        pattern = self._patterns.get(span.shape)
        if pattern is None:
            pattern = self._pattern(span.shape)
        made = scope.spans.add()
        made.CopyFrom(pattern)
        made.trace_id = bytes.fromhex(span.trace_id)
        made.span_id = bytes.fromhex(span.span_id)
        made.parent_span_id = bytes.fromhex(span.parent_id)
        made.start_time_unix_nano = span.start_us * 1000
        made.end_time_unix_nano = span.end_us * 1000
        for name, value in span.own.items():
            made.attributes.add(key=name, value=_any(value))
        if span.link is not None:
            made.links.add(trace_id=bytes.fromhex(span.link.trace_id), span_id=bytes.fromhex(span.link.span_id))

    def _pattern(self, shape: Shape) -> WireSpan:
        pattern = WireSpan(name=shape.name, attributes=[_pair(*item) for item in shape.attributes.items()])
        pattern.kind = shape.kind.value  # type: ignore[assignment]  # the stubs want their own enum; the wire a number
        if shape.error:
            pattern.status.code = Status.STATUS_CODE_ERROR
            pattern.status.message = shape.error
        if len(self._patterns) >= SHAPES:
            self._patterns.clear()
        self._patterns[shape] = pattern
        return pattern


def _pair(name: str, value: Value) -> KeyValue:
    return KeyValue(key=name, value=_any(value))


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):  # before int: a bool is one
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value)


class Fate(StrEnum):
    """What became of one request."""

    TAKEN = "taken"
    LATER = "later"
    """Not now: the same bytes again, after a while."""
    NEVER = "never"
    """These bytes will not be taken, however often they are sent."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    fate: Fate
    note: str = ""
    """What the collector or the connection said, for the log."""
    rejected: int = 0
    """Spans that the collector dropped of a request that it took (``partial_success``)."""
    after_s: float = 0.0
    """For ``LATER``: how long the collector asked to wait; 0 where it did not say."""


class Collector:
    """One OTLP endpoint, spoken to by one thread."""

    def __init__(
        self,
        otlp: str,
        *,
        headers: Mapping[str, str] | None = None,
        compress: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``otlp`` is the base URL; ``/v1/traces`` is appended."""
        self._url = otlp.rstrip("/") + "/v1/traces"
        self._compress = compress
        sent = {"content-type": "application/x-protobuf", "user-agent": "whygate", **(headers or {})}
        if compress:
            sent["content-encoding"] = "gzip"
        # The system's trust store, so that an operator's own authority needs no setting of ours. Plain HTTP has nothing to
        # verify, and httpx would load its own store for it (20 ms); redirects are not followed.
        trust = ssl.create_default_context() if otlp.startswith("https:") else False
        # No proxy by a variable that somebody set for something else: spans go where the configuration says.
        self._client = httpx.Client(headers=sent, timeout=timeout_s, trust_env=False, verify=trust)

    def close(self) -> None:
        self._client.close()

    def send(self, body: bytes) -> Sent:
        """Post one request. Never raises for what the network or the collector does."""
        data = gzip.compress(body, compresslevel=1, mtime=0) if self._compress else body
        try:
            # As an iterator, which lets go of the body once it is sent: request and response hold each other until the
            # collector of garbage comes by, and with them every body since.
            answer = self._client.post(self._url, content=iter((data,)), headers={"content-length": str(len(data))})
        except httpx.TransportError as error:
            return Sent(fate=Fate.LATER, note=f"{self._url}: {type(error).__name__}: {error}".rstrip(": "))
        if answer.is_success:
            return _taken(answer)
        note = f"{self._url}: {answer.status_code} {answer.reason_phrase}".rstrip()
        if answer.status_code in _PASSING:
            return Sent(fate=Fate.LATER, note=note, after_s=retry_after(answer.headers.get("retry-after", "")))
        return Sent(fate=Fate.NEVER, note=note)


def _taken(answer: httpx.Response) -> Sent:
    """A 2xx. What is not the expected message counts as taken: so says the status, and sending again would not help."""
    if not answer.headers.get("content-type", "").startswith("application/x-protobuf"):
        return Sent(fate=Fate.TAKEN)
    try:
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    except DecodeError:
        return Sent(fate=Fate.TAKEN)
    return Sent(fate=Fate.TAKEN, note=partial.error_message[:500], rejected=max(partial.rejected_spans, 0))


def retry_after(text: str, *, now_s: float | None = None) -> float:
    """``Retry-After`` (RFC 9110 section 10.2.3) as seconds from now: 0 for none, at most five minutes."""
    if text.strip().isdigit() and text.isascii():
        asked = float(text)
    else:
        try:
            at = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        asked = at.timestamp() - (time.time() if now_s is None else now_s)
    return min(max(asked, 0.0), MAX_RETRY_AFTER_S)
