"""The projector as a process of its own: ``python -m whygate.projector_main --ledger PATH --otlp URL``.

The gateway starts it with a pipe as its stdin and holds the other end. However the gateway ends, the pipe closes: then,
as on SIGTERM, the projector exports what is left and exits. Exit codes: 0 fine, 2 misuse, 3 no ledger that can be read.
"""

import argparse
import gc
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from whygate.flow.ports import LedgerUnavailable
from whygate.stores.reader import NotFound, Reader
from whygate.telemetry.otlp import Collector, Encoder
from whygate.telemetry.projector import Projector

HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
"""OpenTelemetry's own variable (https://opentelemetry.io/docs/specs/otel/protocol/exporter/): a collector's credential
comes by environment, not by argument, which every user of the machine can read."""


class LedgerSource:
    """Implements ``telemetry.projector.Source`` on a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def since(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        return self._reader.since(seq, limit)

    def decision(self, id: str) -> bytes | None:  # noqa: A002  # the port's name for it
        try:
            return self._reader.find(id).bytes
        except (NotFound, ValueError):
            return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m whygate.projector_main", description="Ledger to OTLP traces.")
    parser.add_argument("--ledger", type=Path, required=True, help="the ledger's file")
    parser.add_argument("--otlp", required=True, help="base URL of the collector; /v1/traces is appended")
    parser.add_argument("--service", default="whygate", help="service.name of the spans (default: %(default)s)")
    parser.add_argument("--gzip", action="store_true", help="compress requests")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for every request
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # A terminal sends Ctrl-C to the gateway and to us; the gateway still has calls to end, and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN if _watch_stdin(stop) else lambda *_: stop.set())
    try:
        reader = Reader(chosen.ledger)
    except LedgerUnavailable as error:
        logging.getLogger("whygate.projector").error("%s", error)  # noqa: TRY400  # the message says it all
        return 3
    collector = Collector(chosen.otlp, headers=headers(os.environ), compress=chosen.gzip)
    # What the start made lives as long as the process; records and spans make no cycles, so looking for them seldom is enough.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        Projector(LedgerSource(reader), collector, Encoder(chosen.service), chosen.ledger).run(stop)
    finally:
        collector.close()
        reader.close()
    return 0


def headers(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers of ``OTEL_EXPORTER_OTLP_HEADERS``: ``name=value,…``, values percent-encoded."""
    pairs = (part.partition("=") for part in environment.get(HEADERS, "").split(","))
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs if name.strip()}


def _watch_stdin(stop: threading.Event) -> bool:
    """Stop when stdin closes. Whether it is watched: where it is no pipe (a terminal, ``/dev/null``), nobody holds it."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop.set()

    threading.Thread(target=watch, name="whygate-stdin", daemon=True).start()
    return True


if __name__ == "__main__":
    sys.exit(main())
