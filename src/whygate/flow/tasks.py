"""Which task a call belongs to.

Rules of this file:

1. A task is usable only by the principals that it names. An unknown task, an ended one and one of somebody else answer
   alike (``task.not_usable``), so that nobody learns which ids exist.
2. A call that names no task joins the one whose trace it came with, if it may; else its session's; else one of its
   principal that ends after an idle gap. A caller's own trace id never chooses the trace, unless the operator trusts it
   to (``adopt_trace``), and never one that is another's task already.
3. Opening a task is a record, durable together with the first decision that joins it, or before its id is handed out.
4. The registry is bounded. Every task has an end; of derived ones the longest idle leaves memory first, and its caller
   simply gets a new one. A session's name is the caller's word: who names more than ``MAX_SESSIONS`` in a working day
   gets one task for the rest, instead of a record and a task for each name.
"""

import datetime
from collections import Counter, OrderedDict, deque
from typing import Final

import msgspec

from whygate.core import ids
from whygate.core.calls import Fault, Hints
from whygate.core.facts import TaskFacts
from whygate.core.identity import Principal
from whygate.core.instants import from_us, to_us
from whygate.core.reasons import Code
from whygate.core.records import VERSION, Subject, TaskInfo, TaskRecord
from whygate.flow.ports import Clock, Ids, Ledger, StoredTask
from whygate.flow.quotas import MAX_OPEN_TASKS, TASKS_PER_HOUR, PerHour
from whygate.flow.subjects import subject_of

IDLE_GAP_US: Final = 30 * 60 * 1_000_000
"""A derived task ends when nothing has joined it for half an hour: a person's break, or another piece of work."""
DERIVED_MAX_US: Final = 8 * 3600 * 1_000_000
"""And after a working day in any case."""
MAX_DERIVED: Final = 50_000
"""Derived tasks kept in memory: about 40 MB at the most."""
MAX_SESSIONS: Final = 4096
"""Tasks derived for one principal within ``DERIVED_MAX_US``: a session every seven seconds, all day."""
DEFAULT_TTL_S: Final = 7 * 24 * 3600
SWEEP_EVERY_US: Final = 60 * 1_000_000
MAX_TTL_S: Final = 30 * 24 * 3600


