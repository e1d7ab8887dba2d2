"""The ledger's file: opened with care, read at start, written in one transaction per batch.

Rules of this file:

1. SQLite in WAL mode with ``synchronous=FULL``, asserted rather than assumed: libraries are built with other defaults.
2. One connection writes. Between its making and ``close`` nothing else in this process opens and closes the file: that
   would drop SQLite's locks (https://sqlite.org/howtocorrupt.html section 2.2).
3. Whatever ``commit`` raises, the connection is not used again for writing: a commit that reported an error may still be
   in the file after the next start, and carrying on could write over it.
"""

import itertools
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from whygate.core import records
from whygate.core.records import CompletionRecord, DecisionRecord
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.book import Batch, Book, leaf_hash
from whygate.stores.keys import sync_folder
from whygate.stores.rows import migrate, task_of, task_values, wrap
from whygate.stores.state import LiveState

CHECKPOINT_PAGES: Final = 4000
"""16 MiB of WAL between checkpoints: each costs two more fsyncs, which some call waits for."""
BUSY_MS: Final = 5000
TAIL: Final = 256
"""Records whose bytes are held against their hashes at start: what a crash could have hurt is at the end."""
LOW_WATER_LAG: Final = 256
"""The low-water mark is written when it has moved so far: exactness would dirty one more page in each commit, and it only
saves a start from looking further back."""


class LedgerDamaged(LedgerUnavailable):
    """What the ledger holds contradicts itself."""


class LedgerGone(LedgerUnavailable):
    """The file we write to is no longer the one at its path."""


