"""Reading the ledger, also from other processes while the gateway writes. Nothing here can write.

Rules of this file:

1. Each question costs what its answer costs, not what the ledger holds: by index, by number, or by following links.
   ``tests/contracts/test_ledger_reader.py`` asks SQLite for its plan.
2. What is returned comes from the stored bytes. The other columns only find them.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

import msgspec

from whygate.core import records
from whygate.core.events import ApprovalRecord
from whygate.core.in_force import InForce
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord
from whygate.flow.ports import LedgerUnavailable
from whygate.stores.book import key
from whygate.stores.rows import BLOCK, check, task_of, wrap
from whygate.stores.state import Task

MAX_REPEATS: Final = 1000
MIN_PREFIX: Final = 8
"""Hex digits of an id that may stand for it: what is printed in short."""

_CHAIN: Final = """
WITH RECURSIVE chain (seq) AS (
    SELECT newest FROM tasks WHERE id = :task
    UNION ALL SELECT prev FROM records JOIN chain USING (seq) WHERE prev > 0
)
SELECT r.seq, r.hash, r.bytes FROM chain JOIN records AS r USING (seq)
UNION ALL
SELECT seq, hash, bytes FROM records WHERE task = :key AND prev IS NULL AND task IS NOT NULL
ORDER BY 1
"""


class NotFound(LookupError):
    """No record, or no task, has this id."""


class Ambiguous(LookupError):
    """More than one record's id begins like this."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One record as it lies in the ledger."""

    seq: int
    hash: bytes
    """RFC 6962 leaf hash of ``bytes``, as stored."""
    bytes: bytes

    @property
    def record(self) -> AnyRecord:
        """Decoded. Raises ``LookupError`` for a kind that this version does not know."""
        return records.decode(self.bytes)


class _Context(msgspec.Struct, frozen=True, gc=False):
    trace_id: str = ""


class _Place(msgspec.Struct, frozen=True):
    """What tells where a record belongs: read in a third of the time of all of it."""

    id: str
    kind: str
    context: _Context = _Context()
    decision: str = ""


_PLACE: Final = msgspec.json.Decoder(_Place)


class Explained(NamedTuple):
    """What there is to say about one decision."""

    decision: Stored
    completion: Stored | None
    """``None``: not ended yet, or never allowed."""
    task: Task | None
    policy: dict[str, str]
    """The texts of the policy set that was in force, by file name."""
    repeats: tuple[Stored, ...] = ()
    """Counted records of refusals like this one, from the same source, that followed it; the first ``MAX_REPEATS``."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions: all that is given must hold."""

    outcome: str = ""
    code: str = ""
    agent: str = ""
    tool: str = ""
    task: str = ""
    before: int = 2**63 - 1
    """Only records with smaller numbers: the last one's of a page, for the next page."""
    limit: int = 50


