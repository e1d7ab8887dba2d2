"""A collector that only counts: the spans of calls by kind, and spans that came twice."""

import gzip
import json
import sys

from benchmarks.wire import Message, ServerProtocol, response, serve
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_INTERNAL: "internal"}


class Sink(ServerProtocol):
    """Takes OTLP over HTTP on any path. ``GET /stats`` tells what came since the last ``GET /reset``."""

    counts: dict[str, int] = {}  # noqa: RUF012  shared by all connections on purpose
    seen: set[bytes] = set()  # noqa: RUF012  shared by all connections on purpose

    def reply(self, message: Message) -> bytes:
        if message.head.startswith(b"get /reset "):
            Sink.counts = {}
            Sink.seen = set()
        if message.head.startswith(b"get "):
            return response(json.dumps(Sink.counts).encode())
        body = gzip.decompress(message.body) if message.header(b"content-encoding") == b"gzip" else message.body
        counts, seen = Sink.counts, Sink.seen
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if span.span_id in seen:
                        counts["twice"] = counts.get("twice", 0) + 1
                        continue
                    seen.add(span.span_id)
                    # Handshakes are recorded as well, and are no calls.
                    kind = _KINDS.get(span.kind, "other") if span.name.startswith("tools/call") else "other"
                    counts[kind] = counts.get(kind, 0) + 1
        return response(b"", media_type=b"application/x-protobuf")


if __name__ == "__main__":
    serve(Sink, int(sys.argv[1]))
