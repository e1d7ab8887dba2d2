"""What the flow and the edges need from the outside: small ports, one per need."""

import datetime
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from whygate.core.approvals import Approval
from whygate.core.calls import Fault, Tool, ToolCall
from whygate.core.decision import Claim, Decision
from whygate.core.identity import Principal
from whygate.core.policy.wants import HumanWant
from whygate.core.reasons import Code, Next, Outcome
from whygate.core.records import AnyRecord, CompletionRecord, DecisionRecord, ListedServer

NOTHING: Final[Mapping[str, bytes]] = {}


class LedgerUnavailable(Exception):
    """The ledger can't write, or it is not known whether it wrote. Nothing passes until it can again."""


class ClaimFailed(Exception):
    """A fact that the decision rested on no longer holds; nothing was written."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"{claim.kind} {claim.key}".strip())
        self.claim = claim


class StoredTask(msgspec.Struct, kw_only=True):
    """A task as live state. Times in microseconds since 1970, UTC."""

    id: str
    trace_id: str
    workflow: str = ""
    incident: str = ""
    session: str = ""
    agents: tuple[str, ...] = ()
    derived: bool = False
    opened_us: int
    opened_by: str = ""
    expires_us: int = 0
    """0: no end of its own."""
    last_us: int
    """When a call last joined it."""
    closed: bool = False


class Ledger(Protocol):
    """The one durable, append-only log, with the live state that commits in the same transaction."""

    async def append(
        self, *records: AnyRecord, claims: tuple[Claim, ...] = (), sealed: Mapping[str, bytes] = NOTHING
    ) -> None:
        """Make all ``records`` durable, in this order, or none of them; and with them what is ``sealed``, by record's id: kept
        beside the records and no part of them, so that it can be erased.

        Returns when they are durable. Raises ``ClaimFailed`` (nothing written) where a claim no longer holds and
        ``LedgerUnavailable`` where it can't write or does not know whether it did.
        """

    def follow(self, record: CompletionRecord) -> None:
        """Take a completion along with the next commit, at most 20 ms later. Never blocks, never raises."""

    def put_policy(self, digest: str, texts: Mapping[str, str]) -> None:
        """Keep the text of a policy set (file name to text) under its digest, durably with the next append."""

    def tasks(self) -> list[StoredTask]:
        """All tasks that are not closed, for start-up."""

    def in_force(self) -> list[tuple[str, str, bytes]]:
        """What ``core.in_force`` keeps, for start-up: kind, id, body."""

    def policy_in_force(self) -> str:
        """Digest of the policy set of the newest ``in_force`` record; empty before the first."""


class Sealer(Protocol):
    """Keeps what people are shown from whoever reads the file."""

    def seal(self, identity: str, data: bytes) -> bytes: ...

    def open(self, identity: str, body: bytes) -> bytes | None:
        """``None`` where it can't be opened."""


class Clock(Protocol):
    def now(self) -> datetime.datetime:
        """Aware UTC time that never runs backwards."""


class Ids(Protocol):
    def new(self) -> str:
        """A fresh UUIDv7 as text."""


class Identifier(Protocol):
    """Who calls: reads the credential of a request."""

    async def identify(self, authorization: str | None) -> Principal | Fault:
        """The verified principal, or what is wrong with the credential.

        ``authorization`` is the one ``Authorization`` header (RFC 9110 section 11.6.2), ``None`` where there is none.
        Suspended and retired agents are returned as principals with that status: ``decide`` refuses them.
        """


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller is told, on every answer (``dev.whygate/decision``)."""

    id: str
    """The decision record's id; for a repeated refusal of a stranger that of the last one recorded by itself; empty only
    where there is no record: ``audit.unavailable``."""
    outcome: Outcome
    code: Code
    note: str
    next: Next
    approval: str = ""
    """The question to a person that this is about."""
    approval_url: str = ""
    """Where a person answers it. Leads to signing in; whoever has it has nothing."""
    answer_by: str = ""
    """Until when, as RFC 3339."""
    challenge: str = ""
    """What another token has to bring, as parameters of a bearer challenge."""


class Admission(msgspec.Struct, kw_only=True):
    """A decision that is durable (or, for ``audit.unavailable`` alone, one that says why none is)."""

    call: ToolCall
    decision: Decision
    record: DecisionRecord | None
    answer: Answer
    traceparent: str = ""
    """For the upstream: the task's trace, with the CLIENT span of this call as parent."""
    task_id: str = ""
    admitted_ns: int = 0
    """Monotonic clock at the moment of admission."""
    approval: Approval | None = None
    """The question that waits for a person."""
    want: HumanWant | None = None
    """What the rule that asks says of it."""
    before: Mapping[str, Any] | None = None
    """The caller's own arguments, where ``call`` has those that an approver changed."""
    ticket: int = 0
    """Of the caller's quota of calls in flight; 0 where none is held."""

    @property
    def allowed(self) -> bool:
        return self.decision.allows


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge tells about the end of an allowed call."""

    status: int = 0
    is_error: bool = False
    error: str = ""
    code: Code | None = None
    result_bytes: int = 0
    result_digest: str = ""
    hidden: int = 0
    servers: tuple[ListedServer, ...] = ()
    """What each server gave, for a list of many."""


class ResultHash(Protocol):
    """A keyed digest in the making."""

    def update(self, data: bytes) -> None: ...

    def text(self) -> str:
        """The digest as ``Gate.digest`` gives it."""


class Gate(Protocol):
    """What the edges call. ``flow.gatekeeper`` implements it; ``testing`` has a fake."""

    async def admit(self, call: ToolCall) -> Admission:
        """Decide ``call`` and make the decision durable. Never raises: what goes wrong is a decision, too."""

    def complete(self, admission: Admission, completion: Completion) -> None:
        """Tell what became of an allowed call, exactly once for each. Never blocks, never raises."""

    def visible(self, principal: Principal, tool_id: str) -> bool:
        """Whether ``principal`` may see the tool in a list: some rule could permit it."""

    def shows(self, principal: Principal, thing: Tool) -> bool:
        """The same for a resource or a prompt (``Tool.type``), which no catalogue knows."""

    async def glance(self, call: ToolCall) -> Admission | None:
        """Decide what is recorded only where it is refused; ``None`` where it may pass. Joins no task, holds no quota."""

    async def settled(self, admission: Admission, within_s: float) -> bool | None:
        """Wait for the answer to the question that ``admission`` is about; ``False`` where it has not come after so long,
        ``None`` where too many calls of this caller wait already.
        """

    async def client_answers(self, admission: Admission, approve: bool | None) -> None:  # noqa: FBT001  three values
        """What the client's own process says to the question: ``None`` that it wants no answer any more. Counts as an answer
        only where policy trusts the process, and is recorded as that.
        """

    def digest(self, data: bytes) -> str:
        """Keyed digest for results and arguments."""

    def hasher(self) -> ResultHash:
        """The same digest for a result that comes in parts."""


class Observer(Protocol):
    """Metrics: told of each decision and completion."""

    def decided(self, admission: Admission, seconds: float) -> None: ...

    def completed(self, admission: Admission, completion: Completion, seconds: float) -> None: ...
