"""The records of the ledger, schema version 1.

Rules of this file:

1. A record's bytes are stored exactly as they are hashed: JSON, keys sorted, ASCII key names, no floats, integers
   within 2^53-1. The structs therefore declare their fields in the order of their names (a test checks it).
2. Notes are a rule's ``why`` or our own words; never free text from a call.
3. ``seq``, ``time`` and ``writer`` are given by the ledger at the moment of writing.
"""

import datetime
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from whygate.core.decision import ApprovalUsed, Claim, Evaluation, ExceptionUsed, RuleRef
from whygate.core.events import (
    AgentRecord,
    ApprovalRecord,
    BreakGlassRecord,
    GrantRecord,
    PersonRecord,
    ReviewRecord,
    WaiverRecord,
)
from whygate.core.instants import EPOCH
from whygate.core.record_parts import (
    VERSION,
    Action,
    Arguments,
    Claimed,
    Client,
    Context,
    Link,
    Part,
    PolicyInForce,
    Reason,
    Record,
    Repeats,
    Resource,
    Subject,
)

__all__ = (
    "VERSION",
    "Action",
    "Arguments",
    "Claimed",
    "Client",
    "Context",
    "Link",
    "PolicyInForce",
    "Reason",
    "Record",
    "Repeats",
    "Resource",
    "Subject",
)  # and everything below


class DecisionRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "decision"

    action: Action
    approval: ApprovalUsed | None = None
    """Which approval permitted it; or which one was asked for, awaited or presented."""
    arguments: Arguments = Arguments()
    claims: tuple[Claim, ...] = ()
    client: Client = Client()
    context: Context
    determined_by: RuleRef | None = None
    duration_us: int = 0
    """What deciding took."""
    effect: str
    enforcement: str = msgspec.field(default="gateway")
    evaluations: tuple[Evaluation, ...] = ()
    exception: ExceptionUsed | None = None
    grant: str = ""
    """The elevation that permitted it."""
    id: str
    kind: str
    mode: str
    next: str
    outcome: str
    policy: PolicyInForce = PolicyInForce()
    reason: Reason
    repeats: Repeats | None = None
    """This record stands for so many refusals. What it says of the call is what the first of them was."""
    requires: tuple[dict[str, Any], ...] = ()
    resource: Resource
    seq: int = 0
    subject: Subject
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class ResultDigest(Part, frozen=True, kw_only=True):
    bytes: int = 0
    digest: str = ""


class ListedServer(Part, frozen=True, kw_only=True):
    """What one of many servers gave for a list of the merged address."""

    code: str = ""
    """Why it was left out (``upstream.failed`` …); empty where it was not."""
    hidden: int = 0
    name: str
    tools: int = 0
    """How many of its tools the caller was shown."""


class CompletionRecord(Record, kw_only=True):
    """What became of an allowed call."""

    KIND: ClassVar[str] = "completion"

    code: str = ""
    """A completion code (``upstream.failed`` …); empty where the tool answered."""
    decision: str
    duration_us: int = 0
    """From the decision's commit to the end of the answer."""
    error: str = ""
    """The protocol's own error: a JSON-RPC code or an HTTP status as text, or ``tool_error``."""
    hidden: int = 0
    """For lists: how many entries were filtered out."""
    id: str
    is_error: bool = False
    kind: str
    result: ResultDigest = ResultDigest()
    seq: int = 0
    servers: tuple[ListedServer, ...] = ()
    """For lists of the merged address."""
    status: int = 0
    """HTTP status of the upstream; 0 where there is none."""
    task: str = ""
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class TaskInfo(Part, frozen=True, kw_only=True):
    agents: tuple[str, ...] = ()
    """Selectors of the principals that may use it: ids and ``role:<name>``."""
    derived: bool = False
    expires_at: datetime.datetime | None = None
    goal_digest: str = ""
    """Keyed digest of the goal's text."""
    id: str
    incident: str = ""
    session: str = ""
    trace_id: str
    workflow: str = ""


class TaskRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "task"

    event: str
    """``opened`` or ``closed``."""
    id: str
    kind: str
    seq: int = 0
    subject: Subject
    """Who opened or closed it."""
    task: TaskInfo
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class PolicyFile(Part, frozen=True, kw_only=True):
    digest: str
    name: str


class PolicyRecord(Record, kw_only=True):
    KIND: ClassVar[str] = "policy"

    cause: str = ""
    """``start``, ``folder`` (it changed), ``signal`` or ``command``."""
    digest: str
    """Of the set in force; empty for one that was refused."""
    errors: tuple[str, ...] = ()
    """``file:line:column: what is wrong``, for a set that was refused."""
    event: str
    """``in_force`` or ``refused``."""
    files: tuple[PolicyFile, ...] = ()
    """The first of them, where there are hundreds."""
    id: str
    kind: str
    seq: int = 0
    subject: Subject | None = None
    """Who commanded it, where somebody did."""
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


