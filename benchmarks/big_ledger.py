"""A ledger with as many records as asked for, and how long it takes to ask it something, for ``reading.py``.

It is built by the store's own code, in large commits, from the records of the benchmark's call as the real flow makes them.
What is timed is the whole command but for the start of the interpreter: opening the ledger, finding, telling, printing.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from benchmarks import gateway_files, machine
from benchmarks.parts import sample
from rich import box
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from whygate.cli.main import app
from whygate.core import ids
from whygate.core.identity import IdentityType, Proof
from whygate.core.instants import from_us
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord, Reason, Subject, TaskInfo, TaskRecord
from whygate.stores.disk import Disk, policy_rows

BATCH = 4_000
CALLS_PER_TASK = 50
LONG_CALLS = 2_000
"""Of one task: a day's work of an agent that does not rest."""
REFUSED_EVERY = 10
REPEATS = 7
GOAL_MS = 100.0
BEGAN_US = 1_780_000_000_000_000
STEP_US = 2_000


@dataclass(kw_only=True)
class Known:
    """What can be asked about: ids from the middle of the ledger."""

    allowed: str = ""
    refused: str = ""
    task: str = ""
    trace: str = ""
    long_task: str = ""
    long_trace: str = ""
    bytes: int = 0
    records: int = 0
    built_s: float = 0.0
    notes: list[str] = field(default_factory=list)