class Joined(msgspec.Struct, frozen=True):
    """The task that a call joins."""

    task: TaskFacts
    opened: TaskRecord | None = None
    """To be recorded before the decision, where this call is the first of a derived task."""


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody verified asks for when opening a task."""

    agents: tuple[str, ...]
    goal: str = ""
    workflow: str = ""
    incident: str = ""
    ttl_s: int = DEFAULT_TTL_S


class Tasks:
    """The registry of live tasks: a cache of the ledger's live state, owned by the event loop."""

    def __init__(self, ledger: Ledger, clock: Clock, new_ids: Ids, trace_key: bytes, digest_key: bytes) -> None:
        self._ledger = ledger
        self._clock = clock
        self._ids = new_ids
        self._trace_key = trace_key
        self._digest_key = digest_key
        self._by_id: dict[str, StoredTask] = {}
        self._by_trace: dict[str, str] = {}
        self._joined: dict[str, Joined] = {}
        """What calls of a task are given, made once for each."""
        self._swept_us = 0
        self._derived: OrderedDict[tuple[str, str], str] = OrderedDict()
        """By opener and session; the longest idle first."""
        self._opened: dict[str, deque[int]] = {}
        """By principal: when its derived tasks were opened."""
        self._openings = PerHour(TASKS_PER_HOUR)
        self._open: Counter[str] = Counter()
        """By opener: tasks that it opened and that have not ended."""
        for task in ledger.tasks():
            self._keep(task)

    def join(self, principal: Principal, hints: Hints, now: datetime.datetime) -> Joined | Fault:
        """The task for a call, by what was named, else by trace, session or idle gap. Nothing is durable yet."""
        now_us = to_us(now)
        if hints.task:
            named = self._usable(hints.task, principal, now_us)
            return named if named is not None else Fault(code=Code.TASK_NOT_USABLE, note="the task named is not usable")
        if hints.parent is not None:
            traced = self._by_trace.get(hints.parent.trace_id)
            joined = self._usable(traced, principal, now_us) if traced else None
            if joined is not None:
                return joined
        return self._derive(principal, hints, now_us)

    def traced(self, trace_id: str, principal: Principal) -> TaskFacts | None:
        """The task with this trace, where ``principal`` may use it."""
        task = self._by_id.get(self._by_trace.get(trace_id, ""))
        if task is None or principal.kinds.isdisjoint((*task.agents, task.opened_by)):
            return None
        return _facts(task)

    def may_open(self, opener: Principal) -> Fault | None:
        """What keeps ``opener`` from opening one more task, if anything does; asking counts as opening."""
        now_us = to_us(self._clock.now())
        if not self._openings.take(opener.id, now_us):
            return Fault(code=Code.QUOTA_EXCEEDED, note=f"{TASKS_PER_HOUR} tasks an hour are opened for one caller")
        self._sweep(now_us)
        if self._open.get(opener.id, 0) >= MAX_OPEN_TASKS:
            return Fault(code=Code.QUOTA_EXCEEDED, note=f"{MAX_OPEN_TASKS} tasks of this caller are open")
        return None

    async def open(self, wanted: NewTask, opener: Principal) -> StoredTask:
        """Open a task durably. Raises ``LedgerUnavailable``. Does not check that ``opener`` may (``may_open``)."""
        now_us = to_us(self._clock.now())
        task_id = self._ids.new()
        task = StoredTask(
            id=task_id,
            trace_id=ids.trace_id(self._trace_key, task_id),
            workflow=wanted.workflow,
            incident=wanted.incident,
            agents=wanted.agents,
            opened_us=now_us,
            opened_by=opener.id,
            expires_us=now_us + wanted.ttl_s * 1_000_000,
            last_us=now_us,
        )
        goal = ids.keyed_digest(self._digest_key, wanted.goal.encode()) if wanted.goal else ""
        self._sweep(now_us)
        await self._ledger.append(self._record(task, subject_of(opener), goal))
        # Dying here leaves an open task that nobody was told of; it ends by itself.
        self._keep(task)
        return task

    def forget(self, task_id: str) -> None:
        """The ledger says that this task is not open: it has ended, or whoever was the first to join it left before its
        opening was written. Its next caller gets another, or hears that it is not usable.
        """
        self._drop(task_id)

    def _usable(self, task_id: str, principal: Principal, now_us: int) -> Joined | None:
        task = self._by_id.get(task_id)
        if task is None or task.closed or (task.expires_us and task.expires_us <= now_us):
            return None
        if principal.kinds.isdisjoint(task.agents):
            return None
        return self._join(task, now_us)

    def _join(self, task: StoredTask, now_us: int) -> Joined:
        task.last_us = now_us
        if task.derived:
            self._derived.move_to_end((task.opened_by, task.session))
        joined = self._joined.get(task.id)
        if joined is None:
            joined = self._joined[task.id] = Joined(_facts(task))
        return joined

    def _derive(self, principal: Principal, hints: Hints, now_us: int) -> Joined:
        key = (principal.id, hints.session)
        known = self._by_id.get(self._derived.get(key, ""))
        if (
            known is not None
            and now_us - known.last_us < IDLE_GAP_US
            and now_us - known.opened_us < DERIVED_MAX_US
            and not known.closed
        ):
            return self._join(known, now_us)
        if hints.session and self._crowded(principal.id, now_us):
            return self._derive(principal, msgspec.structs.replace(hints, session=""), now_us)
        task_id = self._ids.new()
        adopted = principal.adopt_trace and hints.parent is not None and self._free(hints.parent.trace_id, principal)
        trace = hints.parent.trace_id if adopted and hints.parent else ids.trace_id(self._trace_key, task_id)
        task = StoredTask(
            id=task_id,
            trace_id=trace,
            session=hints.session,
            agents=(principal.id,),
            derived=True,
            opened_us=now_us,
            opened_by=principal.id,
            expires_us=now_us + DERIVED_MAX_US,
            last_us=now_us,
        )
        self._keep(task)
        return Joined(_facts(task), self._record(task, subject_of(principal), ""))

    def _crowded(self, opener: str, now_us: int) -> bool:
        opened = self._opened.get(opener, _NONE)
        while opened and now_us - opened[0] >= DERIVED_MAX_US:
            opened.popleft()
        return len(opened) >= MAX_SESSIONS

    def _free(self, trace_id: str, principal: Principal) -> bool:
        """Whether nobody else's task has this trace: else its calls could no longer be joined by it."""
        other = self._by_id.get(self._by_trace.get(trace_id, ""))
        return other is None or other.opened_by == principal.id

    def _record(self, task: StoredTask, opener: Subject, goal_digest: str) -> TaskRecord:
        return TaskRecord(
            event="opened",
            id=self._ids.new(),
            kind="task",
            subject=opener,
            task=TaskInfo(
                agents=task.agents,
                derived=task.derived,
                expires_at=from_us(task.expires_us) if task.expires_us else None,
                goal_digest=goal_digest,
                id=task.id,
                incident=task.incident,
                session=task.session,
                trace_id=task.trace_id,
                workflow=task.workflow,
            ),
            v=VERSION,
        )

    def _keep(self, task: StoredTask) -> None:
        self._by_id[task.id] = task
        self._by_trace[task.trace_id] = task.id
        if not task.derived:
            self._open[task.opened_by] += 1
            return
        self._opened.setdefault(task.opened_by, deque(maxlen=MAX_SESSIONS)).append(task.opened_us)
        key = (task.opened_by, task.session)
        previous = self._derived.pop(key, None)
        if previous is not None:
            self._drop(previous)
        self._derived[key] = task.id
        while len(self._derived) > MAX_DERIVED:
            self._drop(self._derived.popitem(last=False)[1])

    def _sweep(self, now_us: int) -> None:
        """Let go of opened tasks that have ended. Called where tasks are opened, so that memory follows use."""
        if now_us - self._swept_us < SWEEP_EVERY_US:
            return
        self._swept_us = now_us
        for task in [task for task in self._by_id.values() if not task.derived and task.expires_us <= now_us]:
            self._drop(task.id)

    def _drop(self, task_id: str) -> None:
        self._joined.pop(task_id, None)
        task = self._by_id.pop(task_id, None)
        if task is not None and self._by_trace.get(task.trace_id) == task.id:
            del self._by_trace[task.trace_id]
        if task is not None and not task.derived:
            self._open[task.opened_by] -= 1
            if not self._open[task.opened_by]:
                del self._open[task.opened_by]


_NONE: Final[deque[int]] = deque(maxlen=0)


def _facts(task: StoredTask) -> TaskFacts:
    return TaskFacts(
        id=task.id,
        trace_id=task.trace_id,
        root_span_id=ids.span_id("root", task.trace_id),
        workflow=task.workflow,
        incident=task.incident,
        derived=task.derived,
        opened_at=from_us(task.opened_us),
        opened_by=task.opened_by,
        expires_at=from_us(task.expires_us) if task.expires_us else None,
    )
