"""Records to write, and two ways to have a ledger, for the contract of the ledger."""

import abc
import itertools
from pathlib import Path
from typing import Any

from whygate.core.decision import Claim
from whygate.core.instants import from_us
from whygate.core.records import (
    Action,
    AnyRecord,
    CompletionRecord,
    Context,
    DecisionRecord,
    PolicyInForce,
    PolicyRecord,
    Reason,
    Resource,
    Subject,
    TaskInfo,
    TaskRecord,
    decode,
)
from whygate.stores.reader import Reader, walk
from whygate.stores.sqlite import SqliteLedger
from whygate.testing.ledger import MemoryDisk, MemoryLedger

START_US = 1_795_000_000_000_000
SECOND = 1_000_000
TRACE = "ab" * 16
AGENT = Subject(id="agent-1", proof="jwt", type="ai_agent")

_numbers = itertools.count(1)


def new_id() -> str:
    """UUIDs in order, the same at every run."""
    number = next(_numbers)
    return f"01997a3c-{number >> 16:04x}-7{number & 0xFFF:03x}-8000-{number:012x}"


def decision(
    *, task: str = "", allow: bool = True, trace: str = "", code: str = "", agent: str = "agent-1", tool: str = "s/read"
) -> DecisionRecord:
    code = code or ("role.permitted" if allow else "policy.no_match")
    return DecisionRecord(
        action=Action(name="tools/call", protocol="mcp"),
        context=Context(task=task, trace_id=trace),
        effect="allow" if allow else "deny",
        id=new_id(),
        kind="decision",
        mode="enforce",
        next="none",
        outcome="permitted" if allow else "blocked",
        policy=PolicyInForce(digest="sha256:one"),
        reason=Reason(admin="Agents may read.", code=code, user="Permitted."),
        resource=Resource(id=tool),
        subject=Subject(id=agent, proof="jwt", type="ai_agent"),
        v=1,
    )


def completion(of: DecisionRecord) -> CompletionRecord:
    return CompletionRecord(
        decision=of.id, duration_us=900, id=new_id(), kind="completion", status=200, task=of.context.task, v=1
    )


def opened(task: str = "t-1", *, trace: str = TRACE, expires_us: int = 0) -> TaskRecord:
    expires_at = from_us(expires_us) if expires_us else None
    info = TaskInfo(agents=("agent-1", "role:x"), expires_at=expires_at, id=task, trace_id=trace, workflow="w")
    return TaskRecord(event="opened", id=new_id(), kind="task", subject=AGENT, task=info, v=1)


def closed(task: str = "t-1", *, trace: str = TRACE) -> TaskRecord:
    info = TaskInfo(id=task, trace_id=trace)
    return TaskRecord(event="closed", id=new_id(), kind="task", subject=AGENT, task=info, v=1)


def in_force(digest: str) -> PolicyRecord:
    return PolicyRecord(digest=digest, event="in_force", id=new_id(), kind="policy", v=1)


def policy_claim(digest: str) -> Claim:
    return Claim(key="", kind="policy", value=digest)


def task_claim(task: str = "t-1") -> Claim:
    return Claim(key=task, kind="task", value="open")


class Wall:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.us = START_US
        """Put on, it is time that goes by."""
        self._stepped = 0

    def __call__(self) -> int:
        return self.us

    def step(self, us: int) -> None:
        """Set the clock, without time going by."""
        self.us += us
        self._stepped += us

    def steady(self) -> int:
        return self.us - self._stepped


class Rig(abc.ABC):
    """One way to have a ledger, to lose it, and to look at what is durable from outside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.wall = Wall()
        self.ledger: Any = None

    @abc.abstractmethod
    def open(self) -> Any:
        """Open, or open again, what was left."""

    @abc.abstractmethod
    def leaves(self) -> list[bytes]:
        """What is durable, read past the ledger object."""

    @abc.abstractmethod
    def fail_next(self, *, written: bool) -> None:
        """Let the next commit report an error."""

    @abc.abstractmethod
    def policy_texts(self, digest: str) -> dict[str, str]: ...

    def records(self) -> list[AnyRecord]:
        return [decode(data) for data in self.leaves()]

    def kinds(self) -> list[str]:
        return [record.kind for record in self.records()]


class SqliteRig(Rig):
    def open(self) -> SqliteLedger:
        self.ledger = SqliteLedger(self.path, start={"version": "test"}, wall=self.wall, steady=self.wall.steady)
        return self.ledger

    def leaves(self) -> list[bytes]:
        with Reader(self.path) as reader:
            return list(walk(reader))

    def fail_next(self, *, written: bool) -> None:
        end = self.ledger._disk._end

        def fails() -> None:
            if written:
                end()
            raise OSError("disk I/O error, made up")

        self.ledger._disk._end = fails

    def policy_texts(self, digest: str) -> dict[str, str]:
        with Reader(self.path) as reader:
            return reader.policy(digest)


class MemoryRig(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.disk = MemoryDisk()

    def open(self) -> MemoryLedger:
        self.ledger = MemoryLedger(self.disk, start={"version": "test"}, wall=self.wall, steady=self.wall.steady)
        return self.ledger

    def leaves(self) -> list[bytes]:
        return list(self.disk.leaves)

    def fail_next(self, *, written: bool) -> None:
        self.ledger.fail_next(written=written)

    def policy_texts(self, digest: str) -> dict[str, str]:
        return self.disk.policies.get(digest, {})
