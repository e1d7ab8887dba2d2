"""What the ledger on SQLite keeps beyond the contract: one owner, a file that stays where it is, failures of the disk."""

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts import ledger_kit as kit
from tests.contracts.ledger_kit import SECOND, SqliteRig

from whygate.flow.ports import LedgerUnavailable
from whygate.stores import disk as disk_module
from whygate.stores import sqlite as sqlite_module
from whygate.stores.book import leaf_hash
from whygate.stores.disk import LedgerDamaged
from whygate.stores.owner import LedgerOwned
from whygate.stores.reader import Reader, walk
from whygate.stores.rows import SCHEMA, LedgerForeign, LedgerNewer
from whygate.stores.sqlite import SqliteLedger
from whygate.stores.state import fold


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SqliteRig]:
    made = SqliteRig(tmp_path)
    made.open()
    yield made
    made.ledger.close()


def raw(path: Path, sql: str) -> None:
    """Change a closed ledger by hand."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER IF EXISTS records_no_update")
    connection.execute("DROP TRIGGER IF EXISTS records_no_delete")
    connection.execute(sql)
    connection.close()


# --- the file ---


def test_every_commit_is_synced(rig: SqliteRig) -> None:
    """The connection that writes reads back WAL and FULL."""
    assert rig.ledger._disk._pragma("journal_mode") == "wal"
    assert rig.ledger._disk._pragma("synchronous") == 2


def test_a_library_that_does_not_sync_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLite did not grant is noticed before the first record."""
    pragma = disk_module.Disk._pragma
    monkeypatch.setattr(
        disk_module.Disk, "_pragma", lambda self, text: 1 if text == "synchronous" else pragma(self, text)
    )
    with pytest.raises(LedgerUnavailable, match="synchronous=1"):
        SqliteLedger(tmp_path / "ledger.db", start={})


def test_a_new_ledger_is_its_owners_alone(rig: SqliteRig) -> None:
    """Nobody else on the machine reads what agents do."""
    for path in (rig.path, rig.path.with_name("ledger.db-wal"), rig.path.with_name("ledger.db.lock")):
        assert path.stat().st_mode & 0o077 == 0


async def test_the_stored_hash_is_that_of_the_stored_bytes(rig: SqliteRig) -> None:
    """An auditor hashes what he reads and finds the leaf."""
    await rig.ledger.append(kit.opened(), kit.decision(task="t-1"))
    with Reader(rig.path) as reader:
        for stored in reader.task("t-1"):
            assert stored.hash == leaf_hash(stored.bytes)
            assert stored.hash.hex() == hashlib.sha256(b"\0" + stored.bytes).hexdigest()


async def test_records_are_only_added(rig: SqliteRig) -> None:
    """A slip of the hand in sqlite3 changes no record."""
    await rig.ledger.append(kit.decision())
    other = sqlite3.connect(rig.path, isolation_level=None)
    for slip in ("DELETE FROM records", "UPDATE records SET bytes = x'00'"):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            other.execute(slip)
    other.close()


