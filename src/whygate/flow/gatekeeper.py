"""The gatekeeper: one call's way from a question to a durable decision.

Rules of this file:

1. Nothing but ``decide`` decides. What goes wrong on the way becomes a fault or a fact for it.
2. No record, no call: ``admit`` returns only after the decision is durable. If the ledger can't write, the answer is
   ``audit.unavailable``, and it alone has no record.
3. A claim that failed in the commit means that the world moved: decide again with fresh facts, a bounded number of
   times.
4. Nothing raises out of here into an edge.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from whygate.core import ids
from whygate.core.calls import Fault, Hints, Tool, ToolCall
from whygate.core.decide import decide
from whygate.core.decision import Decision, Mode
from whygate.core.facts import Facts, TaskFacts
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.core.records import (
    VERSION,
    Arguments,
    Claimed,
    Client,
    CompletionRecord,
    Context,
    DecisionRecord,
    Link,
    PolicyInForce,
    Reason,
    Resource,
    ResultDigest,
    TaskRecord,
)
from whygate.core.things import KINDS
from whygate.flow.catalogue import Catalogue
from whygate.flow.policies import Policies
from whygate.flow.ports import (
    Admission,
    Answer,
    ClaimFailed,
    Clock,
    Completion,
    Ids,
    Ledger,
    LedgerUnavailable,
    Observer,
)
from whygate.flow.quotas import MAX_IN_FLIGHT, RECORDED_PER_HOUR, REFUSED_PER_HOUR, STREAMS, InFlight, PerHour
from whygate.flow.repeats import Overdrawn, Strangers
from whygate.flow.subjects import action_of, resource_of, subject_of
from whygate.flow.tasks import Tasks
from whygate.flow.things import thing_of

TRIES: Final = 4
"""A claim fails when a policy is reloaded or a task closed in the very microseconds of a commit. Four in a row means
that something else is wrong."""

TELL_NS: Final = 1_000_000_000
"""Between two lines of the log about calls that could not be recorded: thousands a second would fill another disk."""
_CROWDED: Final = Fault(code=Code.QUOTA_EXCEEDED, note=f"{MAX_IN_FLIGHT} calls of this caller are in flight")
_OVERDRAWN: Final = Fault(
    code=Code.QUOTA_EXCEEDED, note=f"{RECORDED_PER_HOUR} calls an hour are recorded for one caller"
)
_REPEATING: Final = f"{REFUSED_PER_HOUR} refusals an hour are recorded for one caller; this one would be one more"

_log = logging.getLogger("whygate.gatekeeper")
_KINDS: Final = frozenset(KINDS)
_ENFORCE: Final = Mode.ENFORCE.value
_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the gatekeeper works with; built once by the wiring."""

    ledger: Ledger
    policies: Policies
    tasks: Tasks
    catalogue: Catalogue
    clock: Clock
    ids: Ids
    digest_key: bytes
    observer: Observer
    deployment: str = ""