class _Maker:
    """Records, one call after another; ids and times count up as in real life."""

    def __init__(self) -> None:
        self.decision, self.completion = sample()
        self._number = 0
        self.now_us = BEGAN_US

    def id(self) -> str:
        self._number += 1
        return ids.uuid7(self.now_us // 1000, hashlib.blake2b(b"%d" % self._number, digest_size=10).digest())

    def task(self, agent: str) -> TaskRecord:
        task = self.id()
        return TaskRecord(
            event="opened",
            id=self.id(),
            kind="task",
            subject=Subject(id=agent, proof=Proof.JWT.value, type=IdentityType.AI_AGENT.value),
            task=TaskInfo(
                agents=(agent,),
                derived=True,
                expires_at=from_us(self.now_us + 8 * 3600 * 1_000_000),
                id=task,
                session=task[:8],
                trace_id=ids.trace_id(b"bench", task),
            ),
            v=1,
        )

    def call(self, opened: TaskRecord, *, refused: bool) -> tuple[DecisionRecord, CompletionRecord | None]:
        """One call's records."""
        own, info = self.id(), opened.task
        context = msgspec.structs.replace(
            self.decision.context, task=info.id, trace_id=info.trace_id, span_id=ids.span_id("server", own)
        )
        subject = msgspec.structs.replace(self.decision.subject, id=opened.subject.id)
        decision = msgspec.structs.replace(self.decision, id=own, context=context, subject=subject, claims=())
        if refused:
            reason = Reason(admin="No rule permits the call.", code="policy.no_match", user="Not permitted.")
            decision = msgspec.structs.replace(
                decision, effect="deny", outcome="blocked", reason=reason, determined_by=None, next="none"
            )
            return decision, None
        return decision, msgspec.structs.replace(self.completion, id=self.id(), decision=own, task=info.id)


def build(path: Path, count: int) -> Known:
    """A ledger of ``count`` records or a few more."""
    began, known, maker = time.monotonic(), Known(), _Maker()
    disk = Disk(path)
    book = disk.book()
    texts = policy_rows(maker.decision.policy.digest, gateway_files.policy_texts())
    waiting = 0
    for record in _records(maker, known, count):
        if not waiting:
            book.begin(maker.now_us)
        book.admit((record,))
        waiting += 1
        if waiting >= BATCH:
            disk.commit(book.take(), texts)
            texts, waiting = [], 0
    disk.commit(book.take(), texts)
    disk.finish()
    disk.close()
    known.records, known.bytes, known.built_s = book.seq, path.stat().st_size, time.monotonic() - began
    return known


def _records(maker: _Maker, known: Known, count: int) -> Iterator[AnyRecord]:
    """Tasks whose calls come in turn, ten at a time; one task in the middle goes on for long."""
    made, agents = 0, gateway_files.agent_ids()
    while made < count:
        middle = not known.task and made >= count // 2
        opened = [maker.task(agent) for agent in agents]
        yield from opened
        made += len(opened)
        for turn in range(LONG_CALLS if middle else CALLS_PER_TASK):
            for each in opened[:1] if turn >= CALLS_PER_TASK else opened:
                maker.now_us += STEP_US
                decision, completion = maker.call(each, refused=turn % REFUSED_EVERY == 7)
                yield decision
                made += 1
                if completion is not None:
                    yield completion
                    made += 1
                if middle and turn < CALLS_PER_TASK:
                    if completion is None:
                        known.refused = decision.id
                    else:
                        known.allowed = decision.id
        if middle:
            known.long_task, known.long_trace = opened[0].task.id, opened[0].task.trace_id
            known.task, known.trace = opened[1].task.id, opened[1].task.trace_id


def questions(known: Known, ledger: Path) -> dict[str, list[str]]:
    """Command lines by what they ask."""
    at = ["--ledger", str(ledger)]
    return {
        "why, an allowed call": ["why", known.allowed, *at],
        "why, a refused call": ["why", known.refused, *at],
        "why, by the first 18 digits": ["why", known.refused[:21], *at],
        f"why, by trace ({CALLS_PER_TASK} calls)": ["why", known.trace, *at],
        f"why, by task ({CALLS_PER_TASK} calls)": ["why", known.task, *at],
        f"why, by trace ({LONG_CALLS:,} calls)": ["why", known.long_trace, *at],
        f"task ({CALLS_PER_TASK} calls)": ["task", known.task, *at],
        f"task ({LONG_CALLS:,} calls)": ["task", known.long_task, *at],
        "tail, its start": ["tail", "--no-follow", *at],
        "tail of one outcome": ["tail", "--no-follow", "--outcome", "blocked", *at],
    }


def ask(line: list[str]) -> float:
    """Milliseconds of one command. Raises ``RuntimeError`` where it did not answer."""
    runner = CliRunner()
    began = time.perf_counter()
    answer = runner.invoke(app, line)
    took = (time.perf_counter() - began) * 1e3
    if answer.exit_code or len(answer.output) < 50:
        raise RuntimeError(f"{' '.join(line)}: {answer.exit_code} {answer.output} {answer.exception}")
    return took


def forget(path: Path) -> None:
    """Have the system drop what it keeps of the file in memory, as far as it will."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(known: Known, ledger: Path, before: Callable[[Path], None]) -> dict[str, tuple[float, float]]:
    """Median and worst of each question, in ms; ``before`` each time."""
    found = {}
    for name, line in questions(known, ledger).items():
        times = []
        for _ in range(REPEATS):
            before(ledger)
            times.append(ask(line))
        found[name] = (statistics.median(times), max(times))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where a ``why`` about one decision takes longer than it may."""
    parser = argparse.ArgumentParser(prog="reading.py", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="in the ledger (1,000,000)")
    parser.add_argument("--folder", type=Path, help="where the ledger is made, and removed afterwards")
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="whygate-reading-", dir=chosen.folder) as folder:
        ledger = Path(folder) / "ledger.db"
        known = build(ledger, chosen.records)
        console.print(
            f"{known.records:,} records, {known.bytes / 2**20:,.0f} MiB, built in {known.built_s:.0f} s",
            highlight=False,
        )
        ask(["why", known.allowed, "--ledger", str(ledger)])  # imports, once
        warm = measure(known, ledger, lambda _: None)
        cold = measure(known, ledger, forget)
    table = Table("asked", "p50 ms", "worst", "p50, file not in memory", "worst", box=box.SIMPLE_HEAD)
    for name, times in warm.items():
        table.add_row(name, *(f"{each:,.1f}" for each in (*times, *cold[name])))
    console.print(table)
    where = machine.describe()
    console.print(f"{where['cpu']}, Python {where['python']}, load {where['load_average']}", highlight=False)
    late = [name for name, (middle, _) in warm.items() if name.startswith("why") and middle > GOAL_MS]
    for name in late:
        console.print(f"{name}: more than {GOAL_MS:.0f} ms", style="red")
    return 1 if late else 0
