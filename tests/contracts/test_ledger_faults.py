"""What the ledger on SQLite does with a disk that fails, hangs or is full, and with callers that leave."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contracts import ledger_kit as kit
from tests.contracts.ledger_kit import SECOND, SqliteRig
from tests.servers import failing_disk
from tests.servers.failing_disk import running

from whygate.core.records import AnyRecord, CompletionRecord, LifeRecord, decode
from whygate.flow.ports import LedgerUnavailable
from whygate.stores import faults
from whygate.stores import sqlite as sqlite_module
from whygate.stores.faults import BALLAST_BYTES, Ballast, Watchdog
from whygate.stores.reader import Reader, walk


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = failing_disk.build(tmp_path_factory.mktemp("disk"))
    if made is None:
        pytest.skip("a disk that fails on command needs Linux and a C compiler")
    return made


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SqliteRig]:
    made = SqliteRig(tmp_path)
    made.open()
    yield made
    made.ledger.close()


def records(path: Path) -> list[AnyRecord]:
    with Reader(path) as reader:
        return [decode(data) for data in walk(reader)]


def gaps(path: Path) -> list[dict[str, Any]]:
    return [record.data for record in records(path) if isinstance(record, LifeRecord) and record.kind == "gap"]


# --- a disk that fails ---


def test_a_sync_that_fails_is_the_end_and_is_told(library: Path, tmp_path: Path) -> None:
    """After an error of fsync nothing is written any more; the next start finds out what was, and tells of the gap."""
    path = tmp_path / "ledger.db"
    with running(library, path) as process:
        assert process.say("decision") == "written"
        process.disk("e")
        assert "not known" in process.say("decision")
        process.disk(" ")
        assert process.say("decision").startswith("refused")
        assert process.say("close") == "closed"
    with running(library, path) as process:
        assert process.say("close") == "closed"
    (gap,) = gaps(path)
    assert (gap["unrecorded"], gap["since"] <= gap["until"]) == (2, True)
    assert "can't write" in gap["reason"]
    ends = [record for record in records(path) if isinstance(record, CompletionRecord)]
    decided = [record for record in records(path) if record.kind == "decision"]
    assert {end.code for end in ends} == {"outcome.unknown"}
    assert len(ends) == len(decided)
    with running(library, path) as process:
        process.say("close")
    assert len(gaps(path)) == 1


def test_a_disk_that_hangs_keeps_nobody_waiting(library: Path, tmp_path: Path) -> None:
    """A sync that does not return: those who wait are refused in time, those who come at once, and the process can end."""
    path = tmp_path / "ledger.db"
    with running(library, path) as process:
        assert process.say("decision") == "written"
        process.disk("h")
        for _ in range(3):
            assert "has not answered" in process.say("decision")
        assert process.say("close") == "closed"
        assert process.ended() == 0
    with running(library, path) as process:
        assert process.say("decision") == "written"
        assert process.say("close") == "closed"
    (gap,) = gaps(path)
    assert "has not answered" in gap["reason"]
    kinds = [record.kind for record in records(path)]
    assert kinds.count("start") == 2
    assert [record.seq for record in records(path)] == list(range(1, len(kinds) + 1))


def test_a_full_disk_leaves_room_for_what_operators_do(library: Path, tmp_path: Path) -> None:
    """No call passes, in this process or the next; starts, tasks and stops are recorded; with room it goes on, and tells."""
    path = tmp_path / "ledger.db"
    ballast = Path(f"{path}.ballast")
    with running(library, path) as process:
        assert process.say("decision") == "written"
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        process.disk("f")
        assert "full" in process.say("decision")
        assert not ballast.exists()
        assert process.say("close") == "closed"
    with running(library, path, "f") as process:
        assert "nearly full" in process.say("decision")
        assert "nearly full" in process.say("decision")
        assert process.say("t-1") == "written"
        process.disk(" ")
        assert process.say("rest") == "rested"
        assert process.say("decision") == "written"
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        assert process.say("close") == "closed"
    assert not ballast.exists()
    first, second = gaps(path)
    assert (first["unrecorded"], second["unrecorded"]) == (1, 2)
    assert "nearly full" in second["reason"]
    assert [record.kind for record in records(path)] == [
        *("start", "decision", "start", "completion", "gap", "task", "gap", "decision", "stop")
    ]


def test_a_gap_is_told_by_a_process_that_lives_to_tell_it(library: Path, tmp_path: Path) -> None:
    """A stop on a full disk records what could not be recorded, as the start on one did."""
    path = tmp_path / "ledger.db"
    with running(library, path, "f") as process:
        assert "nearly full" in process.say("decision")
        assert process.say("close") == "closed"
    assert [record.kind for record in records(path)] == ["start", "gap", "stop"]
    assert gaps(path)[0]["unrecorded"] == 1


def test_ballast_that_does_not_fit_is_not_left_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is too little room, none of it is taken."""
    ballast = Ballast(tmp_path / "ledger.db")
    assert ballast.make()
    assert ballast.make()
    assert ballast.release()
    assert not ballast.release()
    found = os.statvfs(tmp_path)

    class Little:
        f_bavail, f_frsize = (2 * BALLAST_BYTES - 1) // found.f_frsize, found.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda _: Little)
    assert not ballast.make()
    assert not ballast.path.exists()


