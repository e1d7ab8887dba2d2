"""What is in force beside the policy, for those who decide and those who answer: a copy of the ledger's state, made from the
same records, and whoever waits for it to change.

Rules of this file:

1. Record, then act: the copy changes after the records are durable, never before. Where it lags behind, a claim fails in the
   commit and the call is decided again.
2. A caller's own word is no fact: what it presents is looked up.
3. Who waits costs a future and a timer, and is told at once.
"""

import asyncio
import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from whygate.core.approvals import Approval, State
from whygate.core.calls import ToolCall
from whygate.core.decision import Claim
from whygate.core.events import ApprovalRecord, BreakGlassRecord, GrantRecord, ReviewRecord, WaiverRecord
from whygate.core.exceptions import REVIEW_DUE_US, BreakGlass, Review
from whygate.core.facts import HeldGrant, Presented, TaskFacts
from whygate.core.ids import keyed_digest
from whygate.core.in_force import InForce
from whygate.core.instants import to_us
from whygate.core.patterns import fits
from whygate.core.records import VERSION, AnyRecord
from whygate.flow.ports import NOTHING, ClaimFailed, Clock, Ids, Ledger, LedgerUnavailable, Sealer

LOOK_S: Final = 1.0
"""How often is looked for what has run out."""
REMEMBERED: Final = 10_000
"""Answers that are over, for callers that come back late."""
MAX_PENDING: Final = 32
"""Questions of one caller that wait for people."""

_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode
_log = logging.getLogger("whygate.authority")


class Known(msgspec.Struct, frozen=True):
    """Facts about one call, as ``core.facts.Facts`` names them."""

    approvals: tuple[Approval, ...] = ()
    presented: Presented | None = None
    grants: tuple[HeldGrant, ...] = ()
    elevations: tuple[Approval, ...] = ()
    ended: Mapping[str, str] = {}
    suspended: bool = False
    narrowed: Mapping[str, Any] | None = None
    """The arguments as an approver changed them, in the place of the caller's."""
    narrowing: Approval | None = None
    """The approval that is for those arguments alone; it is not among ``approvals``."""


NOTHING_KNOWN: Final = Known()


