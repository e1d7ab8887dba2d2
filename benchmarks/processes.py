"""Processes of a benchmark: started on their core in a group of their own, watched through /proc, always stopped."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parent.parent
STOP_S = 15.0
"""The gateway finishes its calls and gives its projector five seconds; longer than this is a hang."""


class NotStarted(Exception):
    """A process ended, or did not answer in time; with the end of what it said."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core each side runs on. With a single one, both share it, and the numbers say little."""

    system: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        free = sorted(os.sched_getaffinity(0))
        return cls(system=free[0], load=free[-1])

    @property
    def apart(self) -> bool:
        return self.system != self.load


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Children started inside inherit the core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process group on ``core``, what it says in ``log``; stopped on the way out, by force where it must be."""
    with log.open("ab") as output, on_core(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then end the whole group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def get(port: int, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """GET from loopback: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_for(process: subprocess.Popen[bytes], port: int, path: str, log: Path, *, within_s: float = 30.0) -> None:
    """Return when ``path`` answers 200. Raises ``NotStarted``."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(port, path, 2.0)[0] == 200:
                return
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    ended = f"ended with {process.returncode}" if process.poll() is not None else f"did not answer in {within_s:g} s"
    raise NotStarted(f"{Path(str(process.args[0])).name} {ended}\n{said}")  # type: ignore[index]  # always a list here


def tree(pid: int) -> list[int]:
    """``pid`` and everything that it started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        todo += children.get(each, [])
    return found


def cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads and the children it waited for. Exact to a tick, 10 ms."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS_PER_S
    return 0.0


def threads(pid: int) -> dict[str, tuple[float, int]]:
    """CPU seconds and context switches of each thread of a process, by name and number."""
    found: dict[str, tuple[float, int]] = {}
    for task in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = f"{(task / 'comm').read_text().strip()} {task.name}"
            ran_s = int((task / "schedstat").read_text().split()[0]) / 1e9
            lines = (task / "status").read_text().splitlines()
            switches = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
            found[name] = (ran_s, switches)
    return found


def pss_mib(pids: Sequence[int]) -> float:
    """Proportional set size: pages that several processes share count once in the sum."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024


def core_times(core: int) -> tuple[float, float]:
    """Seconds since boot that a core was busy, and altogether. Waiting for a disk is not busy; time that the host
    took away is neither.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            ticks = [int(value) for value in values[:8]]
            idle = ticks[3] + ticks[4]
            return (sum(ticks) - idle - ticks[7]) / TICKS_PER_S, sum(ticks) / TICKS_PER_S
    return 0.0, 0.0
