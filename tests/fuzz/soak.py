"""A million inputs over both edges: ``python -m tests.fuzz.soak``. Each run of 10,000 has a world and a seed of its own; a
finding is printed with what brings it back.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.checks import check
from tests.fuzz.inputs import one
from tests.fuzz.world import World

RUN = 10_000
"""Inputs of one world: tasks, sessions and counted strangers pile up as in a gateway that has been up for a while."""
FINDINGS = 5
"""Then a run gives up: the rest is mostly the same."""


class Run(NamedTuple):
    seed: int
    inputs: int
    outcomes: Counter[str]
    sent: int
    findings: list[str]


async def _run(seed: int, inputs: int) -> Run:
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    sent = done = 0
    with tempfile.TemporaryDirectory() as folder:
        world = await World.make(Path(folder))
        try:
            for number in range(inputs):
                given = one(Random(f"{seed}/{number}"), world.known)
                done += 1
                try:
                    ran = await world.run(given)
                    outcomes[f"{given.edge} {check(world, ran)}"] += 1
                    sent += len(ran.sent)
                except Exception:  # noqa: BLE001  # whatever it is, it is the finding
                    findings.append(f"seed {seed}, input {number}: {given!s:.3000}\n{traceback.format_exc(limit=-4)}")
                    if len(findings) >= FINDINGS:
                        break
        finally:
            await world.close()
    return Run(seed, done, outcomes, sent, findings)


def run(job: tuple[int, int]) -> Run:
    """One run, in a process or thread of its own."""
    import uvloop

    return uvloop.run(_run(*job))


def main() -> int:
    """Returns 1 where anything was found."""
    parser = argparse.ArgumentParser(description="a million inputs over both edges")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this time, whatever was done by then")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    runs = -(-options.inputs // RUN)
    jobs = [(options.seed + number, min(RUN, options.inputs - number * RUN)) for number in range(runs)]
    outcomes: Counter[str] = Counter()
    done = sent = found = 0
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=10) as pool:
        for one_run in pool.imap_unordered(run, jobs):
            done, sent, outcomes = done + one_run.inputs, sent + one_run.sent, outcomes + one_run.outcomes
            found += len(one_run.findings)
            for finding in one_run.findings:
                print(f"\nFOUND {finding}", flush=True)
            if found >= 10 * FINDINGS or time.monotonic() - started > options.seconds:
                pool.terminate()
                break
    seconds = time.monotonic() - started
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:>9,}  {outcome}")
    print(f"fuzz: {done:,} inputs (seed {options.seed}) in {seconds:,.0f} s, {done / seconds:,.0f}/s; ", end="")
    print(f"{sent:,} requests reached a tool; {found} findings")
    return 1 if found or done < options.inputs else 0


if __name__ == "__main__":
    sys.exit(main())
