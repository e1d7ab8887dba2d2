"""A ledger whose process is killed again and again keeps what it acknowledged."""

import subprocess
import sys
from pathlib import Path

import pytest

from whygate.core.records import decode
from whygate.stores.book import leaf_hash
from whygate.stores.reader import Reader, walk

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

WRITER = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[2])
from tests.contracts import ledger_kit as kit
from whygate.core.ids import uuid7
from whygate.stores.sqlite import SqliteLedger
import os, time

kit.new_id = lambda: uuid7(time.time_ns() // 1_000_000, os.urandom(10))  # ids of twenty runs must not meet

async def agent(ledger, task):
    await ledger.append(kit.opened(task))
    while True:
        call = kit.decision(task=task)
        await ledger.append(call, claims=(kit.task_claim(task),))
        sys.stdout.write(call.id + "\\n")
        sys.stdout.flush()
        ledger.follow(kit.completion(call))

async def main():
    ledger = SqliteLedger(pathlib.Path(sys.argv[1]), start={})
    await asyncio.gather(*(agent(ledger, kit.new_id()) for _ in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed twenty times amid its work: every acknowledged record is there, numbers have no gap, each call ends at most
    once, and all but those of the last run have ended.
    """
    path = tmp_path / "ledger.db"
    acknowledged: list[str] = []
    for run in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(ROOT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stderr is not None
        # Killed after a number of acknowledgements, not after a time: another one in each run.
        first = [child.stdout.readline().strip() for _ in range(1 + 37 * run % 101)]
        child.kill()
        # What it had said before it died counts as well; a last line that was cut off does not.
        rest = child.stdout.read()
        errors = child.stderr.read()
        child.wait()
        child.stdout.close()
        child.stderr.close()
        assert all(first), errors
        acknowledged += [*first, *(line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n"))]

    with Reader(path) as reader:
        leaves = list(walk(reader))
        hashes = [row[0] for row in reader._all("SELECT hash FROM records ORDER BY seq")]
    records = [decode(data) for data in leaves]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert [leaf_hash(data) for data in leaves] == hashes
    assert len({record.id for record in records}) == len(records)
    times = [record.time for record in records]
    assert times == sorted(times)

    decisions = {record.id: record for record in records if record.kind == "decision"}
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= decisions.keys()

    ends = [record.decision for record in records if record.kind == "completion"]
    assert len(ends) == len(set(ends))
    last_start = max(record.seq for record in records if record.kind == "start")
    assert {each.id for each in decisions.values() if each.seq < last_start} <= set(ends)
    unknown = [record for record in records if record.kind == "completion" and record.code == "outcome.unknown"]
    assert unknown
