"""A real Jaeger for tests: its OTLP receiver, its memory store, and its query API over HTTP.

Rules of its query API (2.13) that the helpers here keep, because a test that forgets one passes for the wrong reason:
1. `/api/traces` is asked, never `/api/v3/traces`, which ignores attributes: a hit there proves nothing.
2. `start` and `end` are always sent: without them only the last two days are searched, whatever `lookback` says.
3. Tag values are strings; several tags must all stand on ONE span (memory store), so ask together what stands together.
4. The memory store finds nothing for `error=true` or `span.kind=server`: ask for `whygate.*` attributes.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

VERSION = "v1.76.0"
RUN = Path(__file__).parent / "jaeger" / "run.sh"
PORTS = ("JAEGER_OTLP_HTTP", "JAEGER_OTLP_GRPC", "JAEGER_QUERY", "JAEGER_QUERY_GRPC", "JAEGER_HEALTH")
INSTALL = "no Jaeger: build it with `make jaeger` (needs Go), or name its binary in WHYGATE_JAEGER"

Trace = dict[str, Any]


class JaegerFailedError(Exception):
    """Jaeger did not start; the message ends with what it printed."""


def binary() -> Path | None:
    """The binary that WHYGATE_JAEGER names, else the one in the cache; None where neither can be run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("WHYGATE_JAEGER") or cache / "whygate" / f"jaeger-{VERSION}")
    return path if os.access(path, os.X_OK) else None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago: another process can still take one, so a start is tried again."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def spans(trace: Trace) -> list[dict[str, Any]]:
    """A trace's spans, each with `tags` as a plain mapping, sorted by start time and then by name."""
    plain = [{**span, "tags": {tag["key"]: tag["value"] for tag in span["tags"]}} for span in trace["spans"]]
    return sorted(plain, key=lambda span: (span["startTime"], span["operationName"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jaeger:
    """A running Jaeger. Times are microseconds since 1970, as its API has them."""

    otlp_http: str
    query_url: str
    client: httpx.Client

    def _data(self, path: str, **params: str | int) -> list[Any]:
        answer = self.client.get(path, params=params)
        answer.raise_for_status()
        return answer.json()["data"] or []

    def services(self) -> list[str]:
        return sorted(self._data("/api/services"))

    def operations(self, service: str) -> list[str]:
        return sorted(self._data(f"/api/services/{service}/operations"))

    def traces(
        self,
        service: str,
        *,
        tags: Mapping[str, str] | None = None,
        operation: str | None = None,
        start: int = 0,
        end: int | None = None,
        limit: int = 1000,
    ) -> list[Trace]:
        """Traces with a span of `service` that has all `tags`. Found whole, also where only one span matched."""
        params: dict[str, str | int] = {
            "service": service,
            "start": start,
            "end": end if end is not None else (time.time_ns() // 1000) + 86_400_000_000,
            "limit": limit,
        }
        if operation is not None:
            params["operation"] = operation
        if tags:
            if not all(isinstance(value, str) for value in tags.values()):
                raise TypeError('Jaeger compares tags as strings: "true", "7"')
            params["tags"] = json.dumps(dict(tags))
        return self._data("/api/traces", **params)

    def trace(self, trace_id: str) -> Trace | None:
        """The trace, or None where Jaeger has none of that id."""
        answer = self.client.get(f"/api/traces/{trace_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        found = answer.json()["data"]
        return found[0] if found else None

    def wait_for(self, find: Callable[[Self], Any], *, within_s: float = 10.0) -> Any:
        """What `find(self)` returns as soon as it is truthy; its last answer when the time is up.

        Export and indexing are another process's work, so there is nothing to await: this polls, every 20 ms.
        """
        until = time.monotonic() + within_s
        while not (found := find(self)) and time.monotonic() < until:
            time.sleep(0.02)
        return found


def _ready(process: subprocess.Popen[bytes], health: str, *, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(health, timeout=1, trust_env=False).is_success:
                return True
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(home: Path, *, attempts: int = 3) -> Iterator[Jaeger]:
    """Start Jaeger with an empty memory store on free loopback ports, and stop it at the end.

    `home` takes its log. Raises JaegerFailedError; does not check that there is a binary (see `binary`).
    """
    log = home / "jaeger.log"
    for _ in range(attempts):
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        environment = os.environ | {name: str(port) for name, port in ports.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [RUN, "memory"], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            if not _ready(process, f"http://127.0.0.1:{ports['JAEGER_HEALTH']}/status", within_s=20):
                continue
            query = f"http://127.0.0.1:{ports['JAEGER_QUERY']}"
            with httpx.Client(base_url=query, timeout=10, trust_env=False) as client:
                yield Jaeger(otlp_http=f"http://127.0.0.1:{ports['JAEGER_OTLP_HTTP']}", query_url=query, client=client)
            return
        finally:
            _stop(process)
    raise JaegerFailedError(f"Jaeger did not start in {attempts} attempts:\n{log.read_text(errors='replace')[-2000:]}")
