"""One cell: one system under one load, with everything that is read off meanwhile."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.measures import Cell
from benchmarks.processes import ROOT, core_times, cpu_s, on_core, pss_mib, tree
from benchmarks.systems import Stage, System, drained

DRAIN_WITHIN_S = 120.0
SETTLE_S = 1.0
"""After the last SERVER span: time for whatever comes twice, or too much, to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    warm_up_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Clocks of processes and cores at one moment."""

    roles: dict[str, float]
    system: tuple[float, float]
    load: tuple[float, float]
    ours_s: float
    """CPU time of everything that this run started."""


def _snapshot(stage: Stage, system: System) -> Snapshot:
    roles = system.cpu_s() if system.measured else {}
    ours_s = sum(cpu_s(pid) for pid in tree(os.getpid()))
    return Snapshot(roles, core_times(stage.cores.system), core_times(stage.cores.load), ours_s)


def _busy(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[0] - before[0]) / max(after[1] - before[1], 1e-9)


def _others(begin: Snapshot, end: Snapshot) -> float:
    """The share of both cores that went to processes which are not ours. The kernel's own work is in it, some percent."""
    worked = end.system[0] - begin.system[0] + end.load[0] - begin.load[0]
    there = end.system[1] - begin.system[1] + end.load[1] - begin.load[1]
    return max(worked - (end.ours_s - begin.ours_s), 0.0) / max(there, 1e-9)


def measure(stage: Stage, system: System, in_flight: int, repeat: int, times: Times) -> Cell:
    """Load ``system`` once. What was wrong stands in the cell's ``wrong`` and ``notes``."""
    upstream_before = stage.calls_upstream()
    stage.reset_spans()
    first = system.cpu_s()
    said, begin, end, pss = _load(stage, system, in_flight, times)
    calls = max(said["calls"], 1)
    cell = Cell(
        system=system.name,
        in_flight=in_flight,
        repeat=repeat,
        calls=said["calls"],
        made=said["made"],
        wrong=said["wrong"],
        seconds=said["seconds"],
        calls_per_s=said["calls"] / said["seconds"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        cpu_us={role: (end.roles[role] - begin.roles[role]) / calls * 1e6 for role in end.roles},
        pss_mib=pss,
        system_busy=_busy(begin.system, end.system),
        load_busy=_busy(begin.load, end.load),
        others_busy=_others(begin, end),
        notes=list(said["examples"]),
    )
    _compare(cell, "calls that reached the upstream", stage.calls_upstream() - upstream_before)
    if system.decided:
        _projected(stage, system, cell, first)
    return cell


def _compare(cell: Cell, what: str, count: int) -> None:
    """Anything but one for each call made is wrong."""
    if count != cell.made:
        cell.wrong += abs(count - cell.made)
        cell.notes.append(f"{what}: {count}, calls made: {cell.made}")


def _projected(stage: Stage, system: System, cell: Cell, before: dict[str, float]) -> None:
    """Wait for the spans of the cell, and count them: lag, drain, and that each call has its own, once."""
    cell.lag_calls = max(cell.made - stage.spans().get("server", 0), 0)
    _, cell.drain_s = drained(stage, cell.made, within_s=DRAIN_WITHIN_S)
    # The projector works on after the measured time: its cost is that of all the calls it had to project.
    cell.cpu_us["projector"] = (system.cpu_s()["projector"] - before["projector"]) / max(cell.made, 1) * 1e6
    spans, _ = drained(stage, cell.made + 1, within_s=SETTLE_S)
    for kind in ("server", "client"):
        _compare(cell, f"{kind} spans", spans.get(kind, 0))
    if spans.get("twice"):
        cell.wrong += spans["twice"]
        cell.notes.append(f"spans that came twice: {spans['twice']}")


def _load(
    stage: Stage, system: System, in_flight: int, times: Times
) -> tuple[dict[str, Any], Snapshot, Snapshot, float]:
    command = [sys.executable, "-m", "benchmarks.load", "--port", str(system.port), "--path", system.path]
    command += ["--sessions", str(stage.folder / f"sessions-{system.name}.json"), "--in-flight", str(in_flight)]
    command += ["--warm-up", str(times.warm_up_s), "--seconds", str(times.seconds)]
    command += ["--decided"] if system.decided else []
    with on_core(stage.cores.load):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        assert process.stdout is not None
        _expect(process.stdout.readline(), "begin")
        begin = _snapshot(stage, system)
        _expect(process.stdout.readline(), "end")
        end = _snapshot(stage, system)
        pss = pss_mib(system.pids()) if system.measured else 0.0
        said = json.loads(process.stdout.readline() or "null")
        if said is None:
            raise RuntimeError("the load ended without a result")
        return said, begin, end, pss
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _expect(line: str, word: str) -> None:
    if line.strip() != word:
        raise RuntimeError(f"the load said {line!r} where {word!r} was expected")
