"""Records made by hand for tests of spans and their projector: small, valid, and numbered like a ledger's."""

import datetime
from typing import Any

import msgspec

from whygate.core import ids
from whygate.core.decision import RuleRef
from whygate.core.reasons import Code
from whygate.core.records import (
    VERSION,
    Action,
    AnyRecord,
    Client,
    CompletionRecord,
    Context,
    DecisionRecord,
    LifeRecord,
    Link,
    PolicyInForce,
    Reason,
    Resource,
    Subject,
    TaskInfo,
    TaskRecord,
    encode,
)

START = datetime.datetime(2026, 11, 23, 9, 0, tzinfo=datetime.UTC)
RULE = RuleRef(digest="sha256:" + "ab" * 32, policy="payments-agent", rule="refund-small", version=3)
AGENT = Subject(id="spiffe://example.com/agent/payments", proof="jwt", type="ai_agent")


def uuid(number: int) -> str:
    return ids.uuid7(1_790_000_000_000 + number, number.to_bytes(10, "big"))


def trace_of(task: str) -> str:
    return ids.trace_id(b"k" * 32, task)


def task(number: int = 1, *, event: str = "opened", workflow: str = "refund-claim", **info: Any) -> TaskRecord:
    task_id = uuid(number)
    made = TaskInfo(id=task_id, trace_id=trace_of(task_id), workflow=workflow, **info)
    return TaskRecord(
        event=event,
        id=uuid(number + (500 if event == "opened" else 600)),
        kind="task",
        subject=AGENT,
        task=made,
        v=VERSION,
    )


def decision(
    number: int,
    code: Code = Code.ROLE_PERMITTED,
    *,
    tool: str = "billing/refund",
    method: str = "tools/call",
    protocol: str = "mcp",
    parent: str = "",
    link: Link | None = None,
    task_id: str | None = None,
    **fields: Any,
) -> DecisionRecord:
    record_id = uuid(number)
    joined = uuid(1) if task_id is None else task_id
    context = Context(
        link=link,
        parent=parent,
        request="7",
        revision="2025-11-25",
        span_id=ids.span_id("server", record_id),
        task=joined,
        trace_id=trace_of(joined),
        workflow="refund-claim",
    )
    entry = code.entry
    made: dict[str, Any] = {
        "action": Action(class_="spend", name=method, protocol=protocol),
        "client": Client(address="127.0.0.1"),
        "context": context,
        "determined_by": RULE,
        "duration_us": 120,
        "effect": code.outcome.effect,
        "id": record_id,
        "kind": "decision",
        "mode": "enforce",
        "next": entry.next.value,
        "outcome": code.outcome.value,
        "policy": PolicyInForce(digest="sha256:" + "cd" * 32),
        "reason": Reason(admin=entry.meaning, code=code.value, user=entry.user),
        "resource": Resource(id=tool, server=tool.partition("/")[0], tier="high", type=protocol),
        "subject": AGENT,
        "v": VERSION,
    }
    return DecisionRecord(**made | fields)


def completion(of: DecisionRecord, number: int = 0, **fields: Any) -> CompletionRecord:
    made: dict[str, Any] = {
        "decision": of.id,
        "duration_us": 2500,
        "id": uuid(number or int(of.id[-4:], 16) + 1000),
        "kind": "completion",
        "status": 200,
        "task": of.context.task,
        "v": VERSION,
    }
    return CompletionRecord(**made | fields)


def start(number: int = 900, **data: Any) -> LifeRecord:
    return LifeRecord(data=data or {"host": "gate-1", "ip": "10.0.0.7"}, id=uuid(number), kind="start", v=VERSION)


def numbered(*records: AnyRecord, writer: str = "w-1") -> list[tuple[int, bytes]]:
    """The records as a ledger has them: numbered from 1, a millisecond apart, encoded."""
    for seq, record in enumerate(records, 1):
        record.seq, record.writer = seq, writer
        record.time = START + datetime.timedelta(milliseconds=seq)
    return [(record.seq, encode(record)) for record in records]


class Shelf:
    """A ``Source`` on a list."""

    def __init__(self, records: list[tuple[int, bytes]]) -> None:
        self.records = records
        self.looked_up: list[str] = []

    def since(self, seq: int, limit: int) -> list[tuple[int, bytes]]:
        return [row for row in self.records if row[0] > seq][:limit]

    def decision(self, id: str) -> bytes | None:  # noqa: A002  # the port's name for it
        self.looked_up.append(id)
        for _, data in self.records:
            if msgspec.json.decode(data)["id"] == id:
                return data
        return None


def story(base: int = 0) -> list[tuple[int, bytes]]:
    """One task as a ledger tells it: permitted, delegated, blocked, challenged, approved, broken, listed, closed.

    Ids count from ``base``: the task's is ``base + 1``.
    """

    def made(number: int, code: Code = Code.ROLE_PERMITTED, **fields: Any) -> DecisionRecord:
        return decision(base + number, code, task_id=uuid(base + 1), **fields)

    lookup = made(10, tool="orders/lookup")
    hop = made(11, Code.DELEGATION_PERMITTED, tool="agents/delegate")
    under = ids.span_id("client", hop.id)
    blocked = made(12, Code.POLICY_NO_MATCH, tool="crm/customer_export", parent=under, determined_by=None)
    asked = made(13, Code.STEP_UP_REQUIRED, parent=under)
    broken = made(14, Code.POLICY_EVAL_ERROR, duration_us=0)
    retried = made(15, Code.STEP_UP_SATISFIED)
    granted = made(16, Code.JIT_GRANT_ACTIVE, tool="billing/ledger_adjust")
    lost = made(17, tool="orders/lookup")
    listed = made(18, Code.POLICY_PUBLIC_TOOL, tool="", method="tools/list", determined_by=None)
    web = made(19, tool="shop/order_create", method="POST", protocol="http")
    foreign = made(20, Code.TOOL_UNKNOWN, tool="", link=Link(span_id="c" * 16, trace_id="d" * 32))
    return numbered(
        start(base + 900),
        task(base + 1),
        *(lookup, completion(lookup), hop, completion(hop), blocked, asked, broken),
        *(retried, granted, completion(retried, is_error=True, error="tool_error"), completion(granted)),
        *(lost, listed, completion(listed, hidden=3), web, completion(web, status=404, is_error=True, error="404")),
        *(foreign, completion(lost, code="outcome.unknown", duration_us=0), task(base + 1, event="closed")),
    )
