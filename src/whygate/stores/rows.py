"""The tables of the ledger, and how rows become values. ``docs/ledger.md`` shows them to whoever reads by hand.

The column ``bytes`` of ``records`` is the truth. All else is made from it, so that it can be found.
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from whygate.flow.ports import LedgerUnavailable
from whygate.stores.state import Task

SCHEMA: Final = 3
"""``user_version`` of a ledger with all migrations below. Goes up with each of them."""
APPLICATION: Final = 0x77687967
"""``application_id``: "whyg", so that ``file ledger.db`` tells what it is, and we do not write into somebody else's."""

BLOCK: Final = 256
"""Records that are told of together where they are searched by facet: half a megabyte to look through."""
MIGRATIONS: Final = Migrations("whygate.ledger")


class LedgerNewer(LedgerUnavailable):
    """The ledger was written by a version that this one does not know."""


class LedgerForeign(LedgerUnavailable):
    """The file is a database, but not a ledger."""


@MIGRATIONS(name="0001_records")
def _records(db: Database) -> None:
    db.execute(
        """CREATE TABLE records (
            seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, decision BLOB, task,
            prev INTEGER, trace TEXT, facet INTEGER, time_us INTEGER NOT NULL, hash BLOB NOT NULL, bytes BLOB NOT NULL
        )"""
    )
    # Partial, so that an insert pays for an index only where it has something to put there.
    for column in ("decision", "trace", "facet"):
        db.execute(f"CREATE INDEX records_{column} ON records ({column}) WHERE {column} IS NOT NULL")
    # Records of a live task are linked instead (`prev`, from `tasks.newest`): with many tasks at work each would dirty a
    # page of its own in an index, which cost a third of the commit. The index holds the stragglers.
    db.execute("CREATE INDEX records_task ON records (task) WHERE prev IS NULL AND task IS NOT NULL")
    # These stop slips of the hand, not somebody who means it: against him stand the hashes.
    for change in ("UPDATE", "DELETE"):
        db.execute(
            f"CREATE TRIGGER records_no_{change.lower()} BEFORE {change} ON records "
            "BEGIN SELECT RAISE(ABORT, 'records are only ever added'); END"
        )


@MIGRATIONS(name="0002_live_state")
def _live_state(db: Database) -> None:
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
    db.execute(
        """CREATE TABLE tasks (
            id TEXT PRIMARY KEY, trace_id TEXT NOT NULL, workflow TEXT NOT NULL, incident TEXT NOT NULL,
            session TEXT NOT NULL, agents TEXT NOT NULL, derived INTEGER NOT NULL, opened_us INTEGER NOT NULL,
            opened_by TEXT NOT NULL, expires_us INTEGER NOT NULL, last_us INTEGER NOT NULL, closed INTEGER NOT NULL,
            calls INTEGER NOT NULL, newest INTEGER NOT NULL
        )"""
    )
    db.execute("CREATE INDEX tasks_trace ON tasks (trace_id)")
    db.execute("CREATE INDEX tasks_open ON tasks (expires_us) WHERE closed = 0")
    db.execute(
        "CREATE TABLE policies (digest TEXT, name TEXT, text TEXT NOT NULL, PRIMARY KEY (digest, name)) WITHOUT ROWID"
    )
    db.execute(
        """CREATE TABLE facets (
            facet INTEGER PRIMARY KEY, agent TEXT NOT NULL, tool TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT NOT NULL
        )"""
    )
    db.execute(
        """CREATE VIEW decisions AS
        SELECT seq, strftime('%Y-%m-%dT%H:%M:%fZ', time_us / 1e6, 'unixepoch') AS time, lower(hex(id)) AS id,
            outcome, code, agent, tool, CAST(bytes AS TEXT) AS record
        FROM records JOIN facets USING (facet)"""
    )


@MIGRATIONS(name="0003_blocks")
def _blocks(db: Database) -> None:
    # An index over the facets of single records has a place for each facet, and each commit dirtied as many pages as it had
    # facets: a quarter of its cost. Blocks are told once for so many records, and looked through by their numbers.
    db.execute(
        "CREATE TABLE blocks (facet INTEGER NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (facet, block)) WITHOUT ROWID"
    )
    db.execute(f"INSERT INTO blocks SELECT DISTINCT facet, seq / {BLOCK} FROM records WHERE facet IS NOT NULL")  # noqa: S608  a constant
    db.execute("DROP INDEX records_facet")


@MIGRATIONS(name="0004_in_force")
def _in_force(db: Database) -> None:
    db.execute("CREATE TABLE in_force (kind TEXT, id TEXT, body BLOB NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID")
    # What a person was shown, encrypted: the one table that may be emptied, and whose loss voids no record.
    db.execute("CREATE TABLE sealed (id BLOB PRIMARY KEY, body BLOB NOT NULL)")
    # Calls pay nothing for it: only what is rare is in it.
    db.execute("CREATE INDEX records_kind ON records (kind, seq) WHERE kind NOT IN ('decision', 'completion')")


def check(db: Database, path: Path) -> int:
    """The version of the ledger's schema, 0 for a new one.

    Raises ``LedgerForeign`` and ``LedgerNewer``.
    """
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION and (application or version or db.table_names()):
        raise LedgerForeign(f"{path} is a database of something else; give the ledger a file of its own")
    if version > SCHEMA:
        raise LedgerNewer(
            f"the ledger {path} has schema version {version}, and this whygate knows up to {SCHEMA}: a newer whygate has "
            "written it. Run that version or a later one; nothing was changed."
        )
    return version


def migrate(db: Database, path: Path) -> None:
    """Bring the tables to this version. Raises what ``check`` raises."""
    if check(db, path) == SCHEMA:
        return
    # First of all, so that dying anywhere below leaves a file that we recognise as ours and go on with.
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    # Each migration commits together with the note that it was applied: dying between two of them leaves a ledger of
    # whole migrations, and the next start applies the rest.
    MIGRATIONS.apply(db)
    # Dying here leaves all tables and the old version: the next start finds nothing to apply and comes by here again.
    db.execute(f"PRAGMA user_version = {SCHEMA}")


def task_values(task: Task) -> tuple[Any, ...]:
    """In the order of the columns of ``tasks``."""
    agents = msgspec.json.encode(task.agents).decode()
    return (
        task.id,
        task.trace_id,
        task.workflow,
        task.incident,
        task.session,
        agents,
        task.derived,
        task.opened_us,
        task.opened_by,
        task.expires_us,
        task.last_us,
        task.closed,
        task.calls,
        task.newest,
    )


def task_of(row: dict[str, Any]) -> Task:
    agents = msgspec.json.decode(row["agents"], type=tuple[str, ...])
    return Task(**{**row, "agents": agents, "derived": bool(row["derived"]), "closed": bool(row["closed"])})


def wrap(connection: sqlite3.Connection) -> Database:
    """sqlite-utils over ``connection``, without plugins: nothing that is installed beside us touches the ledger."""
    return Database(connection, execute_plugins=False, recursive_triggers=False)