class Gatekeeper:
    """Implements ``flow.ports.Gate``."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._ledger = around.ledger
        self._tasks = around.tasks
        self._policies = around.policies
        self._clock = around.clock
        self._new_id = around.ids.new
        self._digest_key = around.digest_key
        self._observer = around.observer
        self._in_flight = InFlight()
        self._unrecorded = self._told_ns = 0
        self._recorded, self._refused = PerHour(RECORDED_PER_HOUR), PerHour(REFUSED_PER_HOUR)
        self.strangers = Strangers(around.ledger, around.clock, around.ids)
        self.overdrawn = Overdrawn(around.ledger, around.clock, around.ids)

    async def admit(self, call: ToolCall) -> Admission:
        """Decide, and make the decision durable."""
        started_ns = time.perf_counter_ns()
        caller, ticket = call.principal, 0
        if caller.authenticated:
            ticket = self._in_flight.begin(caller.id, started_ns)
            if not ticket:
                call = msgspec.structs.replace(call, faults=(*call.faults, _CROWDED))
            if not self._recorded.take(caller.id, started_ns // 1000):
                call = msgspec.structs.replace(call, faults=(_OVERDRAWN,))
        try:
            admission = await self._admit(call)
        except asyncio.CancelledError:
            # What was written nevertheless, the ledger ends as not forwarded.
            self._in_flight.end(caller.id, ticket)
            raise
        except LedgerUnavailable as broken:
            self._tell_unrecorded(call, broken, started_ns)
            admission = _without_record(call, Code.AUDIT_UNAVAILABLE)
        except Exception:  # noqa: BLE001  # rule 4: whatever it is, the caller gets a recorded refusal
            _log.exception("deciding or recording failed in an unforeseen way")
            admission = await self._internal(call)
        if admission.allowed and (call.method not in STREAMS or call.protocol != "mcp"):
            admission.ticket = ticket
        elif ticket:
            self._in_flight.end(caller.id, ticket)
        admission.admitted_ns = time.perf_counter_ns()
        self._observer.decided(admission, (admission.admitted_ns - started_ns) / 1e9)
        return admission

    def _tell_unrecorded(self, call: ToolCall, broken: LedgerUnavailable, now_ns: int) -> None:
        """Law 3's exception: this refusal alone goes to stderr and metrics only, and the ledger tells of the gap later."""
        self._unrecorded += 1
        if self._unrecorded == 1 or now_ns - self._told_ns >= TELL_NS:
            self._told_ns = now_ns
            told = "refused %s: %s: %s (the %d. since the start)"
            _log.error(told, call.method, Code.AUDIT_UNAVAILABLE, broken, self._unrecorded)

    def complete(self, admission: Admission, completion: Completion) -> None:
        """Record what became of an allowed call, with the next commit."""
        elapsed_ns = time.perf_counter_ns() - admission.admitted_ns
        if admission.ticket:
            self._in_flight.end(admission.call.principal.id, admission.ticket)
        if admission.record is not None and admission.allowed:
            self._ledger.follow(
                CompletionRecord(
                    code=completion.code.value if completion.code is not None else "",
                    decision=admission.record.id,
                    duration_us=elapsed_ns // 1000,
                    error=completion.error,
                    hidden=completion.hidden,
                    id=self._new_id(),
                    is_error=completion.is_error,
                    kind="completion",
                    result=ResultDigest(bytes=completion.result_bytes, digest=completion.result_digest),
                    servers=completion.servers,
                    status=completion.status,
                    task=admission.task_id,
                    v=VERSION,
                )
            )
        self._observer.completed(admission, completion, elapsed_ns / 1e9)

    def visible(self, principal: Principal, tool_id: str) -> bool:
        """Whether some rule could permit the tool to this principal."""
        policy = self._policies.current
        tool = self._around.catalogue.by_id(tool_id)
        return policy is not None and tool is not None and policy.visible(principal, tool)

    def shows(self, principal: Principal, thing: Tool) -> bool:
        """Whether some rule could permit the resource or prompt to this principal."""
        policy = self._policies.current
        return policy is not None and policy.visible(principal, thing)

    async def glance(self, call: ToolCall) -> Admission | None:
        """Decide what is recorded only where it is refused: a ping, a notification. ``None``: it may pass."""
        if call.principal.authenticated and self._decide(call, None, self._clock.now())[0].allows:
            return None
        return await self.admit(call)

    def digest(self, data: bytes) -> str:
        """Keyed digest, for results."""
        return ids.keyed_digest(self._digest_key, data)

    def hasher(self) -> ids.KeyedHash:
        return ids.KeyedHash(self._digest_key)

    async def _admit(self, call: ToolCall) -> Admission:
        if not call.principal.authenticated:
            return await self._stranger(call)
        opened: TaskRecord | None = None
        for _ in range(TRIES):
            now = self._clock.now()
            task: TaskFacts | None = None
            joined = self._tasks.join(call.principal, call.hints, now)
            if isinstance(joined, Fault):
                call = msgspec.structs.replace(call, faults=(*call.faults, joined), hints=_without_task(call))
                joined = self._tasks.join(call.principal, call.hints, now)
            if not isinstance(joined, Fault):
                task = joined.task
                opened = joined.opened or opened
            decision, duration_us = self._decide(call, task, now)
            if not decision.allows and (counted := await self._overdrawn(call, decision)) is not None:
                return counted
            record = self._record(call, decision, task, duration_us)
            try:
                if opened is None:
                    await self._ledger.append(record, claims=decision.claims)
                else:
                    # The task opens in this very commit: whether it is open is no claim then.
                    claims = tuple(claim for claim in decision.claims if claim.key != opened.task.id)
                    await self._ledger.append(opened, record, claims=claims)
            except ClaimFailed as failed:
                _log.info("decided again: the claim %s no longer held", failed)
                if failed.claim.kind == "task":
                    self._tasks.forget(failed.claim.key)
                continue
            # Dying here: the decision is durable, nothing was sent; the next start records outcome.unknown.
            return _admission(call, decision, record, task)
        return await self._refuse(call, Fault(code=Code.CONTEXT_INCOMPLETE, note="the facts kept changing"))

    async def _overdrawn(self, call: ToolCall, decision: Decision) -> Admission | None:
        """The refusal of a caller whose quota of records is used up: counted, not recorded one by one; ``None`` where there
        is some left, or nothing could be permitted anyway.
        """
        if call.faults != (_OVERDRAWN,):
            if self._refused.take(call.principal.id, time.perf_counter_ns() // 1000):
                return None
            decision = _plain(Code.QUOTA_EXCEEDED, _REPEATING)
        # Dying before it is durable: the caller was not answered. Afterwards at most ten seconds of counts are lost.
        record = await self.overdrawn.refused(
            call.principal.id, decision.code, lambda: self._record(call, decision, None, 0)
        )
        return _admission(call, decision, record, None)

    async def _stranger(self, call: ToolCall) -> Admission:
        """Whoever proved nothing is refused, whatever was asked; repeats of it are counted."""
        decision, duration_us = self._decide(call, None, self._clock.now())
        if decision.allows:  # `decide` permits nothing to nobody; said again for whoever reads only this file
            return await self._refuse(call, Fault(code=Code.INTERNAL_ERROR))
        record = await self.strangers.refused(
            call.client, decision.code, lambda: self._record(call, decision, None, duration_us)
        )
        return _admission(call, decision, record, None)

    def _decide(self, call: ToolCall, task: TaskFacts | None, now: datetime.datetime) -> tuple[Decision, int]:
        started_ns = time.perf_counter_ns()
        policy = self._policies.current
        if policy is None:
            return _plain(Code.POLICY_INVALID), 0
        facts = Facts(now=now, task=task, deployment=self._around.deployment)
        decision = decide(call, facts, policy)
        return decision, (time.perf_counter_ns() - started_ns) // 1000

    async def _refuse(self, call: ToolCall, fault: Fault) -> Admission:
        """Record a refusal that rests on no rule and no claim."""
        decision = _plain(fault.code, fault.note)
        record = self._record(call, decision, None, 0)
        await self._ledger.append(record)
        return _admission(call, decision, record, None)

    async def _internal(self, call: ToolCall) -> Admission:
        try:
            return await self._refuse(call, Fault(code=Code.INTERNAL_ERROR))
        except Exception:  # noqa: BLE001  # rule 4, once more: the last line of defence
            _log.exception("not even the refusal could be recorded")
            return _without_record(call, Code.AUDIT_UNAVAILABLE)

    def _record(self, call: ToolCall, decision: Decision, task: TaskFacts | None, duration_us: int) -> DecisionRecord:
        record_id = self._new_id()
        said = call.args if not call.answers else {"answers": call.answers, "arguments": call.args}
        return DecisionRecord(
            action=action_of(call.protocol, call.method, call.tool),
            arguments=Arguments(digest=self.digest(_sorted_json(said)) if said else ""),
            claims=decision.claims,
            client=Client(address=call.client),
            context=_context(call, task, record_id),
            determined_by=decision.determined_by,
            duration_us=duration_us,
            effect=decision.outcome.effect,
            evaluations=decision.evaluations,
            id=record_id,
            kind="decision",
            mode=_ENFORCE,
            next=decision.next._value_,
            outcome=decision.outcome._value_,
            policy=PolicyInForce(digest=decision.policy_digest),
            reason=Reason(admin=decision.admin, code=decision.code._value_, user=decision.user),
            requires=_required(decision) if decision.requires else (),
            resource=_resource(call, decision, self.digest),
            subject=subject_of(call.principal),
            v=VERSION,
        )


def _required(decision: Decision) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"kind": need.kind, "params": need.params, "policy": need.policy, "rule": need.rule}
        for need in decision.requires
    )


