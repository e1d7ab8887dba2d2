"""``python benchmarks/profile_gateway.py``: where the gateway's time goes under load, by cProfile or by thread.

Of cProfile: only the event loop's thread is seen, and small Python functions look dearer than they are: use it to find what is called,
and how often; measure with ``bench.py``. docs/benchmarks.md names profilers that see more.
"""

import argparse
import pstats
import sys
import tempfile
from pathlib import Path

# The parts are one package, however this file is started.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.cells import Times, measure  # noqa: E402  only now is the package found
from benchmarks.measures import Cell  # noqa: E402  as above
from benchmarks.processes import Cores, threads  # noqa: E402  as above
from benchmarks.systems import Stage, stage  # noqa: E402  as above

CORES = Cores.of_this_machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", action="store_true", help="no profiler: CPU and context switches of each thread")
    parser.add_argument("--top", type=int, default=40, help="functions shown")
    parser.add_argument("--sort", default="tottime", choices=("tottime", "cumulative", "ncalls"))
    parser.add_argument("--out", type=Path, help="keep the profile there, for snakeviz and the like")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whygate-profile-") as folder:
        if chosen.threads:
            _threads(Path(folder), chosen)
            return
        out = (chosen.out or Path(folder) / "gateway.prof").absolute()
        with stage(
            Path(folder), CORES, ["gateway"], under=[sys.executable, "-m", "cProfile", "-o", str(out)]
        ) as running:
            _load(running, chosen)
        stats = pstats.Stats(str(out))
    stats.sort_stats(chosen.sort).print_stats(chosen.top)


def _load(running: Stage, chosen: argparse.Namespace) -> Cell:
    times = Times(warm_up_s=1.0, seconds=chosen.seconds)
    cell = measure(running, running.systems[0], chosen.in_flight, 0, times)
    print(f"{cell.calls_per_s:,.0f} calls/s, p50 {cell.p50_ms:.2f} ms, {cell.wrong} wrong")
    return cell


def _threads(folder: Path, chosen: argparse.Namespace) -> None:
    with stage(folder, CORES, ["gateway"]) as running:
        system = running.systems[0]
        before = {pid: threads(pid) for pid in system.pids()}
        cell = _load(running, chosen)
        for pid in system.pids():
            print("gateway" if pid == system.process.pid else "projector")
            for name, (cpu_s, switches) in sorted(threads(pid).items(), key=lambda pair: -pair[1][0]):
                first_s, first = before.get(pid, {}).get(name, (0.0, 0))
                each_us = (cpu_s - first_s) / cell.made * 1e6
                print(f"  {name:<18}{each_us:8.1f} µs of CPU{(switches - first) / cell.made:8.2f} switches a call")


if __name__ == "__main__":
    main()
