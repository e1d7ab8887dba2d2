"""Live state as a function of the records: what is open, what is in force, which calls have not ended.

Rules of this file:

1. State changes by ``apply`` alone, and ``apply`` looks at the record, its number and its time, and at nothing else. So the
   state that a store keeps in tables can be thrown away and made again from the records (``fold``).
2. A claim that is not understood does not hold.
3. Memory is bounded by what is open: tasks leave when they are closed or have expired, calls when they have ended.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from whygate.core import records
from whygate.core.decision import Claim
from whygate.core.events import ApprovalRecord, GrantRecord
from whygate.core.in_force import CLAIMS, InForce
from whygate.core.instants import to_us
from whygate.core.reasons import Code
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord, PolicyRecord, TaskRecord
from whygate.flow.ports import StoredTask


class Task(StoredTask, kw_only=True):
    """A task as the ledger keeps it."""

    calls: int = 0
    """Decisions that joined it, refused ones included."""
    newest: int = 0
    """Number of its newest record while it was live: where the way back through its chain begins."""

    def plain(self) -> StoredTask:
        """A copy for others to keep: the ledger's own goes on changing."""
        return StoredTask(**{name: getattr(self, name) for name in StoredTask.__struct_fields__})


class OpenCall(NamedTuple):
    """A call that was allowed and has not ended."""

    seq: int
    task: str


class LiveState:
    """Not thread-safe: belongs to whoever writes."""

    def __init__(self) -> None:
        self.policy = ""
        """Digest of the set of the newest ``in_force`` record."""
        self.tasks: dict[str, Task] = {}
        """Open and not expired."""
        self.calls: dict[str, OpenCall] = {}
        """By the decision's id, in the order of ``seq``."""
        self.changed: dict[str, Task] = {}
        """Tasks that differ from what the store last wrote; the store empties it."""
        self.whole: set[str] = set()
        """Those of them whose row is new, or differs in more than what a call that joins changes; emptied likewise."""
        self.in_force = InForce()
        """Questions, elevations, exceptions, the kill switch, people."""
        self._expiries: list[tuple[int, str]] = []

    def keep(self, task: Task) -> None:
        """Take an open task in, at start or when it is opened."""
        self.tasks[task.id] = task
        if task.expires_us:
            heapq.heappush(self._expiries, (task.expires_us, task.id))

    def holds(self, claim: Claim, now_us: int) -> bool:
        if claim.kind == "policy":
            return claim.value == self.policy
        if claim.kind == "task":
            task = self.tasks.get(claim.key)
            return task is not None and claim.value == "open" and not 0 < task.expires_us <= now_us
        return claim.kind in CLAIMS and self.in_force.holds(claim, now_us)

    def switched_off(self, record: AnyRecord) -> str:
        """Who was switched off meanwhile, of those that a permission is for; empty where nobody was. Every permission claims
        that, so none says so.
        """
        suspended = self.in_force.suspended
        if not suspended or not isinstance(record, DecisionRecord) or record.effect != "allow":
            return ""
        subject = record.subject
        return next((who for who in (subject.id, *(each.id for each in subject.on_behalf_of)) if who in suspended), "")

    def sweep(self, now_us: int) -> None:
        """Forget tasks that have expired. Part of ``apply``: whether a task still counts depends on a record's time alone."""
        while self._expiries and self._expiries[0][0] <= now_us:
            expires_us, task_id = heapq.heappop(self._expiries)
            task = self.tasks.get(task_id)
            if task is not None and task.expires_us == expires_us:
                del self.tasks[task_id]

    def apply(self, record: AnyRecord, seq: int, now_us: int) -> int | None:
        """What ``record`` changes. ``now_us`` is the record's own time.

        Returns the number of the record before it in its task's chain, 0 for the first of one, ``None`` where it belongs to
        no live task.
        """
        if self._expiries:
            self.sweep(now_us)
        self.in_force.apply(record, now_us)
        before = None
        if isinstance(record, DecisionRecord):
            before = self._link(record.context.task, seq)
            self.note_call(record, seq)
            self._decided(record, now_us)
        elif isinstance(record, CompletionRecord):
            before = self._link(record.task, seq)
            self.note_call(record, seq)
        elif isinstance(record, ApprovalRecord | GrantRecord):
            before = self._link(record.task, seq)
        elif isinstance(record, TaskRecord):
            if record.event == "opened":
                self._open(record, now_us)
            before = self._link(record.task.id, seq)
            if record.event == "closed":
                self._close(record.task.id)
        elif isinstance(record, PolicyRecord) and record.event == "in_force":
            self.policy = record.digest
        return before

    def _link(self, task_id: str, seq: int) -> int | None:
        task = self.tasks.get(task_id)
        if task is None:
            return None
        before = task.newest
        task.newest = seq
        self.changed[task_id] = task
        return before

    def low_water(self, next_seq: int) -> int:
        """No call that is open has a smaller number than this."""
        for call in self.calls.values():
            return call.seq
        return next_seq

    def note_call(self, record: DecisionRecord | CompletionRecord, seq: int) -> None:
        """The part of ``apply`` that a start repeats over the last records, where the rest comes from the tables."""
        if isinstance(record, CompletionRecord):
            self.calls.pop(record.decision, None)
        # A decision about a call that another enforcement point carries out gets no completion from us.
        elif record.effect == "allow" and record.enforcement == "gateway":
            self.calls[record.id] = OpenCall(seq, record.context.task)

    def _decided(self, record: DecisionRecord, now_us: int) -> None:
        task = self.tasks.get(record.context.task)
        # Whoever may not use a task must not keep it alive by knocking.
        if task is not None and record.reason.code != Code.TASK_NOT_USABLE:
            task.last_us = now_us
            task.calls += 1
            self.changed[task.id] = task

    def _open(self, record: TaskRecord, now_us: int) -> None:
        info = record.task
        if info.id in self.tasks:
            return  # opened twice: the first opening, with its principals, stands
        task = Task(
            id=info.id,
            trace_id=info.trace_id,
            workflow=info.workflow,
            incident=info.incident,
            session=info.session,
            agents=info.agents,
            derived=info.derived,
            opened_us=now_us,
            opened_by=record.subject.id,
            expires_us=to_us(info.expires_at) if info.expires_at is not None else 0,
            last_us=now_us,
        )
        self.keep(task)
        self.changed[task.id] = task
        self.whole.add(task.id)

    def _close(self, task_id: str) -> None:
        task = self.tasks.pop(task_id, None)
        if task is not None:
            task.closed = True
            self.changed[task_id] = task
            self.whole.add(task_id)


class Folded(NamedTuple):
    """Live state made again from the records."""

    state: LiveState
    tasks: dict[str, Task]
    """Every task there ever was, closed and expired ones included: what the table of tasks must hold."""


def fold(leaves: Iterable[bytes]) -> Folded:
    """The live state after these records, which begin with the first one of the ledger."""
    state, tasks = LiveState(), dict[str, Task]()
    for data in leaves:
        record = records.decode(data)
        state.apply(record, record.seq, to_us(record.time))
        tasks.update(state.changed)
        state.changed.clear()
    return Folded(state, tasks)