def _context(call: ToolCall, task: TaskFacts | None, record_id: str) -> Context:
    """Where the call stands: its task, its trace, its parent. A foreign trace is linked, never joined."""
    hints = call.hints
    trace = task.trace_id if task is not None else ids.span_id("trace", record_id) + ids.span_id("lone", record_id)
    parent, link = "", None
    if hints.parent is not None:
        if hints.parent.trace_id == trace:
            parent = hints.parent.span_id
        else:
            link = Link(span_id=hints.parent.span_id, trace_id=hints.parent.trace_id)
    claimed = Claimed(incident=hints.incident, workflow=hints.workflow) if hints.incident or hints.workflow else None
    return Context(
        claimed=claimed,
        hop=len(call.principal.on_behalf_of),
        incident=task.incident if task is not None else "",
        link=link,
        parent=parent,
        request=call.request_id,
        revision=call.version,
        session=hints.session,
        span_id=ids.span_id("server", record_id),
        task=task.id if task is not None else "",
        trace_id=trace,
        workflow=task.workflow if task is not None else "",
    )


def _resource(call: ToolCall, decision: Decision, digest: Callable[[bytes], str]) -> Resource:
    tool = call.tool
    if tool is not None and tool.type in _KINDS:
        return thing_of(call, tool, allows=decision.allows, digest=digest)
    if tool is None or not (tool.known or decision.allows):
        return Resource(asked=call.asked or (tool.name if tool is not None else ""), server=call.server)
    return resource_of(tool)


def _admission(call: ToolCall, decision: Decision, record: DecisionRecord, task: TaskFacts | None) -> Admission:
    return Admission(
        call=call,
        decision=decision,
        record=record,
        answer=Answer(
            id=record.id, outcome=decision.outcome, code=decision.code, note=decision.user, next=decision.next
        ),
        traceparent=f"00-{record.context.trace_id}-{ids.span_id('client', record.id)}-01",
        task_id=task.id if task is not None else "",
    )


def _without_record(call: ToolCall, code: Code) -> Admission:
    decision = _plain(code)
    answer = Answer(id="", outcome=decision.outcome, code=code, note=decision.user, next=decision.next)
    return Admission(call=call, decision=decision, record=None, answer=answer)


def _plain(code: Code, note: str = "") -> Decision:
    """A decision that no rule took part in."""
    entry = code.entry
    admin = f"{entry.meaning} {note}".strip()
    return Decision(outcome=code.outcome, code=code, admin=admin, user=entry.user, next=entry.next)


def _without_task(call: ToolCall) -> Hints:
    return msgspec.structs.replace(call.hints, task="")
