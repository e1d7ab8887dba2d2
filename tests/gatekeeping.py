"""A gatekeeper on the fake ledger, for tests that need no network."""

from collections.abc import Mapping
from typing import Any

from whygate.core.calls import Hints, Tool, ToolCall
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.flow.catalogue import Catalogue, Listed
from whygate.flow.gatekeeper import Gatekeeper, Surroundings
from whygate.flow.policies import Policies
from whygate.flow.ports import Admission, Completion
from whygate.flow.tasks import Tasks
from whygate.flow.world import RandomIds
from whygate.testing.authority import authority
from whygate.testing.ledger import MemoryLedger

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support"]
rules:
  - id: read
    tools: [billing/read]
    permit: {}
    why: Reading is routine.
"""
AGENT = Principal(
    id="agent:support", type=IdentityType.AI_AGENT, proof=Proof.JWT, roles=("support",), credential="sha256:0"
)
OTHER = Principal(id="agent:other", type=IdentityType.AI_AGENT, proof=Proof.JWT, roles=("support",))


class Seen:
    """Implements ``flow.ports.Observer``."""

    def __init__(self) -> None:
        self.decisions: list[Admission] = []
        self.completions: list[Completion] = []

    def decided(self, admission: Admission, seconds: float) -> None:
        self.decisions.append(admission)

    def completed(self, admission: Admission, completion: Completion, seconds: float) -> None:
        self.completions.append(completion)


class World:
    """Everything around one gatekeeper; the clock is the ledger's."""

    def __init__(self, ledger: MemoryLedger | None = None) -> None:
        self.wall_us = 1_795_000_000_000_000
        self.ledger = ledger or MemoryLedger(wall=lambda: self.wall_us)
        ids = RandomIds()
        self.policies = Policies(self.ledger, ids)
        self.tasks = Tasks(self.ledger, self.ledger, ids, b"t" * 32, b"d" * 32)
        self.seen = Seen()
        self.authority = authority(self.ledger, self.ledger, ids)
        self.gate = Gatekeeper(
            Surroundings(
                ledger=self.ledger,
                policies=self.policies,
                tasks=self.tasks,
                catalogue=Catalogue({"billing": Listed(make=tool, names=("read", "write"))}),
                authority=self.authority,
                clock=self.ledger,
                ids=ids,
                digest_key=b"d" * 32,
                observer=self.seen,
            )
        )

    async def load(self, texts: Mapping[str, str] | None = None) -> "World":
        await self.policies.bring_into_force(texts or {"support.yaml": RULES})
        return self


def tool(name: str) -> Tool:
    return Tool(server="billing", name=name, type="mcp")


def call(name: str = "read", principal: Principal = AGENT, hints: Hints | None = None, **more: Any) -> ToolCall:
    return ToolCall(
        protocol="mcp",
        method="tools/call",
        server="billing",
        tool=tool(name),
        principal=principal,
        hints=hints or Hints(),
        **more,
    )
