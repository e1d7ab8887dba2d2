"""A ledger in a process of its own, on a disk that fails on command (``failing_disk.c``, loaded before the C library).

As a script it is that process: it obeys one word a line and answers each with one line.
"""

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whygate.flow.ports import LedgerUnavailable
from whygate.stores import faults, sqlite
from whygate.stores.sqlite import SqliteLedger

ROOT = Path(__file__).resolve().parents[2]
HANG_S = 0.3


def build(folder: Path, name: str = "failing_disk") -> Path | None:
    """The library of this name; ``None`` where nobody can compile it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    made = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return made


class Process:
    """A running ledger and its disk."""

    def __init__(self, process: "subprocess.Popen[str]", mode: Path) -> None:
        self._process = process
        self._mode = mode

    def disk(self, letter: str) -> None:
        """``e``, ``h``, ``f``, or a space for a disk that is well."""
        self._mode.write_text(letter)

    def say(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ended(self) -> int:
        return self._process.wait(20)


@contextmanager
def running(library: Path, ledger: Path, letter: str = " ") -> Iterator[Process]:
    mode = ledger.with_name("mode")
    mode.write_text(letter)
    env = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "DISK_MODE": str(mode),
        "DISK_BALLAST": f"{ledger}.ballast",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.servers.failing_disk", str(ledger)]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            made = Process(process, mode)
            assert made.hear() == "open"
            yield made
        finally:
            process.kill()


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _obey(path: Path) -> None:
    from tests.contracts import ledger_kit as kit  # the process that is told what to do needs no records

    kit._numbers = itertools.count(os.getpid() << 8)  # not the ids of the process before
    faults.HANG_S = HANG_S
    sqlite.WATCH_S = 0.01
    ledger = SqliteLedger(path, start={})
    _answer("open")
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "close":
            await asyncio.to_thread(ledger.close)
            _answer("closed")
            return
        if word == "rest":
            while ledger.scarce or ledger._gaps.open is not None:  # noqa: ASYNC110  a file has no event to wait for
                await asyncio.sleep(0.01)
            _answer("rested")
            continue
        record = kit.decision() if word == "decision" else kit.opened(word)
        try:
            await ledger.append(record)
            _answer("written")
        except LedgerUnavailable as error:
            _answer(f"refused: {error}")


if __name__ == "__main__":
    asyncio.run(_obey(Path(sys.argv[1])))
