"""What is written next: each record's number, time and bytes, and whether its claims still hold.

Knows nothing of disks, so every ledger shares it. Rules of this file:

1. Claims are checked first and everything of an entry is encoded before any of it is taken: an entry goes in whole, or
   leaves no trace, not even a number that was skipped.
2. ``seq`` is dense from 1. ``time`` is the later of the wall clock and the last recorded time.
3. One writer at a time uses a book. That is why checking first and writing after is not a race.
"""

import datetime
import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from whygate.core.decision import Claim
from whygate.core.events import ApprovalRecord, BreakGlassRecord, GrantRecord, ReviewRecord, WaiverRecord
from whygate.core.ids import uuid7
from whygate.core.instants import from_us
from whygate.core.reasons import Code
from whygate.core.records import (
    VERSION,
    AnyRecord,
    CompletionRecord,
    DecisionRecord,
    LifeRecord,
    TaskRecord,
    encode,
)
from whygate.flow.ports import ClaimFailed, LedgerUnavailable
from whygate.stores.rows import BLOCK
from whygate.stores.state import LiveState, Task

MAX_BYTES: Final = 65_535
"""Of one record: an entry bundle of a tlog-tiles log has a 16-bit length before each entry."""
STEP_US: Final = 1_000_000
"""A clock set back by more than this is recorded: smaller corrections are what time daemons do all day."""
AHEAD_US: Final = 60 * 1_000_000
"""A clock put forward by more than this is recorded: it ends tokens, tasks and whatever else has a time to end at."""
MAX_FACETS: Final = 50_000
"""Facets remembered as written. A forgotten one is only offered to the table again."""
_log = logging.getLogger("whygate.ledger")
_MAX_INT: Final = 2**53 - 1
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Unwritable(LedgerUnavailable):
    """This record can't be written as it is; others can."""


class Facet(NamedTuple):
    """What decisions are searched by. One row serves all decisions that agree in it."""

    agent: str
    tool: str
    outcome: str
    code: str

    @property
    def number(self) -> int:
        """A hash, so that it needs no lookup and comes out the same when the tables are made again."""
        text = "\0".join(self).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


Row = tuple[int, bytes, str, bytes | None, bytes | str | None, int | None, str | None, int | None, int, bytes, bytes]
"""``seq, id, kind, decision, task, prev, trace, facet, time_us, hash, bytes``: the columns of the table of records."""


_Names = tuple[bytes, bytes | None]
"""A record's own id, and that of the decision which it is about."""


class Batch(NamedTuple):
    """What goes into one commit."""

    rows: list[Row]
    facets: list[tuple[int, str, str, str, str]]
    blocks: list[tuple[int, int]]
    """Facets that occur in a block of records for the first time."""
    opened: list[Task]
    """Tasks that were opened or closed: their whole rows."""
    joined: list[tuple[str, int, int, int]]
    """Tasks that calls joined: id, ``last_us``, ``calls``, ``newest``."""
    policy: str
    low_water: int
    in_force: list[tuple[str, str, bytes | None]]
    """What changed of what is in force: kind, id, and how it is kept; ``None`` for what has left."""


@functools.lru_cache(maxsize=4096)
def key(text: str) -> bytes | str:
    """An id as it is stored: a UUID as its 16 bytes, anything else as it is."""
    if len(text) == 36:
        try:
            return bytes.fromhex(text.replace("-", ""))
        except ValueError:
            pass
    return text


