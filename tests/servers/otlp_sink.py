"""A collector in this process: a real HTTP server that keeps every span it takes, decoded by the official messages.

It can be told to answer otherwise (``answers``), so that a test decides when it is down, full or refuses.
"""

import contextlib
import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


@dataclass
class Answer:
    """What to answer one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    rejected: int = 0
    note: str = ""


@dataclass
class Sink:
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    """Every request's body, taken or not, unpacked."""
    headers: list[dict[str, str]] = field(default_factory=list)
    taken: list[ResourceSpans] = field(default_factory=list)
    answer: Callable[[ExportTraceServiceRequest], Answer] = lambda _: Answer()
    arrived: threading.Event = field(default_factory=threading.Event)

    def seen(self) -> dict[str, set[bytes]]:
        """By span id: the forms in which it came, resource included. More than one form would show it twice."""
        found: dict[str, set[bytes]] = {}
        for group in self.taken:
            for span in spans_of(group):
                form = group.resource.SerializeToString(deterministic=True) + span.SerializeToString(deterministic=True)
                found.setdefault(span.span_id.hex(), set()).add(form)
        return found

    def spans(self) -> list[Span]:
        return [span for group in self.taken for span in spans_of(group)]


def spans_of(group: ResourceSpans) -> Iterator[Span]:
    for scope in group.scope_spans:
        yield from scope.spans


def tags(span: Span) -> dict[str, str | int | bool]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@contextlib.contextmanager
def running() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write for head and body: in two, each answer would wait 40 ms for the client's ACK

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            sink.bodies.append(body)
            sink.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = sink.answer(request)
            told = b""
            if answer.status == 200:
                sink.taken.extend(request.resource_spans)
                partial = ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.note)
                told = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)
            sink.arrived.set()

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that was killed in the middle of a request is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sink.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
