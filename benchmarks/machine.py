"""What the numbers were measured on: without it they mean nothing."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measures import percentile

PACKAGES = ("httptools", "uvloop", "msgspec", "cel-expr-python", "protobuf")
FSYNCS = 300
PAGE = b"\xa5" * 4096


def describe() -> dict[str, Any]:
    """Processor, cores, kernel, Python and the packages that matter here."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(folder: Path) -> str:
    """The type of the file system that ``folder`` is on: on ``tmpfs`` an fsync costs nothing and proves nothing."""
    best, found = "", "unknown"
    wanted = str(folder.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4]
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, rest.split()[0]
    return found


def fsync_ms(folder: Path, count: int = FSYNCS) -> dict[str, float]:
    """p50 and p99 of appending 4 KiB and waiting until the disk has it (``fdatasync``)."""
    path = folder / "fsync-probe"
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            started = time.perf_counter()
            os.write(descriptor, PAGE)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - started) * 1e3)
    finally:
        os.close(descriptor)
        path.unlink()
    times.sort()
    return {"p50": round(percentile(times, 0.5), 3), "p99": round(percentile(times, 0.99), 3)}