class Reader:
    """May be used from several threads, one question at a time. Close it, or use it in a ``with``."""

    def __init__(self, path: Path) -> None:
        """Raises ``LedgerUnavailable`` and its kinds where there is no ledger that can be read."""
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger {path} can't be read: {error}") from error
        self._db = wrap(self._connection)
        try:
            if check(self._db, path) == 0:
                raise LedgerUnavailable(f"{path} holds no ledger yet: start the gateway once")  # noqa: TRY301  closed below
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.Error):
                raise LedgerUnavailable(f"the ledger {path} can't be read: {error}") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def find(self, text: str) -> Stored:
        """The record with this id, or whose id alone begins with these hex digits.

        Raises ``NotFound``, ``Ambiguous``, and ``ValueError`` for what can't begin an id.
        """
        digits = text.replace("-", "").lower()
        if not MIN_PREFIX <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"{text!r} is no id: give at least {MIN_PREFIX} of its hex digits")
        low, high = bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
        found = self._stored("SELECT seq, hash, bytes FROM records WHERE id BETWEEN ? AND ? LIMIT 2", (low, high))
        if not found:
            raise NotFound(f"the ledger has no record {text}")
        if len(found) > 1:
            raise Ambiguous(f"more than one record's id begins with {text}: give more digits")
        return found[0]

    def why(self, text: str) -> Explained:
        """Everything about a decision, by its id, its completion's, or the beginning of one. Raises what ``find`` raises, and
        ``NotFound`` for records of other kinds.
        """
        found = self.find(text)
        record = found.record
        if isinstance(record, CompletionRecord):
            found = self.find(record.decision)
            record = found.record
        if not isinstance(record, DecisionRecord):
            raise NotFound(f"{text} is a record of kind {record.kind}, not a decision")
        after = self._stored(
            "SELECT seq, hash, bytes FROM records WHERE decision = ? ORDER BY seq LIMIT ?",
            (key(record.id), MAX_REPEATS),
        )
        asked = [stored for stored in after if isinstance(stored.record, ApprovalRecord)]
        after = [stored for stored in after if stored not in asked]
        ended = [stored for stored in after if record.effect == "allow"]
        task = self._tasks("WHERE id = ?", (record.context.task,))
        return Explained(
            found,
            ended[0] if ended else None,
            task[0] if task else None,
            self.policy(record.policy.digest),
            () if ended else tuple(after),
        )

    def about(self, identity: str) -> list[Stored]:
        """Records that point at this one, in order: of a question its answers, of a decision its end and its question."""
        return self._stored(
            "SELECT seq, hash, bytes FROM records WHERE decision = ? ORDER BY seq LIMIT ?", (key(identity), MAX_REPEATS)
        )

    def of_kind(self, kind: str, limit: int) -> list[Stored]:
        """The newest records of a kind that is rare (not decisions and completions), newest first."""
        return self._stored(
            "SELECT seq, hash, bytes FROM records WHERE kind = ? AND kind NOT IN ('decision', 'completion')"
            " ORDER BY seq DESC LIMIT ?",
            (kind, limit),
        )

    def in_force(self) -> InForce:
        """What is in force beside the policy, as the ledger has it now."""
        found = InForce()
        for kind, name, body in self._all("SELECT kind, id, body FROM in_force ORDER BY kind, id"):
            found.restore(kind, name, body)
        return found

    def sealed(self, identity: str) -> bytes | None:
        """What was kept apart for a record, encrypted; ``None`` where nothing is, or not any more."""
        found = self._all("SELECT body FROM sealed WHERE id = ?", (key(identity),))
        return bytes(found[0][0]) if found else None

    def task(self, task_id: str) -> list[Stored]:
        """All records of a task in order: its opening, decisions, completions, its close and what came after."""
        return self._stored(_CHAIN, {"task": task_id, "key": key(task_id)})

    def trace(self, trace_id: str) -> list[Stored]:
        """All records of the tasks whose trace this is, and decisions that were placed in it on their own."""
        found = {}
        for task in self._tasks("WHERE trace_id = ?", (trace_id,)):
            found.update({stored.seq: stored for stored in _placed(self.task(task.id), trace_id)})
        for stored in self._stored("SELECT seq, hash, bytes FROM records WHERE trace = ?", (trace_id,)):
            found[stored.seq] = stored
            record = stored.record
            if isinstance(record, DecisionRecord) and record.effect != "allow":
                continue  # what points at a refusal are counted repeats of it, each in a trace of its own
            for ended in self._stored("SELECT seq, hash, bytes FROM records WHERE decision = ?", (key(record.id),)):
                found[ended.seq] = ended
        return [found[seq] for seq in sorted(found)]

    def since(self, seq: int, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Up to ``limit`` records after number ``seq``, in order: for whoever follows the ledger."""
        return self._all("SELECT seq, bytes FROM records WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))

    def newest(self) -> int:
        """The number of the newest record; 0 where there is none."""
        return int(self._all("SELECT coalesce(max(seq), 0) FROM records")[0][0])

    def policy(self, digest: str) -> dict[str, str]:
        """The texts of a policy set by file name; empty where it was never kept."""
        return dict(self._all("SELECT name, text FROM policies WHERE digest = ? ORDER BY name", (digest,)))

    def tasks(self, *, open_only: bool = False, limit: int = 100) -> list[Task]:
        """Tasks, the last opened first."""
        return self._tasks(("WHERE closed = 0 " if open_only else "") + "ORDER BY rowid DESC LIMIT ?", (limit,))

    def search(self, wanted: Wanted) -> list[Stored]:
        """Decisions, newest first."""
        if wanted.task:
            return self._search_task(wanted)
        columns = [name for name in ("outcome", "code", "agent", "tool") if getattr(wanted, name)]
        if not columns:
            sql = "SELECT seq, hash, bytes FROM records WHERE kind = 'decision' AND seq < ? ORDER BY seq DESC LIMIT ?"
            return self._stored(sql, (wanted.before, wanted.limit))
        where = " AND ".join(f"{name} = ?" for name in columns)
        values = [getattr(wanted, name) for name in columns]
        facets = f"SELECT facet FROM facets WHERE {where}"  # noqa: S608  names from the list above
        before, found = wanted.before, list[Stored]()
        while len(found) < wanted.limit and (block := self._block_before(facets, values, before)) is not None:
            inside = (
                f"SELECT seq, hash, bytes FROM records WHERE seq >= ? AND seq < ? AND facet IN ({facets}) "  # noqa: S608  as above
                "ORDER BY seq DESC LIMIT ?"
            )
            first = block * BLOCK
            bounds = (first, min(before, first + BLOCK), *values, wanted.limit - len(found))
            found += self._stored(inside, bounds)
            before = first
        return found

    def _block_before(self, facets: str, values: Sequence[Any], before: int) -> int | None:
        """The newest block with one of these facets and a number below ``before``: one look into the index for each facet."""
        newest = "SELECT block FROM blocks WHERE blocks.facet = wanted.facet AND block <= ? ORDER BY block DESC LIMIT 1"
        sql = f"SELECT max(block) FROM (SELECT ({newest}) AS block FROM ({facets}) AS wanted)"  # noqa: S608  as above
        (found,) = self._all(sql, ((before - 1) // BLOCK, *values))[0]
        return None if found is None else int(found)

    def _search_task(self, wanted: Wanted) -> list[Stored]:
        def fits(stored: Stored) -> bool:
            record = stored.record
            return isinstance(record, DecisionRecord) and all(
                wanted_text in {"", text}
                for wanted_text, text in (
                    (wanted.outcome, record.outcome),
                    (wanted.code, record.reason.code),
                    (wanted.agent, record.subject.id),
                    (wanted.tool, record.resource.facet),
                )
            )

        chain = (stored for stored in reversed(self.task(wanted.task)) if stored.seq < wanted.before)
        return [stored for stored, _ in zip(filter(fits, chain), range(wanted.limit), strict=False)]

    def _tasks(self, rest: str, values: Sequence[Any]) -> list[Task]:
        with self._lock:
            return [task_of(row) for row in self._db.query(f"SELECT * FROM tasks {rest}", values)]  # noqa: S608  from above

    def _stored(self, sql: str, values: Sequence[Any] | dict[str, Any]) -> list[Stored]:
        return [Stored(seq=seq, hash=digest, bytes=data) for seq, digest, data in self._all(sql, values)]

    def _all(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger {self.path} can't be read: {error}") from error


def _placed(chain: list[Stored], trace_id: str) -> Iterator[Stored]:
    """A chain without the decisions that were placed in another trace, and without their ends."""
    elsewhere = set()
    for stored in chain:
        record = _PLACE.decode(stored.bytes)
        if record.kind == DecisionRecord.KIND and record.context.trace_id not in {"", trace_id}:
            elsewhere.add(record.id)
        elif not (record.kind == CompletionRecord.KIND and record.decision in elsewhere):
            yield stored


def walk(reader: Reader) -> Iterator[bytes]:
    """All records in order, a page at a time."""
    seq = 0
    while page := reader.since(seq):
        yield from (data for _, data in page)
        seq = page[-1][0]
