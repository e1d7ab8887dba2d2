"""``python benchmarks/profile_gateway.py``: where the gateway's time goes under load, by cProfile.

Only the event loop's thread is seen, and small Python functions look dearer than they are: use it to find what is called,
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
from benchmarks.processes import Cores  # noqa: E402  as above
from benchmarks.systems import stage  # noqa: E402  as above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--top", type=int, default=40, help="functions shown")
    parser.add_argument("--sort", default="tottime", choices=("tottime", "cumulative", "ncalls"))
    parser.add_argument("--out", type=Path, help="keep the profile there, for snakeviz and the like")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whygate-profile-") as folder:
        out = (chosen.out or Path(folder) / "gateway.prof").absolute()
        under = [sys.executable, "-m", "cProfile", "-o", str(out)]
        with stage(Path(folder), Cores.of_this_machine(), ["gateway"], under=under) as running:
            times = Times(warm_up_s=1.0, seconds=chosen.seconds)
            cell = measure(running, running.systems[0], chosen.in_flight, 0, times)
        print(f"{cell.calls_per_s:,.0f} calls/s under the profiler, {cell.wrong} wrong")
        stats = pstats.Stats(str(out))
    stats.sort_stats(chosen.sort).print_stats(chosen.top)


if __name__ == "__main__":
    main()
