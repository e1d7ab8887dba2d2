"""What is measured: the bare upstream, nginx before it, the gateway before it."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import gateway_files
from benchmarks.processes import ROOT, Cores, cpu_s, get, running, tree, wait_for

NAMES = ("bare", "nginx", "gateway")

NGINX_CONF = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 1000000000;
  upstream tools {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{nginx};
    location / {{ proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@dataclass(kw_only=True)
class System:
    """One thing to send calls to."""

    name: str
    port: int
    path: str
    process: subprocess.Popen[bytes]
    measured: bool = True
    """Whether CPU and memory of its processes are of interest; of the bare upstream they are not."""
    sessions: list[dict[str, str]] = field(default_factory=list)

    @property
    def decided(self) -> bool:
        return self.name == "gateway"

    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def cpu_s(self) -> dict[str, float]:
        """CPU time by role: the process itself, and its children (the gateway's projector)."""
        own, *children = self.pids()
        roles = {self.name: cpu_s(own)}
        if self.decided:
            roles["projector"] = sum(cpu_s(pid) for pid in children)
        return roles


@dataclass(kw_only=True)
class Stage:
    """Everything that runs."""

    folder: Path
    cores: Cores
    upstream_port: int
    sink_port: int
    systems: list[System]

    def spans(self) -> dict[str, int]:
        """What the collector received since it was last reset."""
        return dict(json.loads(get(self.sink_port, "/stats")[1]))

    def reset_spans(self) -> None:
        get(self.sink_port, "/reset")

    def calls_upstream(self) -> int:
        return int(json.loads(get(self.upstream_port, "/stats")[1])["calls"])


def nginx_binary() -> str | None:
    """Debian has it in /usr/sbin, which is on few users' path."""
    named = os.environ.get("WHYGATE_NGINX")
    return named or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def stage(folder: Path, cores: Cores, names: list[str], *, under: Sequence[str] = ()) -> Iterator[Stage]:
    """Start what ``names`` asks for, with upstream and collector. Raises ``NotStarted``.

    ``under``: a command before the gateway's own, such as a profiler's.
    """
    found = free_ports(5)
    ports = dict(zip(("upstream", "sink", "nginx", "gateway", "operators"), found, strict=True))
    keys = gateway_files.Keys()
    with contextlib.ExitStack() as stack:
        upstream = _python(stack, folder, cores, "upstream", ports["upstream"])
        _python(stack, folder, cores, "sink", ports["sink"])
        systems = []
        for name in names:
            if name == "bare":
                systems.append(System(name=name, port=ports["upstream"], path="/mcp", process=upstream, measured=False))
            elif name == "nginx":
                systems.append(_nginx(stack, folder, cores, ports))
            else:
                systems.append(_gateway(stack, folder, cores, (keys, ports), under))
        for system in systems:
            system.sessions = _sessions(system, keys)
            (folder / f"sessions-{system.name}.json").write_text(json.dumps(system.sessions))
        yield Stage(
            folder=folder, cores=cores, upstream_port=ports["upstream"], sink_port=ports["sink"], systems=systems
        )


def _python(stack: contextlib.ExitStack, folder: Path, cores: Cores, module: str, port: int) -> Any:
    log = folder / f"{module}.log"
    command = [sys.executable, "-m", f"benchmarks.{module}", str(port)]
    process = stack.enter_context(running(command, cores.load, log))
    wait_for(process, port, "/stats", log)
    return process


def _nginx(stack: contextlib.ExitStack, folder: Path, cores: Cores, ports: dict[str, int]) -> System:
    prefix, log = folder / "nginx", folder / "nginx.log"
    prefix.mkdir()
    (prefix / "nginx.conf").write_text(NGINX_CONF.format(**ports))
    command = [str(nginx_binary()), "-p", str(prefix), "-c", "nginx.conf", "-e", "stderr"]
    process = stack.enter_context(running(command, cores.system, log))
    wait_for(process, ports["nginx"], "/stats", log)
    return System(name="nginx", port=ports["nginx"], path="/mcp", process=process)


def _gateway(
    stack: contextlib.ExitStack,
    folder: Path,
    cores: Cores,
    given: tuple[gateway_files.Keys, dict[str, int]],
    under: Sequence[str],
) -> System:
    keys, ports = given
    inside, log = folder / "gateway", folder / "gateway.log"
    inside.mkdir()
    config = gateway_files.write(inside, keys, ports)
    process = stack.enter_context(running([*under, *gateway_command(config)], cores.system, log))
    wait_for(process, ports["operators"], "/readyz", log)
    return System(name="gateway", port=ports["gateway"], path="/mcp/bench", process=process)


def gateway_command(config: Path) -> list[str]:
    """How a user starts it."""
    beside = Path(sys.executable).parent / "whygate"
    command = str(beside) if beside.exists() else shutil.which("whygate") or str(ROOT / ".venv" / "bin" / "whygate")
    return [command, "serve", "-c", str(config)]


def _sessions(system: System, keys: gateway_files.Keys) -> list[dict[str, str]]:
    """Begin every session the way a client does, so that the gateway knows whose it is."""
    tokens = [keys.token(agent) for agent in gateway_files.agent_ids()]
    made = []
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=10)
    for number in range(gateway_files.SESSIONS):
        token = tokens[number % len(tokens)]
        made.append({"token": token, "session": _initialize(connection, system.path, token)})
    connection.close()
    return made


def _initialize(connection: http.client.HTTPConnection, path: str, token: str) -> str:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {token}",
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    said = answer.read()
    session = answer.getheader("mcp-session-id")
    if answer.status != 200 or not session:
        raise RuntimeError(f"initialize got {answer.status}: {said[:500]!r}")
    return session


def drained(stage_: Stage, calls: int, *, within_s: float) -> tuple[dict[str, int], float]:
    """Wait until the collector has the SERVER span of every call; what it then has, and how long that took."""
    started = time.monotonic()
    while True:
        spans = stage_.spans()
        elapsed = time.monotonic() - started
        if spans.get("server", 0) >= calls or elapsed > within_s:
            return spans, elapsed
        time.sleep(0.01)
