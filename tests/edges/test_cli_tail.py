"""``whygate tail``: decisions as they are made."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.edges import cli_world as world
from typer.testing import CliRunner

from whygate.cli import main, tail
from whygate.core.reasons import Code
from whygate.stores.sqlite import SqliteLedger

WAIT_S = 20.0


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "whygate.db"
    world.write(path, *world.Story().records)
    return path


def run(*words: object) -> tuple[int, list[str], str]:
    result = CliRunner().invoke(main.app, ["tail", "--no-follow", *map(str, words)])
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_one_line_for_each_decision(ledger: Path) -> None:
    """Time, outcome as a word, tool, code, agent and id; completions and openings are no decisions."""
    code, lines, _ = run("--ledger", ledger)
    assert code == 0
    assert [line.split()[3] for line in lines] == ["permitted", "permitted", "blocked", "challenged"]
    assert lines[2].split()[2:7] == ["x", "blocked", "billing/refund", "args.limit_exceeded", "agent:support"]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("--outcome", "blocked"), 1),
        (("--code", "role.permitted"), 2),
        (("--agent", "agent:researcher"), 1),
        (("--agent", "ada@example.com"), 3),
        (("--tool", "billing/refund"), 2),
        (("--tool", "billing"), 3),
        (("--tool", "billing", "--outcome", "permitted"), 1),
        (("-n", "2"), 2),
        (("-n", "0"), 0),
        (("-n", "1", "--outcome", "permitted"), 1),
    ],
)
def test_filters(ledger: Path, filters: tuple[str, ...], count: int) -> None:
    """All that is given must hold; -n counts what passes."""
    code, lines, _ = run("--ledger", ledger, *filters)
    assert (code, len(lines)) == (0, count)


def test_the_last_lines_are_found_far_back(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much else was recorded since."""
    monkeypatch.setattr(tail, "PAGE", 2)
    _, lines, _ = run("--ledger", ledger, "-n", "1", "--tool", "billing/invoice_get")
    assert len(lines) == 1


@pytest.mark.parametrize("wrong", [("--outcome", "denied"), ("--code", "no.such"), ("-n", "-1")])
def test_a_filter_that_can_never_match(ledger: Path, wrong: tuple[str, ...]) -> None:
    """Is misuse, rather than a screen that stays empty."""
    code, lines, errors = run("--ledger", ledger, *wrong)
    assert (code, lines) == (2, [])
    assert errors


def test_json_lines_are_the_records(ledger: Path) -> None:
    """Each line is a decision's record, as the published schema has it."""
    _, lines, _ = run("--ledger", ledger, "--json")
    kept = [json.loads(line) for line in lines]
    assert [record["kind"] for record in kept] == ["decision"] * 4
    assert kept[2]["reason"]["code"] == "args.limit_exceeded"
    assert {"seq", "time", "writer", "v"} <= set(kept[0])


@contextmanager
def following(path: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", "queue.Queue[str]"]]:
    """The command as a process, and its lines as they come."""
    command = [sys.executable, "-m", "whygate", "tail", "--ledger", str(path), "--json", *words]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WHYGATE_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join(WAIT_S)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def gateway(path: Path) -> SqliteLedger:
    return SqliteLedger(path, start={"version": "test"})


def append(ledger: SqliteLedger, *records: Any) -> None:
    asyncio.run(ledger.append(*records))


def test_it_follows_through_a_restart(tmp_path: Path) -> None:
    """Decisions show as they are made, also those of a gateway that came back; Ctrl-C ends it quietly with 0."""
    path = tmp_path / "whygate.db"
    old = world.decision()
    world.write(path, old)
    with following(path, "-n", "1") as (process, lines):
        assert json.loads(lines.get(timeout=WAIT_S))["id"] == old.id
        for _ in range(2):
            running = gateway(path)
            fresh, quiet = world.refund_denied(), world.decision(Code.POLICY_NO_MATCH)
            append(running, fresh, quiet)
            assert json.loads(lines.get(timeout=WAIT_S))["id"] == fresh.id
            assert json.loads(lines.get(timeout=WAIT_S))["id"] == quiet.id
            running.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_follows_what_takes_the_ledgers_place(tmp_path: Path) -> None:
    """A ledger that was replaced is followed from its beginning, and that is said."""
    path, other = tmp_path / "whygate.db", tmp_path / "other.db"
    first, second = world.decision(), world.decision()
    world.write(path, *world.Story().records, first)
    world.write(other, second)
    with following(path, "-n", "1") as (process, lines):
        assert json.loads(lines.get(timeout=WAIT_S))["id"] == first.id
        other.replace(path)
        assert json.loads(lines.get(timeout=WAIT_S))["id"] == second.id
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        assert process.stderr is not None
        assert "another ledger now" in process.stderr.read()
