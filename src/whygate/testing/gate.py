"""A gate and an identifier for tests of the edges: they answer by a table and remember everything."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Container, Mapping, Sequence
from typing import Final

from whygate.core.calls import Fault, Tool, ToolCall
from whygate.core.decision import Decision
from whygate.core.identity import IdentityType, Principal, Proof, Status
from whygate.core.ids import KeyedHash, keyed_digest, span_id, uuid7
from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Answer, Completion

_KEY: Final = b"a key for tests"


class FakeGate:
    """Implements ``flow.ports.Gate``: gates first, then ``refuse`` by tool id, else permitted."""

    def __init__(self, refuse: Mapping[str, Code] | None = None, hidden: Container[str] = ()) -> None:
        self.refuse = dict(refuse or {})
        self.hidden = hidden
        """Ids of tools that nobody may see or call."""
        self.always: Code | None = None
        """Answer everything with this, as a ledger that is down would."""
        self.admitted: list[Admission] = []
        self.glanced: list[ToolCall] = []
        """What passed without a record."""
        self.completed: list[tuple[Admission, Completion]] = []
        self.completions: asyncio.Queue[Completion] = asyncio.Queue()
        """The same, to wait for."""
        self._numbers = itertools.count(1)

    async def admit(self, call: ToolCall) -> Admission:
        code = self._code(call)
        entry = code.entry
        made = uuid7(1_700_000_000_000, next(self._numbers).to_bytes(10, "big"))
        decision = Decision(outcome=code.outcome, code=code, admin=entry.meaning, user=entry.user, next=entry.next)
        trace = hashlib.sha256(made.encode()).hexdigest()[:32]
        admission = Admission(
            call=call,
            decision=decision,
            record=None,
            answer=Answer(id=made, outcome=code.outcome, code=code, note=entry.user, next=entry.next),
            traceparent=f"00-{trace}-{span_id('client', made)}-01",
        )
        self.admitted.append(admission)
        return admission

    def _code(self, call: ToolCall) -> Code:
        if self.always is not None:
            return self.always
        if call.faults:
            return call.faults[0].code
        if not call.principal.authenticated:
            return Code.AGENT_UNAUTHENTICATED
        if call.principal.status is Status.SUSPENDED:
            return Code.AGENT_SUSPENDED
        if call.public:
            return Code.POLICY_PUBLIC_TOOL
        if call.tool is None or call.tool.id in self.hidden:
            return Code.TOOL_UNKNOWN
        return self.refuse.get(call.tool.id, Code.ROLE_PERMITTED)

    def complete(self, admission: Admission, completion: Completion) -> None:
        self.completed.append((admission, completion))
        self.completions.put_nowait(completion)

    def visible(self, principal: Principal, tool_id: str) -> bool:
        return principal.authenticated and tool_id not in self.hidden

    def shows(self, principal: Principal, thing: Tool) -> bool:
        return principal.authenticated and thing.id not in self.hidden

    async def glance(self, call: ToolCall) -> Admission | None:
        if self._code(call).outcome.allows:
            self.glanced.append(call)
            return None
        return await self.admit(call)

    async def settled(self, admission: Admission, within_s: float) -> bool | None:  # noqa: ARG002  the port's
        return False

    async def client_answers(self, admission: Admission, approve: bool | None) -> None:  # noqa: FBT001  the port's
        """Nobody asks here."""

    def digest(self, data: bytes) -> str:
        return keyed_digest(_KEY, data)

    def hasher(self) -> KeyedHash:
        return KeyedHash(_KEY)


class FakeIdentifier:
    """Implements ``flow.ports.Identifier``: the bearer token is the agent's name."""

    def __init__(self, suspended: Container[str] = ()) -> None:
        self.suspended = suspended

    async def identify(self, authorization: str | None) -> Principal | Fault:
        scheme, _, name = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not name:
            return Fault(code=Code.AGENT_UNAUTHENTICATED, note="no bearer token")
        if name == "expired":
            return Fault(code=Code.AGENT_TOKEN_EXPIRED)
        status = Status.SUSPENDED if name in self.suspended else Status.ACTIVE
        return Principal(id=f"agent:{name}", type=IdentityType.AI_AGENT, proof=Proof.API_KEY, status=status)


class FakeCatalogue:
    """Knows every name but ``nosuch``, takes every definition for pinned but those in ``changed``, and remembers names."""

    def __init__(self) -> None:
        self.learnt: list[str] = []
        self.changed: set[str] = set()
        self.stirred: list[str] = []

    def find(self, server: str, name: str) -> Tool | None:
        return None if name == "nosuch" else Tool(server=server, name=name, type="mcp")

    def schema(self, tool: Tool | None) -> None:
        """Nothing is pinned here."""

    def heard(self, server: str) -> None:
        self.stirred.append(server)

    def listed(self, server: str, given: Sequence[bytes], cause: str = "list") -> list[bool]:  # noqa: ARG002  the port's
        names = [json.loads(each).get("name") for each in given]
        self.learnt += [f"{server}/{name}" for name in names if isinstance(name, str)]
        return self.as_pinned(server, given)

    def as_pinned(self, server: str, given: Sequence[bytes]) -> list[bool]:  # noqa: ARG002  the port's
        names = [json.loads(each).get("name") for each in given]
        return [isinstance(name, str) and name not in self.changed for name in names]