class Authority:
    """Belongs to one event loop."""

    def __init__(self, ledger: Ledger, clock: Clock, ids: Ids, sealer: Sealer, digest_key: bytes) -> None:
        self._ledger, self._clock, self.sealer = ledger, clock, sealer
        self.digest = functools.partial(keyed_digest, digest_key)
        self.new_id = ids.new
        self.state = InForce()
        for kind, name, body in ledger.in_force():
            self.state.restore(kind, name, body)
        self._sealed: dict[str, dict[str, Any]] = {}
        """Patterns of elevations and narrowed arguments, in clear, by id."""
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._over: OrderedDict[str, Approval] = OrderedDict()
        self._ended: dict[str, dict[str, str]] = {}
        self.heard: list[Callable[[AnyRecord], None]] = []
        """Told of every record that changes what is in force, once it is durable. Must not block or raise."""

    def recall(self, sealed: Callable[[str], bytes | None]) -> None:
        """At start: read again what elevations are bound to and what approvers changed. What can't be read binds to nothing:
        such a grant covers no call.
        """
        wanted = [grant.id for grant in self.state.grants.values() if grant.patterned]
        for name in (*wanted, *(f"{each}" for each in self.state.approvals)):
            body = sealed(name)
            data = None if body is None else self.sealer.open(name, body)
            if data is not None:
                self.remember(name, data)

    def remember(self, identity: str, data: bytes) -> None:
        """Keep what is sealed under ``identity`` at hand: a document that is shown, or a pattern."""
        self._sealed[identity] = msgspec.json.decode(data)

    def document(self, identity: str) -> dict[str, Any] | None:
        """What was sealed under ``identity``, while it is in force."""
        return self._sealed.get(identity)

    def now_us(self) -> int:
        return to_us(self._clock.now())

    # --- changing it ---

    async def commit(
        self, *records: AnyRecord, claims: tuple[Claim, ...] = (), sealed: Mapping[str, bytes] = NOTHING
    ) -> None:
        """Make ``records`` durable and in force. ``sealed``: in clear, by id. Raises what ``Ledger.append`` raises."""
        closed = {name: self.sealer.seal(name, data) for name, data in sealed.items()}
        await self._ledger.append(*records, claims=claims, sealed=closed)
        # Dying here: it is in force, and whoever waits asks again after the start.
        for name, data in sealed.items():
            self.remember(name, data)
        self.applied(*records)

    def applied(self, *records: AnyRecord) -> None:
        """These are durable, whoever appended them."""
        for record in records:
            before = self.state.approvals.get(record.approval) if isinstance(record, ApprovalRecord) else None
            self.state.apply(record, to_us(record.time))
            for (_, name), body in self.state.changed.items():
                if body is None:
                    self._sealed.pop(name, None)
            self.state.changed.clear()
            if isinstance(record, ApprovalRecord):
                self._moved(record, before)
            elif isinstance(record, GrantRecord) and record.event != "granted":
                self._sealed.pop(record.grant.id, None)
                self._ended.setdefault(record.grant.principal, {})[record.grant.entitlement] = record.event
            for hear in self.heard:
                hear(record)

    def _moved(self, record: ApprovalRecord, before: Approval | None) -> None:
        name = record.approval
        after = self.state.approvals.get(name)
        if after is None and before is not None:
            state = State.APPROVED if record.event == "approved" else State(record.event)
            self._over[name] = msgspec.structs.replace(before, state=state)
            self._sealed.pop(name, None)
            while len(self._over) > REMEMBERED:
                self._over.popitem(last=False)
        if after is None or after.state is not State.PENDING:
            self._wake(name)

    def _wake(self, name: str) -> None:
        for future in self._waiting.pop(name, ()):
            if not future.done():
                future.set_result(None)

    def wake_all_of(self, principal: str) -> None:
        """Have every waiting call of this caller decided again, and those that are made on its behalf."""
        for name, approval in tuple(self.state.approvals.items()):
            if principal == approval.asked.principal or principal in approval.asked.behind:
                self._wake(name)

    # --- asking for it ---

    def find(self, identity: str) -> Approval | None:
        """An approval that is in force, waits, or was over not long ago."""
        return self.state.approvals.get(identity) or self._over.get(identity)

    async def settled(self, identity: str, within_s: float) -> bool:
        """Wait until the question is answered in whatever way; ``False`` where it still waits after so long."""
        approval = self.state.approvals.get(identity)
        if approval is None or approval.state is not State.PENDING:
            return True
        future = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(identity, set())
        waiting.add(future)
        try:
            async with asyncio.timeout(within_s):
                await future
        except TimeoutError:
            return False
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(identity) is waiting:
                del self._waiting[identity]
        return True

    def pending(self, principal: str) -> int:
        """How many questions of this caller wait."""
        state = self.state
        own = (state.approvals[each] for each in state.of_principal.get(principal, ()))
        return sum(each.state is State.PENDING for each in own)

    def known(self, call: ToolCall, task: TaskFacts | None, arguments: Callable[[], str]) -> Known:
        """The facts about this call. ``arguments`` makes their digest, where that is needed."""
        state, principal = self.state, call.principal
        if state.suspended:
            chain = (principal.id, *(each.id for each in principal.on_behalf_of))
            if not state.suspended.isdisjoint(chain):
                return Known(suspended=True)
        own, held, ended = (
            state.of_principal.get(principal.id),
            state.grants_of.get(principal.id),
            self._ended.get(principal.id),
        )
        if own is None and held is None and ended is None and not call.presented:
            return NOTHING_KNOWN
        if call.tool is None:
            return NOTHING_KNOWN
        task_id = "" if task is None else task.id
        args = arguments() if own is not None or call.presented else ""
        where = (principal.id, call.tool.id, call.tool.definition, task_id, args)
        mine = [state.approvals[each] for each in own or ()]
        found = tuple(each for each in mine if each.covers(*where))
        narrowing, narrowed = self._narrowed(found)
        return Known(
            approvals=tuple(each for each in found if not (each.narrowed and each.state is State.APPROVED)),
            presented=self._presented(call, where) if call.presented else None,
            grants=tuple(self._held(each, call, task_id) for each in held or ()),
            elevations=tuple(each for each in mine if each.asked.entitlement),
            ended=ended or {},
            narrowed=narrowed,
            narrowing=narrowing,
        )

    def _presented(self, call: ToolCall, where: tuple[str, str, str, str, str]) -> Presented:
        approval = self.find(call.presented)
        if approval is None or approval.asked.principal != call.principal.id:
            return Presented(approval=None, id=call.presented if approval is not None else "", same=False)
        return Presented(approval=approval, id=approval.id, same=approval.covers(*where))

    def _held(self, identity: str, call: ToolCall, task: str) -> HeldGrant:
        grant = self.state.grants[identity]
        covers = call.tool is not None and grant.covers(task, call.tool)
        if covers and grant.patterned:
            pattern = (self._sealed.get(identity) or {}).get("arguments")
            covers = isinstance(pattern, dict) and fits(pattern, call.args)
        return HeldGrant(fits=covers, grant=grant)

    def _narrowed(self, found: tuple[Approval, ...]) -> tuple[Approval | None, Mapping[str, Any] | None]:
        """The approval for changed arguments, and those. Where they can't be read, it permits nothing."""
        now_us = self.now_us()
        for each in found:
            if each.narrowed and each.usable(now_us):
                narrowed = (self._sealed.get(each.id) or {}).get("narrowed")
                if isinstance(narrowed, dict) and self.digest(_sorted_json(narrowed)) == each.narrowed:
                    return each, narrowed
        return None, None

    # --- what runs out ---

    async def watch(self) -> None:
        """Record what has run out, until cancelled. Nothing rests on it: what is over by its time holds no claim."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.lapse()
            except LedgerUnavailable:
                return  # the gateway ends, and the next start goes on
            except Exception:  # noqa: BLE001  whatever it is, the next look is another chance
                _log.exception("looking for what has run out failed")

    async def lapse(self) -> None:
        """Record everything that has run out by now."""
        now_us = self.now_us()
        for record in self._over_by(now_us):
            try:
                there = [each.breakglass.id for each in record if isinstance(each, BreakGlassRecord)]
                await self.commit(*record, claims=tuple(still_there(name) for name in there))
            except ClaimFailed:
                continue

    def _over_by(self, now_us: int) -> list[tuple[AnyRecord, ...]]:
        state, made = self.state, list[tuple[AnyRecord, ...]]()
        for approval in state.approvals.values():
            pending = approval.state is State.PENDING and now_us >= approval.answer_by_us
            if pending or (approval.state is State.APPROVED and now_us >= approval.until_us):
                made.append((self.event_of(approval, "expired"),))
        for grant in state.grants.values():
            if not grant.usable(now_us):
                record = GrantRecord(
                    event="expired", grant=grant, id=self.new_id(), kind="grant", task=grant.task, v=VERSION
                )
                made.append((record,))
        for waiver in state.waivers.values():
            if now_us >= waiver.until_us:
                made.append((WaiverRecord(event="expired", id=self.new_id(), kind="waiver", v=VERSION, waiver=waiver),))
        made += [self.closing(opened, "expired") for opened in state.breakglass.values() if now_us >= opened.until_us]
        return made

    def event_of(self, approval: Approval, event: str, **more: Any) -> ApprovalRecord:
        """The record of something that happens to an approval."""
        return ApprovalRecord(
            approval=approval.id,
            asked_us=approval.asked_us if approval.state is State.PENDING else 0,
            decision=approval.decision,
            event=event,
            id=self.new_id(),
            kind="approval",
            task=approval.asked.task,
            trace=approval.trace,
            v=VERSION,
            **more,
        )

    def closing(self, opened: BreakGlass, event: str, **more: Any) -> tuple[AnyRecord, ...]:
        """The records of the end of a break-glass: it opens the review that somebody else owes."""
        review = Review(
            by=opened.by,
            due_us=self.now_us() + REVIEW_DUE_US,
            id=opened.id,
            incident=opened.incident,
            team=opened.team,
        )
        ended = BreakGlassRecord(breakglass=opened, event=event, id=self.new_id(), kind="breakglass", v=VERSION, **more)
        return ended, ReviewRecord(event="owed", id=self.new_id(), kind="review", review=review, v=VERSION)


def still_there(identity: str) -> Claim:
    """That a break-glass has not been ended by somebody else: it ends once, and owes one review."""
    return Claim(key=identity, kind="breakglass", value="there")