def sealed_key(identity: str) -> bytes:
    """Where what belongs to a record's id is kept apart from it. Raises ``ValueError`` for what is no UUID."""
    return _uuid(identity)


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 section 2.1: the hash of a leaf of the tree, apart from that of a node by its first byte."""
    return hashlib.sha256(b"\0" + data).digest()


class Book:
    def __init__(self, *, writer: str, state: LiveState, seq: int = 0, last_us: int = 0) -> None:
        self.writer = writer
        self.state = state
        self.seq = seq
        """Number of the newest record taken."""
        self.last_us = last_us
        """Time of the newest record taken."""
        self._wall_us = last_us
        self._steady_us = 0
        self._now: datetime.datetime = from_us(last_us)
        self._rows: list[Row] = []
        self._facets: list[tuple[int, str, str, str, str]] = []
        self._blocks: list[tuple[int, int]] = []
        self._block = -1
        self._in_block: set[int] = set()
        self._seen: dict[Facet, int] = {}

    def begin(self, wall_us: int, steady_us: int = 0) -> None:
        """A new commit begins at this wall clock time. A step of the clock becomes its first record.

        ``steady_us`` is of a clock that nobody sets: what tells a step forward from time that has passed. 0: there is none.
        """
        back_us = self._wall_us - wall_us
        ahead_us = -back_us - (steady_us - self._steady_us) if self._steady_us else 0
        self._wall_us, self._steady_us = wall_us, steady_us
        if wall_us > self.last_us:
            self.last_us = wall_us
            self._now = from_us(wall_us)
        if back_us > STEP_US:
            told = "the clock was set back by %d s: recorded time stands still until %s, and so does what ends by it"
            _log.warning(told, round(back_us / 1e6), self._now.isoformat(timespec="seconds"))
            self.life("clock_step", {"back_us": back_us, "wall_us": wall_us})
        elif ahead_us > AHEAD_US:
            _log.warning("the clock was put forward by %d s: what ends by it, ends sooner", round(ahead_us / 1e6))
            self.life("clock_step", {"ahead_us": ahead_us, "wall_us": wall_us})

    def admit(self, entry: Iterable[AnyRecord], claims: Iterable[Claim] = ()) -> None:
        """Take all of ``entry``, or nothing of it.

        Raises ``ClaimFailed`` for the first claim that does not hold, ``Unwritable`` for a record that can't be stored.
        """
        for claim in claims:
            if not self.state.holds(claim, self.last_us):
                raise ClaimFailed(claim)
        entry = tuple(entry)
        for record in entry:
            if off := self.state.switched_off(record):
                raise ClaimFailed(Claim(key=off, kind="agent", value="active"))
        encoded = self._encode(entry)
        for record, data, names in encoded:
            self.seq += 1
            before = self.state.apply(record, self.seq, self.last_us)
            self._rows.append(self._row(record, data, names, before))

    def follow(self, completion: CompletionRecord) -> bool:
        """Take the end of a call; whether it was taken. The second end of a call is not: a call ends once."""
        if completion.decision not in self.state.calls:
            return False
        self.admit((completion,))
        return True

    def life(self, kind: str, data: Mapping[str, Any]) -> None:
        self.admit((LifeRecord(id=self._id(), kind=kind, data=dict(data), v=VERSION),))

    def unknown(self) -> None:
        """End the calls that nobody can end any more: who allowed them is gone."""
        for decision, call in list(self.state.calls.items()):
            ended = CompletionRecord(
                code=Code.OUTCOME_UNKNOWN,
                decision=decision,
                id=self._id(),
                kind=CompletionRecord.KIND,
                task=call.task,
                v=VERSION,
            )
            self.admit((ended,))

    def take(self) -> Batch | None:
        """Everything taken since the last time, for one commit; ``None`` where there is nothing."""
        if not self._rows:
            return None
        state = self.state
        opened = [task for name, task in state.changed.items() if name in state.whole]
        joined = [
            (one.id, one.last_us, one.calls, one.newest) for one in state.changed.values() if one.id not in state.whole
        ]
        changed = [(kind, name, body) for (kind, name), body in state.in_force.changed.items()]
        low = state.low_water(self.seq + 1)
        batch = Batch(self._rows, self._facets, self._blocks, opened, joined, state.policy, low, changed)
        self._rows, self._facets, self._blocks = [], [], []
        state.changed.clear()
        state.whole.clear()
        state.in_force.changed.clear()
        return batch

    def _encode(self, entry: Iterable[AnyRecord]) -> list[tuple[AnyRecord, bytes, _Names]]:
        encoded = []
        seq, now, writer = self.seq, self._now, self.writer
        for record in entry:
            seq += 1
            record.seq, record.time, record.writer = seq, now, writer
            try:
                names = _named(record)
                data = encode(record)
            except _UNENCODABLE as error:
                raise Unwritable(f"the {record.kind} record {record.id} can't be written: {error}") from error
            if len(data) > MAX_BYTES:
                raise Unwritable(
                    f"the {record.kind} record {record.id} has {len(data)} bytes; at most {MAX_BYTES} go in"
                )
            encoded.append((record, data, names))
        return encoded

    def _row(self, record: AnyRecord, data: bytes, names: _Names, before: int | None) -> Row:
        task = trace = facet = None
        if isinstance(record, DecisionRecord):
            context = record.context
            task = context.task
            known = self.state.tasks.get(task)
            # Only what differs is stored: a search by trace finds the task's records through its row.
            if context.trace_id and (known is None or known.trace_id != context.trace_id):
                trace = context.trace_id
            facet = self._facet(Facet(record.subject.id, record.resource.facet, record.outcome, record.reason.code))
        elif isinstance(record, CompletionRecord):
            task = record.task
        elif isinstance(record, TaskRecord):
            task = record.task.id
        elif isinstance(record, ApprovalRecord | GrantRecord):
            # They read in their task's chain, though they do not keep it alive.
            task = record.task or None
        return (
            self.seq,
            names[0],
            record.kind,
            names[1],
            key(task) if task else None,
            before,
            trace,
            facet,
            self.last_us,
            leaf_hash(data),
            data,
        )

    def _facet(self, facet: Facet) -> int:
        number = self._seen.get(facet)
        if number is None:
            if len(self._seen) >= MAX_FACETS:
                self._seen.clear()
            number = self._seen[facet] = facet.number
            self._facets.append((number, *facet))
        block = self.seq // BLOCK
        if block != self._block:
            self._block, self._in_block = block, set()
        if number not in self._in_block:
            self._in_block.add(number)
            self._blocks.append((number, block))
        return number

    def _id(self) -> str:
        return uuid7(self.last_us // 1000, os.urandom(10))


def _named(record: AnyRecord) -> _Names:
    """A record's names as they are stored. Raises for what types alone don't keep: ids that are no UUIDs, and what is no plain
    JSON where a record holds somebody's own keys.
    """
    of = None
    if isinstance(record, CompletionRecord):
        of = _uuid(record.decision)
    elif isinstance(record, DecisionRecord):
        if record.requires:
            _check_plain(record.requires)
        if record.repeats is not None:
            of = _uuid(record.repeats.of)
    elif isinstance(record, ApprovalRecord):
        # The question points at the decision that asked, what follows at the question.
        about = record.decision if record.event == "asked" else record.approval
        of = _uuid(about) if about else None
    elif isinstance(record, GrantRecord | WaiverRecord | BreakGlassRecord | ReviewRecord):
        of = _about(record)
    elif isinstance(record, LifeRecord):
        _check_plain(record.data)
    return _uuid(record.id), of


def _about(record: GrantRecord | WaiverRecord | BreakGlassRecord | ReviewRecord) -> bytes | None:
    """What began it: of an elevation the question that was agreed to, of all else its own first record."""
    match record:
        case GrantRecord():
            first = record.grant.approval if record.event == "granted" else record.grant.id
        case WaiverRecord():
            first = record.waiver.id
        case BreakGlassRecord():
            first = record.breakglass.id
        case _:
            first = record.review.id
    return _uuid(first) if first and first != record.id else None


def _uuid(text: str) -> bytes:
    found = bytes.fromhex(text.replace("-", ""))
    if len(found) != 16:
        raise ValueError(f"{text!r} is no UUID")
    return found


def _check_plain(value: object) -> None:
    """No floats (their text differs between implementations), integers within 2^53-1, ASCII keys."""
    if isinstance(value, float):
        raise TypeError("records hold no floats")
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise ValueError("records hold integers up to 2^53-1")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not (isinstance(name, str) and name.isascii()):
                raise ValueError(f"the key {name!r} is not ASCII text")
            _check_plain(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(inner)
