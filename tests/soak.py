"""What takes too long for every test run: ``make soak``. A million inputs over both edges, two hundred kills under load, and
thousands of requests made from the operators' OpenAPI document. Bounded in count and in time; prints a summary.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOUR_S = 3600


class Part(NamedTuple):
    name: str
    command: list[str]
    environment: dict[str, str]


def parts(options: argparse.Namespace) -> list[Part]:
    pytest = [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider"]
    seed = ["--seed", str(options.seed)]
    fuzz = [sys.executable, "-m", "tests.fuzz.soak", "--inputs", str(options.inputs), *seed]
    kills = {"WHYGATE_SOAK_KILLS": str(options.kills)}
    examples = {"WHYGATE_SOAK_EXAMPLES": str(options.examples), "WHYGATE_SOAK_SEED": str(options.seed)}
    return [
        Part("fuzz", [*fuzz, "--processes", str(options.processes)], {}),
        Part("kill", [*pytest, "tests/e2e/test_kill9_gateway.py"], kills),
        Part("document", [*pytest, "tests/edges/test_operators_by_document.py"], examples),
    ]


def main() -> int:
    """Returns 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="thrown at both edges")
    parser.add_argument("--kills", type=int, default=200, help="of a gateway under load, with -9")
    parser.add_argument("--examples", type=int, default=1_000, help="of each operation in the OpenAPI document")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=["fuzz", "kill", "document"])
    options = parser.parse_args()
    told = []
    for part in parts(options):
        if options.only not in (None, part.name):
            continue
        print(f"--- {part.name}: {' '.join(part.command[1:])}", flush=True)
        started = time.monotonic()
        try:
            done = subprocess.run(
                part.command, env={**os.environ, **part.environment}, cwd=ROOT, timeout=HOUR_S, check=False
            )
            result = "fine" if done.returncode == 0 else f"FAILED ({done.returncode})"
        except subprocess.TimeoutExpired:
            result = "FAILED (an hour was not enough)"
        told.append(f"{part.name:<9} {result:<8} {time.monotonic() - started:7,.0f} s")
    print(f"--- soak, seed {options.seed}")
    print("\n".join(told))
    return 1 if any("FAILED" in line for line in told) else 0


if __name__ == "__main__":
    sys.exit(main())