# --- the watchdog ---


def test_a_process_that_was_stopped_has_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog counts its own looks: one that finds the same commit often enough barks, however much time went by."""
    looks = iter([False] * 9 + [True])
    heard = threading.Event()
    monkeypatch.setattr(threading.Event, "wait", lambda *_: next(looks))
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    dog = Watchdog(heard.set)
    dog.begin()
    dog._run()
    assert not heard.is_set()
    looks = iter([False] * 12 + [True])
    dog._run()
    assert heard.is_set()


async def test_a_busy_ledger_has_not_hung(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit after commit is no commit that takes long."""
    monkeypatch.setattr(faults, "HANG_S", 0.01)
    for _ in range(200):
        await rig.ledger.append(kit.decision(allow=False))
    assert rig.ledger.failed is None


# --- callers that leave ---


class Held:
    """Commits wait until they are let through."""

    def __init__(self, rig: SqliteRig) -> None:
        self.let, self.begun = threading.Event(), threading.Event()
        end: Callable[[], None] = rig.ledger._disk._end

        def held() -> None:
            self.begun.set()
            self.let.wait(10)
            end()

        rig.ledger._disk._end = held


async def test_a_caller_that_leaves_during_the_commit_has_its_call_ended(rig: SqliteRig) -> None:
    """What is written as allowed and never sent is completed as not forwarded, once, and not left open until a restart."""
    held = Held(rig)
    allowed, refused = kit.decision(), kit.decision(allow=False)
    waiting = [asyncio.ensure_future(rig.ledger.append(record)) for record in (allowed, refused)]
    await asyncio.to_thread(held.begun.wait, 10)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    held.let.set()
    await rig.ledger.append(kit.decision(allow=False))
    await rig.ledger.append(kit.decision(allow=False))
    (end,) = [record for record in rig.records() if isinstance(record, CompletionRecord)]
    assert (end.decision, end.error, end.is_error) == (allowed.id, "not_forwarded", True)
    assert rig.ledger._book.state.calls == {}


@pytest.mark.parametrize("told", [False, True], ids=["before it is told", "as it is told"])
async def test_a_caller_that_leaves_after_the_commit_has_its_call_ended(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Between the commit and the caller's next step there is no gap either."""
    answered, real = threading.Event(), sqlite_module.answer

    def answer(*args: Any) -> None:
        real(*args)
        answered.set()

    monkeypatch.setattr(sqlite_module, "answer", answer)
    waiting = asyncio.ensure_future(rig.ledger.append(kit.decision()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the append, then the waking of the writer
    assert answered.wait(10)  # without letting the loop go on: what it will do next is queued
    if told:
        asyncio.get_running_loop().call_soon(waiting.cancel)
    else:
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    await rig.ledger.append(kit.decision(allow=False))
    ends = [record.error for record in rig.records() if isinstance(record, CompletionRecord)]
    assert ends == ["not_forwarded"]


async def test_one_that_left_and_was_not_written_is_no_call(rig: SqliteRig) -> None:
    """Whose commit failed has nothing to be ended: whether it is there, the next start finds out."""
    held = Held(rig)
    rig.fail_next(written=False)
    waiting = asyncio.ensure_future(rig.ledger.append(kit.decision()))
    await asyncio.sleep(0)
    waiting.cancel()
    held.let.set()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(kit.decision())
    assert not rig.ledger._following


# --- clocks ---


async def test_a_clock_put_forward_is_recorded(rig: SqliteRig) -> None:
    """A step of more than a minute ahead is an event; an hour that went by is none."""
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.us += 7200 * SECOND
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.step(59 * SECOND)
    await rig.ledger.append(kit.decision(allow=False))
    rig.wall.step(61 * SECOND)
    await rig.ledger.append(kit.decision(allow=False))
    steps = [record.data for record in rig.records() if isinstance(record, LifeRecord) and record.kind == "clock_step"]
    assert [step["ahead_us"] for step in steps] == [61 * SECOND]