class ToolRecord(Record, kw_only=True):
    """What became of the pinned definitions, or of a tool that differs from its pin."""

    KIND: ClassVar[str] = "tool"

    cause: str = ""
    """For pins: ``start``, ``folder`` (it changed), ``signal`` or ``command``. For a tool: ``list`` (one that an agent
    asked for) or ``look`` (the gateway's own)."""
    definition: str = ""
    """Digest of the definition as the server gives it now."""
    digest: str = ""
    """Of the set of pins in force; empty for one that was refused."""
    errors: tuple[str, ...] = ()
    """``file:line:column: what is wrong``, for pins that were refused."""
    event: str
    """Of pins: ``in_force`` or ``refused``. Of a tool: ``new`` (not pinned), ``changed`` (differs from its pin),
    ``restored`` (as pinned again), ``gone`` (no longer listed), ``unsettled`` (changes too often to tell of each)."""
    files: tuple[PolicyFile, ...] = ()
    """The first of the files of pins, where there are hundreds."""
    id: str
    kind: str
    pinned: str = ""
    """Digest of the definition as it is pinned."""
    seq: int = 0
    subject: Subject | None = None
    """Who commanded it, where somebody did."""
    time: datetime.datetime = EPOCH
    tool: str = ""
    """``server/name``; the server alone where it stands for several tools."""
    v: int
    writer: str = ""


class LifeRecord(Record, kw_only=True):
    """Start and stop of a gateway, a gap in recording, a step of the clock, a change of configuration."""

    KIND: ClassVar[str] = "start"

    data: dict[str, Any] = msgspec.field(default_factory=dict)
    id: str
    kind: str
    """``start``, ``stop``, ``gap``, ``clock_step`` or ``config``."""
    seq: int = 0
    time: datetime.datetime = EPOCH
    v: int
    writer: str = ""


AnyRecord = (
    DecisionRecord
    | CompletionRecord
    | ApprovalRecord
    | GrantRecord
    | WaiverRecord
    | BreakGlassRecord
    | ReviewRecord
    | TaskRecord
    | AgentRecord
    | PersonRecord
    | PolicyRecord
    | ToolRecord
    | LifeRecord
)

KINDS: Final = (
    "decision",
    "completion",
    "approval",
    "grant",
    "waiver",
    "breakglass",
    "review",
    "task",
    "agent",
    "person",
    "policy",
    "tool",
    "config",
    "key",
    "erasure",
    "hold",
    "prune",
    "gap",
    "clock_step",
    "start",
    "stop",
)

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_BY_KIND: Final[dict[str, type[Record]]] = {
    "decision": DecisionRecord,
    "completion": CompletionRecord,
    "approval": ApprovalRecord,
    "grant": GrantRecord,
    "waiver": WaiverRecord,
    "breakglass": BreakGlassRecord,
    "review": ReviewRecord,
    "agent": AgentRecord,
    "person": PersonRecord,
    "task": TaskRecord,
    "policy": PolicyRecord,
    "tool": ToolRecord,
    "start": LifeRecord,
    "stop": LifeRecord,
    "gap": LifeRecord,
    "clock_step": LifeRecord,
    "config": LifeRecord,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(made) for kind, made in _BY_KIND.items()}


class _Slim(DecisionRecord, kw_only=True):
    """A decision with parts that nobody has looked into."""

    arguments: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # what is not read has no type yet
    claims: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # as above
    evaluations: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # as above
    requires: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # as above


_FOR_SPANS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {**_DECODERS, "decision": msgspec.json.Decoder(_Slim)}
_DECISION: Final = b'{"action":'
"""How a decision begins, and nothing else does: members stand in the order of their names."""


class _Head(msgspec.Struct):
    kind: str


_HEAD: Final = msgspec.json.Decoder(_Head)


def encode(record: Record) -> bytes:
    """The bytes of a record, exactly as they are stored and hashed."""
    return _ENCODER.encode(record)


def decode(data: bytes) -> AnyRecord:
    """A record from its bytes. Raises ``LookupError`` for a kind this version does not know."""
    return _decoded(data, _DECODERS)


def decode_for_spans(data: bytes) -> AnyRecord:
    """As ``decode``, but of a decision without what no span tells: evaluations, claims, requirements and arguments stay
    unread, which is half of the work.
    """
    return _decoded(data, _FOR_SPANS)


def _decoded(data: bytes, decoders: Mapping[str, msgspec.json.Decoder[Any]]) -> AnyRecord:
    kind = "decision" if data.startswith(_DECISION) else _HEAD.decode(data).kind
    decoder = decoders.get(kind)
    if decoder is None:
        raise LookupError(f"records of kind {kind!r} are not known to this version")
    return decoder.decode(data)  # type: ignore[no-any-return]  # one decoder per kind; the union is their sum
