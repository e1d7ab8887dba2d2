"""A run: what is asked for, in which order, and what comes out. Exit code 0: every answer was right; 1: not; 2: misuse."""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.cells import Times, measure
from benchmarks.measures import Cell, medians
from benchmarks.processes import Cores, NotStarted
from benchmarks.systems import NAMES, nginx_binary, stage
from rich.console import Console

LEVELS = (1, 8, 32, 64)
WIDTH = 120


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py", description="The gateway beside nginx and the bare upstream.")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each cell (5)")
    parser.add_argument("--warm-up", type=float, default=1.0, help="time before it that does not count (1)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each cell is measured (3)")
    parser.add_argument("--in-flight", type=int, nargs="+", default=list(LEVELS), help="calls in flight (1 8 32 64)")
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=list(NAMES), help="what is measured (all)")
    parser.add_argument("--folder", type=Path, help="where the ledger is written: its disk's fsync decides much")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument("--quick", action="store_true", help="one repeat of one second at 1 and 32 in flight")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.seconds, chosen.warm_up, chosen.repeats, chosen.in_flight = 1.0, 0.5, 1, [1, 32]
    if not 0 < chosen.seconds <= 600 or not 0 <= chosen.warm_up <= 60 or not 1 <= chosen.repeats <= 100:
        parser.error("--seconds up to 600, --warm-up up to 60, --repeats 1 to 100")
    if min(chosen.in_flight) < 1 or max(chosen.in_flight) > 512:
        parser.error("--in-flight: 1 to 512")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    # A file or a pipe has no width of its own; the table needs about this much.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if sys.platform != "linux":
        console.print("The benchmarks pin processes to cores and read /proc: they run on Linux only.")
        return 2
    chosen = options(arguments)
    # So that being told to end stops what was started, like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = list(dict.fromkeys(chosen.systems))
    if "nginx" in names and nginx_binary() is None:
        console.print(
            "nginx is left out: it is not installed (Debian's nginx-light will do, or name it in WHYGATE_NGINX)"
        )
        names.remove("nginx")
    cores = Cores.of_this_machine()
    if not cores.apart:
        console.print("[yellow]One core only: load and system share it, the numbers say little.[/]")
    with tempfile.TemporaryDirectory(prefix="whygate-bench-", dir=chosen.folder or _on_disk()) as folder:
        try:
            return _run(console, chosen, names, (Path(folder), cores))
        except NotStarted as error:
            console.print(f"Not started: {error}", style="red", markup=False, soft_wrap=True)
            return 2
        except KeyboardInterrupt:
            console.print("Stopped; nothing is reported of half a run.")
            return 2


def _on_disk() -> str:
    """The folder for temporary files; but where that is memory, the one that is a disk by custom."""
    usual = tempfile.gettempdir()
    return "/var/tmp" if machine.file_system(Path(usual)) == "tmpfs" else usual  # noqa: S108  a fresh folder is made in it


def _run(console: Console, chosen: argparse.Namespace, names: list[str], place: tuple[Path, Cores]) -> int:
    folder, cores = place
    where = machine.describe()
    where["nginx"] = _nginx_version()
    where["file_system"] = machine.file_system(folder)
    where["fsync_ms"] = {"before": machine.fsync_ms(folder)}
    if where["file_system"] == "tmpfs":
        console.print("[yellow]The ledger is in memory: durable costs nothing here. Choose a disk with --folder.[/]")
    with stage(folder, cores, names) as running:
        times = Times(warm_up_s=chosen.warm_up, seconds=chosen.seconds)
        cells: list[Cell] = []
        for repeat in range(chosen.repeats):
            for level in chosen.in_flight:
                # In turn, so that what else this machine does hits all of them alike.
                for system in running.systems:
                    cells.append(measure(running, system, level, repeat, times))
                    _progress(console, cells[-1])
    where["fsync_ms"]["after"] = machine.fsync_ms(folder)
    middle = medians(cells)
    report.show(console, where, middle)
    if chosen.json:
        settings = {name: getattr(chosen, name) for name in ("seconds", "warm_up", "repeats", "in_flight")} | {
            "systems": names
        }
        chosen.json.write_text(json.dumps(report.document(where, settings, cells, middle), indent=2) + "\n")
    wrong = report.complaints(cells)
    for line in wrong:
        console.print(line, style="red", markup=False)
    return 1 if wrong else 0


def _progress(console: Console, cell: Cell) -> None:
    console.print(
        f"  {cell.repeat + 1}. {cell.in_flight:>3} in flight  {cell.system:<8} {cell.calls_per_s:>9,.0f} calls/s  "
        f"p50 {cell.p50_ms:.2f}  p99 {cell.p99_ms:.2f} ms",
        style="dim",
        highlight=False,
    )


def _nginx_version() -> str:
    binary = nginx_binary()
    if binary is None:
        return "no nginx"
    said: Any = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False)
    return str(said.stderr).strip().removeprefix("nginx version: ")