class Insert:
    """One statement for many rows: each step of SQLite gives up the GIL, and a busy event loop takes its time to give it
    back, so a batch should take few steps.
    """

    SIZES: Final = (32, 8, 1)

    def __init__(self, head: str, columns: int, tail: str = "") -> None:
        row = f"({', '.join('?' * columns)})"
        self._statements = [(size, f"{head} VALUES {', '.join([row] * size)} {tail}") for size in self.SIZES]

    def run(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        at = 0
        for size, statement in self._statements:
            while len(rows) - at >= size:
                values = rows[at] if size == 1 else tuple(itertools.chain.from_iterable(rows[at : at + size]))
                connection.execute(statement, values)
                at += size


_RECORDS: Final = Insert(
    "INSERT INTO records (seq, id, kind, decision, task, prev, trace, facet, time_us, hash, bytes)", 11
)
_FACETS: Final = Insert("INSERT OR IGNORE INTO facets (facet, agent, tool, outcome, code)", 5)
_BLOCKS: Final = Insert("INSERT OR IGNORE INTO blocks (facet, block)", 2)
_POLICIES: Final = Insert("INSERT OR IGNORE INTO policies (digest, name, text)", 3)
_TASKS: Final = Insert(
    "INSERT INTO tasks (id, trace_id, workflow, incident, session, agents, derived, opened_us, opened_by, expires_us,"
    " last_us, closed, calls, newest)",
    14,
    "ON CONFLICT (id) DO UPDATE SET trace_id = excluded.trace_id, workflow = excluded.workflow,"
    " incident = excluded.incident, session = excluded.session, agents = excluded.agents, derived = excluded.derived,"
    " opened_us = excluded.opened_us, opened_by = excluded.opened_by, expires_us = excluded.expires_us,"
    " last_us = excluded.last_us, closed = excluded.closed, calls = excluded.calls, newest = excluded.newest",
)
_JOINED: Final = Insert(
    "UPDATE tasks SET last_us = joined.column2, calls = joined.column3, newest = joined.column4 FROM (",
    4,
    ") AS joined WHERE tasks.id = joined.column1",
)
"""For tasks whose row is there: a call that joins one changes no column that an index holds."""
_IN_FORCE: Final = Insert(
    "INSERT INTO in_force (kind, id, body)", 3, "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body"
)
_SEALED: Final = "INSERT OR REPLACE INTO sealed (id, body) VALUES (?, ?)"
_META: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class Disk:
    """One connection that writes. Not thread-safe: one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger at ``path``. The caller owns it already (``owner``).

        Raises ``LedgerUnavailable`` and its kinds.
        """
        self.path = path
        self._watched: dict[Path, tuple[int, int]] = {}
        """Files that hold records, and which ones they are."""
        self._shared: dict[Path, tuple[int, int]] = {}
        """The index of the WAL, by which readers and other writers keep out of each other's way."""
        self.uncertain = False
        """Whether a commit reported an error: then nobody knows whether it is in the file."""
        _create_private(path)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._configure()
            migrate(wrap(self._connection), path)
            self._meta = self._read_meta()
        except BaseException:
            self._connection.close()
            raise

    def _configure(self) -> None:
        pragma = self._pragma
        pragma(f"busy_timeout = {BUSY_MS}")
        mode = pragma("journal_mode = WAL")
        pragma("synchronous = FULL")
        synchronous = pragma("synchronous")
        if mode != "wal" or synchronous != 2:
            raise LedgerUnavailable(
                f"SQLite gave journal_mode={mode}, synchronous={synchronous} for {self.path}, where wal and 2 (FULL) are "
                "needed: is the file on a network file system?"
            )
        pragma(f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
        pragma("trusted_schema = OFF")

    def _pragma(self, text: str) -> Any:
        row = self._connection.execute(f"PRAGMA {text}").fetchone()
        return row[0] if row else None

    def _read_meta(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        if "writer" not in found:
            found["writer"] = secrets.token_hex(8)
            # Dying before this leaves a ledger without a name and without records: the next start names it.
            self._connection.execute(_META, ("writer", found["writer"]))
        return found

    def book(self) -> Book:
        """The book to go on with: last number and time, and the live state, as the file has them.

        Raises ``LedgerDamaged``.
        """
        seq, last_us = self._check_tail()
        state = LiveState()
        state.policy = self._meta.get("policy", "")
        still_open = "closed = 0 AND (expires_us = 0 OR expires_us > ?)"
        for row in wrap(self._connection)["tasks"].rows_where(still_open, [last_us]):
            state.keep(task_of(row))
        for kind, name, body in self._connection.execute("SELECT kind, id, body FROM in_force ORDER BY kind, id"):
            state.in_force.restore(kind, name, body)
        # Where the start looks for calls that never ended. The mark may lag behind, never run ahead.
        sought = "SELECT bytes FROM records WHERE seq >= ? AND kind IN ('decision', 'completion') ORDER BY seq"
        for (data,) in self._connection.execute(sought, (self._meta.get("low_water", 1),)):
            record = records.decode(data)
            if isinstance(record, DecisionRecord | CompletionRecord):
                state.note_call(record, record.seq)
        return Book(writer=self._meta["writer"], state=state, seq=seq, last_us=last_us)

    def _check_tail(self) -> tuple[int, int]:
        newest = self._connection.execute(
            "SELECT seq, hash, bytes, time_us FROM records ORDER BY seq DESC LIMIT ?", (TAIL,)
        ).fetchall()
        if not newest:
            return 0, 0
        last: int = newest[0][0]
        for expected, (seq, digest, data, _) in zip(range(last, 0, -1), newest, strict=False):
            if seq != expected:
                raise LedgerDamaged(f"the ledger {self.path} lacks record {expected}: restore it from a copy")
            if not isinstance(data, bytes) or leaf_hash(data) != digest:
                raise LedgerDamaged(
                    f"record {seq} of the ledger {self.path} is not what was hashed: restore it from a copy"
                )
        return last, newest[0][3]

    def commit(
        self,
        batch: Batch | None,
        texts: Sequence[tuple[str, str, str]] = (),
        sealed: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Make all of it durable in one transaction. Raises ``sqlite3.Error`` and ``LedgerGone``."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        # Dying from here up to the end of COMMIT leaves nothing of the batch, or all of it where the commit frame had
        # reached the WAL: nobody was told in either case. At the next start such decisions have no completion and become
        # `outcome.unknown`; their calls were never forwarded.
        if texts:
            _POLICIES.run(self._connection, texts)
        for row in sealed:
            execute(_SEALED, row)
        if batch is not None:
            _RECORDS.run(self._connection, batch.rows)
            if batch.facets:
                _FACETS.run(self._connection, batch.facets)
            if batch.blocks:
                _BLOCKS.run(self._connection, batch.blocks)
            if batch.opened:
                _TASKS.run(self._connection, [task_values(task) for task in batch.opened])
            if batch.joined:
                _JOINED.run(self._connection, batch.joined)
            if batch.in_force:
                self._keep_in_force(batch.in_force)
            self._write_meta(batch)
        self.uncertain = True
        self._end()
        self.uncertain = False
        # Dying here leaves all of the batch, and callers that do not know: the same as above.
        self.check_identity()

    def _end(self) -> None:
        self._connection.execute("COMMIT")

    def _keep_in_force(self, changed: Sequence[tuple[str, str, bytes | None]]) -> None:
        for kind, name, body in changed:
            if body is None:
                self._connection.execute("DELETE FROM in_force WHERE kind = ? AND id = ?", (kind, name))
        _IN_FORCE.run(self._connection, [row for row in changed if row[2] is not None])

    def sealed(self, identity: bytes) -> bytes | None:
        """What was kept under this id; ``None`` where nothing is, or not any more."""
        row = self._connection.execute("SELECT body FROM sealed WHERE id = ?", (identity,)).fetchone()
        return None if row is None else bytes(row[0])

    def _write_meta(self, batch: Batch) -> None:
        if batch.policy != self._meta.get("policy", ""):
            self._connection.execute(_META, ("policy", batch.policy))
            self._meta["policy"] = batch.policy
        if batch.low_water - self._meta.get("low_water", 1) >= LOW_WATER_LAG:
            self._connection.execute(_META, ("low_water", batch.low_water))
            self._meta["low_water"] = batch.low_water

    def watch(self) -> None:
        """Remember which files we write to, once they all exist (the WAL does after the first commit)."""
        for suffix, kept in (("", self._watched), ("-wal", self._watched), ("-shm", self._shared)):
            path = self.path.with_name(self.path.name + suffix)
            found = path.stat()
            kept[path] = (found.st_dev, found.st_ino)
        sync_folder(self.path.parent)

    def check_identity(self, *, every: bool = False) -> None:
        """Raises ``LedgerGone`` where the files at our paths are not those we write to: SQLite goes on writing to a deleted
        file without a word, and everything acknowledged since would be lost. ``every``: those without records, too.
        """
        watched = self._watched | self._shared if every else self._watched
        for path, known in watched.items():
            try:
                found = os.stat(path)  # noqa: PTH116  half the cost of Path.stat, at every commit
            except FileNotFoundError:
                raise LedgerGone(
                    f"{path} was deleted or moved away while in use: put it back and start again"
                ) from None
            if (found.st_dev, found.st_ino) != known:
                raise LedgerGone(f"{path} was replaced while in use: put the ledger back and start again")

    def finish(self) -> None:
        """Move everything from the WAL into the file, so that the file alone is the ledger. Readers may prevent it: then
        the next start does it.
        """
        # Dying here leaves the records in the WAL, from where the next connection reads them.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()


def _create_private(path: Path) -> None:
    """A new ledger is its owner's alone; SQLite gives the WAL the same mode.

    Only for a file that is not there yet: nobody in this process can hold locks on it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    # Dying here leaves an empty file, which SQLite takes for a new database.


def policy_rows(digest: str, texts: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(digest, name, text) for name, text in texts.items()]