def test_a_newer_ledger_is_refused_and_left_alone(rig: SqliteRig) -> None:
    """An old version writes nothing into what it does not understand, and says what to run."""
    rig.ledger.close()
    raw(rig.path, f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(LedgerNewer, match=f"schema version {SCHEMA + 1}.*nothing was changed"):
        rig.open()
    with pytest.raises(LedgerNewer):
        Reader(rig.path)


@pytest.mark.parametrize("content", [b"not a database, and longer than its header would be" * 4, None])
def test_somebody_elses_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A ledger is not written into another program's database, nor over another file."""
    path = tmp_path / "ledger.db"
    if content is None:
        raw(path, "CREATE TABLE theirs (a)")
    else:
        path.write_bytes(content)
    with pytest.raises(LedgerUnavailable if content else LedgerForeign):
        SqliteLedger(path, start={})
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("change", ["bytes = bytes || ' '", "hash = zeroblob(32)", "seq = 1000"])
async def test_a_damaged_tail_is_refused(rig: SqliteRig, change: str) -> None:
    """A ledger whose last records contradict themselves is not written on."""
    await rig.ledger.append(kit.decision(), kit.decision())
    rig.ledger.close()
    raw(rig.path, f"UPDATE records SET {change} WHERE seq = 2")  # noqa: S608  the three changes above
    with pytest.raises(LedgerDamaged):
        rig.open()


# --- the owner ---


def test_a_second_owner_is_told_who_the_first_is(rig: SqliteRig) -> None:
    """Two gateways never write one ledger, and the second learns what to do."""
    with pytest.raises(LedgerOwned, match=f"process {os.getpid()} on .* since .*stop that one first"):
        SqliteLedger(rig.path, start={})


def test_another_process_is_refused_too(rig: SqliteRig) -> None:
    """The lock holds between processes, and goes with its holder."""
    code = (
        "import sys, pathlib; from whygate.stores.sqlite import SqliteLedger\n"
        "SqliteLedger(pathlib.Path(sys.argv[1]), start={}).close(); print('opened')"
    )
    command = [sys.executable, "-c", code, str(rig.path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"LedgerOwned: the ledger {rig.path} is owned by process {os.getpid()}" in refused.stderr
    rig.ledger.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "opened\n"


def test_a_stolen_lock_is_noticed(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner whose lock file was removed stops before a second owner can write beside it."""
    monkeypatch.setattr(sqlite_module, "WATCH_S", 0.001)
    rig.ledger._owner.path.unlink()
    rig.ledger.put_policy("x", {"a": "b"})
    rig.ledger._waiting.wake()
    rig.ledger._writer.join(10)
    assert "lock file" in rig.ledger.failed


# --- failures ---


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_ledger_that_is_deleted_or_replaced_stops(rig: SqliteRig, suffix: str, replaced: bool) -> None:
    """SQLite would go on writing to a file without a name; we acknowledge nothing of that."""
    await rig.ledger.append(kit.decision())
    victim = rig.path.with_name(rig.path.name + suffix)
    victim.unlink()
    if replaced:
        victim.touch()
    with pytest.raises(LedgerUnavailable, match="replaced" if replaced else "deleted"):
        await rig.ledger.append(kit.decision())
    with pytest.raises(LedgerUnavailable):
        await rig.ledger.append(kit.decision())


def test_an_idle_ledger_notices_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to call before it is known that the ledger is gone; who must know is told once."""
    monkeypatch.setattr(sqlite_module, "WATCH_S", 0.001)
    told, heard = [], threading.Event()

    def hear(reason: str) -> None:
        told.append(reason)
        heard.set()

    ledger = SqliteLedger(tmp_path / "ledger.db", start={}, on_failed=hear)
    ledger.path.unlink()
    assert heard.wait(10)
    ledger.close()
    assert len(told) == 1
    assert "deleted" in told[0]
    assert ledger.failed == told[0]


async def test_a_full_disk_refuses(rig: SqliteRig) -> None:
    """With no room left nothing passes; what was acknowledged before is there."""
    rig.ledger._disk._pragma(f"max_page_count = {rig.ledger._disk._pragma('page_count') + 20}")
    acknowledged = []

    async def append_until_full() -> None:
        while True:
            record = kit.decision()
            await rig.ledger.append(record)
            acknowledged.append(record.id)

    with pytest.raises(LedgerUnavailable, match="full"):
        await append_until_full()
    assert acknowledged
    assert rig.ledger.failed
    rig.ledger.close()
    assert [record.id for record in rig.records() if record.kind == "decision"] == acknowledged


def test_a_file_that_may_not_grow_refuses(tmp_path: Path) -> None:
    """The same by the system's own limit, which the WAL meets first."""
    code = """
import asyncio, pathlib, resource, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.contracts import ledger_kit as kit
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.sqlite import SqliteLedger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = SqliteLedger(pathlib.Path(sys.argv[1]), start={})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
async def main():
    while True:
        record = kit.decision()
        try:
            await ledger.append(record)
        except LedgerUnavailable as error:
            print(error, file=sys.stderr)
            return
        print(record.id)
asyncio.run(main())
ledger.close()
"""
    root = Path(kit.__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "ledger.db"), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "can't write" in done.stderr
    acknowledged = set(done.stdout.split())
    assert acknowledged
    with Reader(tmp_path / "ledger.db") as reader:
        assert acknowledged <= {kit.decode(data).id for data in walk(reader)}


async def test_a_disk_that_hangs_bounds_what_waits(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """When far too many completions wait, nothing passes any more."""
    monkeypatch.setattr(sqlite_module, "MAX_FOLLOWING", 3)
    call = kit.decision()
    await rig.ledger.append(call)
    hang, begun = threading.Event(), threading.Event()
    end = rig.ledger._disk._end
    rig.ledger._disk._end = lambda: (begun.set(), hang.wait(10), end())
    waiting = asyncio.ensure_future(rig.ledger.append(kit.decision()))
    await asyncio.sleep(0)
    await asyncio.to_thread(begun.wait, 10)
    while rig.ledger.failed is None:
        rig.ledger.follow(kit.completion(call))
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        await rig.ledger.append(kit.decision())
    hang.set()
    await waiting


async def test_an_append_that_nobody_waits_for_is_not_written(rig: SqliteRig) -> None:
    """Cancelled before its commit, a decision is no call that was allowed."""
    hang, begun = threading.Event(), threading.Event()
    end = rig.ledger._disk._end
    rig.ledger._disk._end = lambda: (begun.set(), hang.wait(10), end())
    first = asyncio.ensure_future(rig.ledger.append(kit.decision()))
    await asyncio.sleep(0)
    await asyncio.to_thread(begun.wait, 10)
    second = asyncio.ensure_future(rig.ledger.append(kit.decision()))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    hang.set()
    await first
    await rig.ledger.append(kit.decision(allow=False))
    assert rig.kinds() == ["start", "decision", "decision"]


# --- live state ---


async def test_live_state_can_be_made_again_from_the_records(rig: SqliteRig) -> None:
    """Tables of tasks, policy and open calls hold nothing that the records do not say."""
    append = rig.ledger.append
    await append(kit.in_force("sha256:one"), kit.opened(), kit.opened("t-2", expires_us=kit.START_US + SECOND))
    calls = [kit.decision(task=f"t-{1 + n % 3}") for n in range(30)]
    for call in calls:
        await append(call)
        rig.wall.us += SECOND // 10
    for call in calls[:20]:
        rig.ledger.follow(kit.completion(call))
    await append(kit.closed("t-2"), kit.opened("t-4"), kit.closed("t-4"), kit.in_force("sha256:two"))
    await append(kit.decision(task="t-4"), kit.decision(task="t-1"))
    again = fold(rig.leaves())
    live = rig.ledger._book.state
    assert (again.state.policy, again.state.calls, again.state.tasks) == (live.policy, live.calls, live.tasks)
    with Reader(rig.path) as reader:
        assert {task.id: task for task in reader.tasks()} == again.tasks
        assert dict(reader._all("SELECT key, value FROM meta"))["policy"] == "sha256:two"


async def test_a_start_looks_no_further_back_than_it_must(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The low-water mark never passes an open call, and moves on when calls end."""
    monkeypatch.setattr(disk_module, "LOW_WATER_LAG", 1)
    early = kit.decision()
    await rig.ledger.append(early)
    await rig.ledger.append(*(kit.decision(allow=False) for _ in range(5)))

    def mark() -> int:
        with Reader(rig.path) as reader:
            return int(dict(reader._all("SELECT key, value FROM meta"))["low_water"])

    assert mark() == early.seq
    rig.ledger.follow(kit.completion(early))
    await rig.ledger.append(kit.decision(allow=False))
    assert mark() == len(rig.leaves()) + 1
