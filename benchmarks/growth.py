"""Memory over calls, for ``memory.py``: a real gateway with its projector, and sessions of many agents, each a task."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import gateway_files, machine
from benchmarks.cells import Times, measure
from benchmarks.processes import Cores, NotStarted, pss_mib
from benchmarks.systems import Stage, System, stage
from rich import box
from rich.console import Console
from rich.table import Table

AGENTS = 50
GOAL_MIB = 200.0
GROWTH_MIB = 10.0
"""Between the first and the second half of the calls: more is growth, less is an allocator's breathing."""
STEP_S = 8.0
IN_FLIGHT = 32


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="memory.py", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000, help="how many in all (200,000)")
    parser.add_argument("--tasks", type=int, default=10_000, help="over how many tasks (10,000)")
    parser.add_argument("--most-s", type=float, default=600.0, help="end after so many seconds of load (600)")
    parser.add_argument("--folder", type=Path, help="where the ledger is written, and removed afterwards")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where an answer was wrong, where it is too much, or where it grows; 2 where nothing could be started."""
    chosen = options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gateway_files.AGENTS, gateway_files.SESSIONS = AGENTS, chosen.tasks
    with tempfile.TemporaryDirectory(prefix="whygate-memory-", dir=chosen.folder) as folder:
        try:
            with stage(Path(folder), Cores.of_this_machine(), ["gateway"]) as running:
                rows, wrong = run(running, chosen, console)
        except NotStarted as error:
            console.print(f"Not started: {error}", style="red", markup=False, soft_wrap=True)
            return 2
        except KeyboardInterrupt:
            console.print("Stopped; nothing is reported of half a run.")
            return 2
    show(console, rows)
    found = [*wrong, *complaints(rows)]
    for line in found:
        console.print(line, style="red", markup=False)
    return 1 if found else 0


Row = tuple[int, float, float, float]
"""Calls so far, calls/s, PSS of the gateway's own process and of the projector, in MiB."""


def run(running: Stage, chosen: argparse.Namespace, console: Console) -> tuple[list[Row], list[str]]:
    """Load until enough calls were made; what was held after each step, and what was wrong."""
    (system,) = running.systems
    rows, wrong = [held(system, 0, 0.0)], list[str]()
    made, loaded_s = 0, 0.0
    while made < chosen.calls and loaded_s < chosen.most_s and not wrong:
        cell = measure(running, system, IN_FLIGHT, 0, Times(warm_up_s=0.0, seconds=STEP_S))
        made, loaded_s = made + cell.made, loaded_s + cell.seconds
        rows.append(held(system, made, cell.calls_per_s))
        if cell.wrong:
            wrong = [f"{cell.wrong} wrong", *cell.notes[:5]]
        console.print(
            "  {:>8,} calls  {:>6,.0f}/s  {:.0f} + {:.0f} MiB".format(*rows[-1]), style="dim", highlight=False
        )
    return rows, wrong


def held(system: System, calls: int, rate: float) -> Row:
    own, *children = system.pids()
    return calls, rate, pss_mib([own]), pss_mib(children)


def show(console: Console, rows: list[Row]) -> None:
    table = Table("calls", "calls/s", "gateway MiB", "projector MiB", "all", box=box.SIMPLE_HEAD)
    for calls, rate, own, projector in rows:
        table.add_row(f"{calls:,}", f"{rate:,.0f}", f"{own:.1f}", f"{projector:.1f}", f"{own + projector:.1f}")
    console.print(table)
    where = machine.describe()
    console.print(f"{where['cpu']}, Python {where['python']}, load {where['load_average']}", highlight=False)


def complaints(rows: list[Row]) -> list[str]:
    """What is wrong with these numbers; empty where nothing is."""
    calls, _, own, projector = rows[-1]
    found = []
    if own + projector > GOAL_MIB:
        found.append(f"{own + projector:.0f} MiB after {calls:,} calls: more than {GOAL_MIB:.0f}")
    half = next(row for row in rows if row[0] >= calls / 2)
    grown = own + projector - half[2] - half[3]
    if grown > GROWTH_MIB:
        found.append(f"{grown:.0f} MiB more than after {half[0]:,} calls: it grows")
    return found
