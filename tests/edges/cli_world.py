"""A ledger with one task's story in it, and records to tell stories of."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

from whygate.core import ids
from whygate.core.calls import Tier
from whygate.core.decision import Evaluation, Mode, Result, RuleRef
from whygate.core.identity import Actor, IdentityType
from whygate.core.ids import sha256_digest
from whygate.core.policy.model import digest_of
from whygate.core.reasons import Code
from whygate.core.records import (
    Action,
    AnyRecord,
    Arguments,
    Claimed,
    Client,
    CompletionRecord,
    Context,
    DecisionRecord,
    PolicyInForce,
    Reason,
    Resource,
    ResultDigest,
    Subject,
    TaskInfo,
    TaskRecord,
)
from whygate.stores.sqlite import SqliteLedger

POLICY_FILE = Path(__file__).parents[2] / "policies" / "support-agent.yaml"
TEXTS = {POLICY_FILE.name: POLICY_FILE.read_text(encoding="utf-8")}
FILE_DIGEST = sha256_digest(TEXTS[POLICY_FILE.name].encode())
SET_DIGEST = digest_of(TEXTS)
TASK = "01997a3c-0000-7000-8000-00000000aaaa"
TRACE = "ab" * 16
START_US = 1_795_000_000_000_000

_numbers = itertools.count(1)


def new_id() -> str:
    """UUIDs that differ in their first digits, the same at every run."""
    number = next(_numbers)
    return f"{number:08x}-0000-7000-8000-{number:012x}"


def rule(name: str, policy: str = "support-agent", version: int = 1) -> RuleRef:
    return RuleRef(digest=FILE_DIGEST, policy=policy, rule=name, version=version)


def answer(
    name: str, result: Result, effect: str = "permit", code: Code = Code.ROLE_PERMITTED, **more: Any
) -> Evaluation:
    defaults = {"policy": "support-agent", "mode": Mode.ENFORCE}
    return Evaluation(
        code=code, digest=FILE_DIGEST, effect=effect, result=result, rule=name, version=1, **defaults | more
    )


def subject(name: str = "agent:support", **more: Any) -> Subject:
    defaults = {
        "credential": "sha256:0123456789abcdef",
        "issuer": "https://idp.example",
        "owner": "support-team@example.com",
        "on_behalf_of": (Actor(id="ada@example.com", type=IdentityType.HUMAN),),
        "roles": ("support-agent",),
        "proof": "jwt",
        "type": "ai_agent",
    }
    return Subject(id=name, **defaults | more)


def context(record_id: str, **more: Any) -> Context:
    defaults = {
        "task": TASK,
        "trace_id": TRACE,
        "span_id": ids.span_id("server", record_id),
        "workflow": "refund-claim",
        "incident": "TICKET-4711",
    }
    return Context(**defaults | more)


def decision(
    code: Code = Code.ROLE_PERMITTED, tool: str = "billing/refund", by: str = "", parent: str = "", **more: Any
) -> DecisionRecord:
    """A decision as the gateway writes it; ``more`` replaces whole fields."""
    record_id = new_id()
    entry = code.entry
    fields: dict[str, Any] = {
        "action": Action(class_="spend", name="tools/call", protocol="mcp"),
        "arguments": Arguments(digest="blake2b:" + "1" * 64),
        "client": Client(address="10.1.2.3"),
        "context": context(record_id, parent=parent, revision="2025-11-25"),
        "determined_by": rule(by) if by else None,
        "duration_us": 203,
        "effect": code.outcome.effect,
        "id": record_id,
        "kind": "decision",
        "mode": "enforce",
        "next": entry.next.value,
        "outcome": code.outcome.value,
        "policy": PolicyInForce(digest=SET_DIGEST),
        "reason": Reason(admin=entry.meaning, code=code.value, user=entry.user),
        "resource": Resource(id=tool, server=tool.partition("/")[0], tier=Tier.HIGH, type="mcp"),
        "subject": subject(),
        "v": 1,
    }
    return DecisionRecord(**fields | more)


def completion(of: DecisionRecord, code: str = "", **more: Any) -> CompletionRecord:
    fields: dict[str, Any] = {
        "status": 200,
        "duration_us": 12_000,
        "result": ResultDigest(bytes=1234, digest="blake2b:2"),
    }
    return CompletionRecord(
        code=code, decision=of.id, id=new_id(), kind="completion", task=of.context.task, v=1, **fields | more
    )


def opened(**more: Any) -> TaskRecord:
    info = TaskInfo(
        agents=("agent:support", "agent:researcher"),
        id=TASK,
        trace_id=TRACE,
        workflow="refund-claim",
        incident="TICKET-4711",
    )
    person = Subject(id="ada@example.com", proof="oidc", type="human")
    return TaskRecord(event="opened", id=new_id(), kind="task", subject=person, task=info, v=1)


def refund_denied(**more: Any) -> DecisionRecord:
    """A refund above the cap, refused by a rule that is in the shipped policies."""
    why = "Nobody refunds more than 5,000.00 in one call; split payments are for the finance team."
    code = Code.ARGS_LIMIT_EXCEEDED
    return decision(
        code,
        by="refund-cap",
        reason=Reason(admin=why, code=code.value, user=code.entry.user),
        evaluations=(
            answer("refund-small", Result.NO_MATCH),
            answer("refund-large", Result.NO_MATCH, code=Code.STEP_UP_REQUIRED),
            answer("refund-cap", Result.MATCH, "deny", code),
        ),
        **more,
    )


def refund_challenged(**more: Any) -> DecisionRecord:
    why = "Larger refunds need a finance lead."
    code = Code.STEP_UP_REQUIRED
    need = {"approvers": ["group:finance-leads"], "quorum": 1, "not": ["requester", "owner"], "within": "10m"}
    return decision(
        code,
        by="refund-large",
        reason=Reason(admin=why, code=code.value, user=code.entry.user),
        evaluations=(answer("refund-large", Result.UNMET, code=code),),
        requires=({"kind": "human", "params": need, "policy": "support-agent", "rule": "refund-large"},),
        **more,
    )


def claimed(record_id: str) -> Context:
    return context(record_id, claimed=Claimed(incident="INC-1", workflow="trust-me"))


class Story:
    """One task: a call, a call made from it by another agent, a refusal, a challenge; all in a real ledger."""

    def __init__(self) -> None:
        self.opened = opened()
        self.read = decision(
            tool="billing/invoice_get", by="read-invoices", action=Action(class_="read", name="GET", protocol="http")
        )
        self.read_end = completion(self.read)
        self.helper = decision(
            tool="time/get_current_time",
            by="current-time",
            parent=ids.span_id("client", self.read.id),
            subject=subject("agent:researcher", on_behalf_of=()),
        )
        self.helper_end = completion(self.helper, "upstream.timeout", status=0, error="timeout")
        self.denied = refund_denied()
        self.challenged = refund_challenged()

    @property
    def records(self) -> list[AnyRecord]:
        return [
            self.opened, self.read, self.helper, self.helper_end, self.read_end, self.denied, self.challenged
        ]  # fmt: skip

    def write(self, path: Path) -> None:
        write(path, *self.records)


def write(path: Path, *records: AnyRecord) -> None:
    """Append ``records`` to the ledger at ``path`` as a gateway would, 20 ms apart."""
    clock = itertools.count(START_US, 20_000)
    ledger = SqliteLedger(path, start={"version": "test"}, wall=lambda: next(clock))
    try:
        ledger.put_policy(SET_DIGEST, TEXTS)
        for record in records:
            asyncio.run(ledger.append(record))
    finally:
        ledger.close()
