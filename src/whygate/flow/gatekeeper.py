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
import contextlib
import datetime
import logging
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from whygate.core import ids
from whygate.core.approvals import State
from whygate.core.calls import Fault, Hints, Tool, ToolCall
from whygate.core.decide import decide
from whygate.core.decision import Claim, Decision
from whygate.core.facts import Facts, TaskFacts
from whygate.core.identity import Principal
from whygate.core.instants import from_us
from whygate.core.policy.wants import HumanWant
from whygate.core.reasons import Code
from whygate.core.records import VERSION, AnyRecord, CompletionRecord, DecisionRecord, ResultDigest, TaskRecord
from whygate.flow.admissions import admission as admission_of
from whygate.flow.admissions import plain, spending, without_record
from whygate.flow.authority import NOTHING_KNOWN, Authority, Known
from whygate.flow.catalogue import Catalogue
from whygate.flow.policies import Policies
from whygate.flow.ports import (
    Admission,
    ClaimFailed,
    Clock,
    Completion,
    Ids,
    Ledger,
    LedgerUnavailable,
    Observer,
)
from whygate.flow.questions import Question, Questions
from whygate.flow.quotas import MAX_IN_FLIGHT, RECORDED_PER_HOUR, REFUSED_PER_HOUR, STREAMS, InFlight, PerHour
from whygate.flow.recording import arguments_digest, recorded
from whygate.flow.repeats import Overdrawn, Strangers
from whygate.flow.subjects import subject_of
from whygate.flow.tasks import Tasks

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

