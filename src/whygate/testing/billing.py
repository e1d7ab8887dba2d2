"""A small billing API over plain HTTP, for the demo, the examples and the tests: ``python -m whygate.testing.billing``.

It accepts one bearer token only, which the gateway holds and no agent ever sees, and counts what reached it.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

INVOICES: Final[dict[str, dict[str, Any]]] = {
    "1042": {"id": "1042", "customer": "Ada Example", "total_cents": 12_900, "status": "paid"},
    "1043": {"id": "1043", "customer": "Grace Example", "total_cents": 499_000, "status": "paid"},
}
_INVOICE: Final = re.compile(r"^/invoices/([0-9]+)$")


class BillingServer(ThreadingHTTPServer):
    """Listens on loopback; ``port`` 0 picks a free one."""

    daemon_threads = True
    request_queue_size = 128
    """The library's five overflow when many calls come at once, and then the kernel lets some of them wait for half a minute."""

    def __init__(self, token: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.token = token
        self.seen: list[dict[str, Any]] = []
        """Every request that arrived: method, path, headers in lower case, body."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a gateway that broke off: some tests kill it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BillingServer

    def do_GET(self) -> None:  # the base class names its methods so
        self._handle()

    def do_POST(self) -> None:  # the base class names its methods so
        self._handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's signature
        """Say nothing: the gateway keeps the log."""

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append({"method": self.command, "path": self.path, "headers": headers, "body": raw})
        if headers.get("authorization") != f"Bearer {self.server.token}":
            self._answer(HTTPStatus.UNAUTHORIZED, {"error": "not our gateway"})
            return
        self._answer(*self._route(raw))

    def _route(self, raw: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
        path = self.path.partition("?")[0]
        invoice = _INVOICE.match(path)
        if self.command == "GET" and invoice is not None:
            found = INVOICES.get(invoice.group(1))
            return (HTTPStatus.OK, found) if found else (HTTPStatus.NOT_FOUND, {"error": "no such invoice"})
        if self.command == "POST" and path == "/refunds":
            body = json.loads(raw or b"{}")
            return HTTPStatus.CREATED, {"refunded": body.get("amount_cents"), "invoice": body.get("invoice_id")}
        if self.command == "GET" and path == "/customers/export":
            return HTTPStatus.OK, {"customers": [one["customer"] for one in INVOICES.values()]}
        return HTTPStatus.NOT_FOUND, {"error": "no such operation"}

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until stopped; prints the URL as its first line. The token it accepts is in ``BILLING_TOKEN``."""
    parser = argparse.ArgumentParser(description="a small billing API for demos and tests")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    # By environment, not by argument: every user of the machine can read a command line, and a token may begin with a dash.
    server = BillingServer(os.environ["BILLING_TOKEN"], options.port)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C in a terminal reaches everybody that the demo started
        server.serve_forever()


if __name__ == "__main__":
    main()