_OWN: Final = "whygate/"
"""The gateway's own tools (``mcp.own_tools``): everybody's whom it knows."""
_log = logging.getLogger("whygate.gatekeeper")


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
    authority: Authority
    console: str = ""
    """Where people answer: the console's address, without a path."""
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
        self._authority = around.authority
        self._questions = Questions(around.authority, around.catalogue)
        self._in_flight, self._held = InFlight(), InFlight()
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
            admission = without_record(call, Code.AUDIT_UNAVAILABLE)
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
        if tool_id.startswith(_OWN):
            return True
        policy = self._policies.current
        tool = self._around.catalogue.by_id(tool_id)
        return policy is not None and tool is not None and policy.visible(principal, tool)

    def shows(self, principal: Principal, thing: Tool) -> bool:
        """Whether some rule could permit the resource or prompt to this principal."""
        policy = self._policies.current
        return policy is not None and policy.visible(principal, thing)

    async def glance(self, call: ToolCall) -> Admission | None:
        """Decide what is recorded only where it is refused: a ping, a notification. ``None``: it may pass."""
        if call.principal.authenticated and self._decide(call, None, self._clock.now())[1].allows:
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
            asked, (call, decision, duration_us) = call, self._decide(call, task, now)
            if not decision.allows and (counted := await self._overdrawn(call, decision)) is not None:
                return counted
            question: Question | None = None
            if decision.asks:
                decision, question = self._questions.open(call, decision, task, policy=self._policies.current)
            record = self._record(call, decision, task, duration_us)
            claims = decision.claims
            if opened is not None:
                # The task opens in this very commit: whether it is open is no claim then.
                claims = tuple(claim for claim in claims if claim.key != opened.task.id)
            records: tuple[AnyRecord, ...] = (record,) if opened is None else (opened, record)
            try:
                if question is not None:
                    sealed = {question.record.id: question.sealed}
                    about = question.about(record)
                    await self._authority.commit(*records, about, claims=(*claims, question.claim), sealed=sealed)
                elif decision.approval is not None or decision.grant:
                    await self._authority.commit(*records, claims=claims)
                else:
                    await self._ledger.append(*records, claims=claims)
            except ClaimFailed as failed:
                _log.info("decided again: the claim %s no longer held", failed)
                if failed.claim.kind == "task":
                    self._tasks.forget(failed.claim.key)
                continue
            # Dying here: the decision is durable, nothing was sent; the next start records outcome.unknown.
            admission = admission_of(call, decision, record, task)
            admission.before = asked.args if call is not asked else None
            return admission if decision.approval is None else self._with_question(admission, decision.approval.id)
        return await self._refuse(call, Fault(code=Code.CONTEXT_INCOMPLETE, note="the facts kept changing"))

    def _with_question(self, admission: Admission, identity: str) -> Admission:
        """With what the caller needs to know of the question that it waits for."""
        approval = self._authority.find(identity)
        if approval is None or admission.allowed:
            return admission
        policy = self._policies.current
        rule = None if policy is None else policy.wanting.get(approval.asked.rule_digest)
        url, by = "", ""
        if approval.state is State.PENDING:
            admission.approval = approval
            admission.want = rule.want if rule is not None and isinstance(rule.want, HumanWant) else None
            url = f"{self._around.console}/console/approvals/{approval.id}"
            by = from_us(approval.answer_by_us).isoformat(timespec="seconds")
        admission.answer = msgspec.structs.replace(admission.answer, approval=identity, approval_url=url, answer_by=by)
        return admission

    async def _overdrawn(self, call: ToolCall, decision: Decision) -> Admission | None:
        """The refusal of a caller whose quota of records is used up: counted, not recorded one by one; ``None`` where there
        is some left, or nothing could be permitted anyway.
        """
        if call.faults != (_OVERDRAWN,):
            if self._refused.take(call.principal.id, time.perf_counter_ns() // 1000):
                return None
            decision = plain(Code.QUOTA_EXCEEDED, _REPEATING)
        # Dying before it is durable: the caller was not answered. Afterwards at most ten seconds of counts are lost.
        record = await self.overdrawn.refused(
            call.principal.id, decision.code, lambda: self._record(call, decision, None, 0)
        )
        return admission_of(call, decision, record, None)

    async def _stranger(self, call: ToolCall) -> Admission:
        """Whoever proved nothing is refused, whatever was asked; repeats of it are counted."""
        _, decision, duration_us = self._decide(call, None, self._clock.now())
        if decision.allows:  # `decide` permits nothing to nobody; said again for whoever reads only this file
            return await self._refuse(call, Fault(code=Code.INTERNAL_ERROR))
        record = await self.strangers.refused(
            call.client, decision.code, lambda: self._record(call, decision, None, duration_us)
        )
        return admission_of(call, decision, record, None)

    def _decide(self, call: ToolCall, task: TaskFacts | None, now: datetime.datetime) -> tuple[ToolCall, Decision, int]:
        """The call as it was decided on (an approver may have narrowed it), the decision, and what it took (microseconds)."""
        started_ns = time.perf_counter_ns()
        policy = self._policies.current
        if policy is None:
            return call, plain(Code.POLICY_INVALID), 0
        known = self._authority.known(call, task, lambda: arguments_digest(call, self.digest))
        facts = self._facts(known, task, now)
        decision = decide(call, facts, policy)
        if known.narrowed is not None and known.narrowing is not None and not decision.allows:
            # Nobody agreed to the call as it came: only as it was changed, and that is what is decided and sent.
            approval = known.narrowing
            changed = msgspec.structs.replace(call, args=dict(known.narrowed))
            found = decide(changed, msgspec.structs.replace(facts, approvals=(approval, *facts.approvals)), policy)
            if found.allows:
                call, decision = changed, spending(found, approval)
        return call, decision, (time.perf_counter_ns() - started_ns) // 1000

    def _facts(self, known: Known, task: TaskFacts | None, now: datetime.datetime) -> Facts:
        deployment, state = self._around.deployment, self._authority.state
        if known is NOTHING_KNOWN and not state.waivers and not state.breakglass:
            return Facts(now=now, task=task, deployment=deployment)
        return Facts(
            now=now,
            task=task,
            deployment=deployment,
            approvals=known.approvals,
            presented=known.presented,
            grants=known.grants,
            elevations=known.elevations,
            ended=known.ended,
            waivers=tuple(state.waivers.values()),
            breakglass=tuple(state.breakglass.values()),
            suspended=known.suspended,
        )

    async def settled(self, admission: Admission, within_s: float) -> bool | None:
        """See ``flow.ports.Gate``."""
        if admission.approval is None:
            return None
        caller = admission.call.principal.id
        ticket = self._held.begin(caller, time.perf_counter_ns())
        if not ticket:
            return None
        try:
            return await self._authority.settled(admission.approval.id, within_s)
        finally:
            self._held.end(caller, ticket)

    async def client_answers(self, admission: Admission, approve: bool | None) -> None:  # noqa: FBT001  the port's
        """See ``flow.ports.Gate``."""
        approval = None if admission.approval is None else self._authority.find(admission.approval.id)
        if approval is None or approval.state is not State.PENDING:
            return
        trusted = admission.want is not None and admission.want.client and approval.asked.quorum == 1
        if approve is not None and not trusted:
            return
        event = "cancelled" if approve is None else "approved" if approve else "denied"
        record = self._authority.event_of(
            approval,
            event,
            proof="client",
            shown_digest=approval.shown_digest,
            subject=subject_of(admission.call.principal),
        )
        with contextlib.suppress(ClaimFailed, LedgerUnavailable):
            await self._authority.commit(record, claims=(Claim(key=approval.id, kind="approval", value="open"),))

    async def _refuse(self, call: ToolCall, fault: Fault) -> Admission:
        """Record a refusal that rests on no rule and no claim."""
        decision = plain(fault.code, fault.note)
        record = self._record(call, decision, None, 0)
        await self._ledger.append(record)
        return admission_of(call, decision, record, None)

    async def _internal(self, call: ToolCall) -> Admission:
        try:
            return await self._refuse(call, Fault(code=Code.INTERNAL_ERROR))
        except Exception:  # noqa: BLE001  # rule 4, once more: the last line of defence
            _log.exception("not even the refusal could be recorded")
            return without_record(call, Code.AUDIT_UNAVAILABLE)

    def _record(self, call: ToolCall, decision: Decision, task: TaskFacts | None, duration_us: int) -> DecisionRecord:
        return recorded(call, decision, task, (self._new_id(), duration_us), self.digest)


def _without_task(call: ToolCall) -> Hints:
    return msgspec.structs.replace(call.hints, task="")
