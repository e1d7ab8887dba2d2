"""What tests of policies need: a set from its text, and a call to ask about."""

import datetime
from typing import Any

from whygate.core.calls import Fault, Tool, ToolCall, ToolClass
from whygate.core.decide import decide
from whygate.core.decision import Decision
from whygate.core.facts import Facts, TaskFacts
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load

NOW = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)
TASK = TaskFacts(id="task-1", trace_id="0" * 31 + "1", root_span_id="0" * 15 + "1", opened_at=NOW)
FACTS = Facts(now=NOW, task=TASK, deployment="test")
AGENT = Principal(id="agent-1", type=IdentityType.AI_AGENT, proof=Proof.JWT, roles=("clerk",), scopes=("refunds",))
REFUND = Tool(server="billing", name="refund", type="mcp", tool_class=ToolClass.SPEND)

HEAD = """\
policy: {id}
version: 1
owner: team@example.com
agents: ["role:clerk"]
"""


def policy(rules: str, *, name: str = "p", more: str = "") -> str:
    """One document: ``rules`` is the list as YAML, ``more`` any further keys."""
    indented = "\n".join(f"  {line}" for line in rules.strip("\n").splitlines())
    return f"{HEAD.format(id=name)}{more}rules:\n{indented}\n"


def rule(name: str, effect: str, when: str = "", tools: str = "[billing/refund]") -> str:
    """One rule; ``effect`` as YAML (``permit: {}``)."""
    condition = f"  when: |-\n    {when}\n" if when else ""
    return f"- id: {name}\n  tools: {tools}\n{condition}  {effect}\n  why: Because of {name}.\n"


def made(*rules: str, more: str = "", name: str = "p") -> PolicySet:
    return load({f"{name}.yaml": policy("".join(rules), more=more, name=name)})


def call(
    args: dict[str, Any] | None = None, *, tool: Tool | None = REFUND, who: Principal = AGENT, **more: Any
) -> ToolCall:
    return ToolCall(protocol="mcp", method="tools/call", tool=tool, args=args or {}, principal=who, **more)


def ask(policies: PolicySet, args: dict[str, Any] | None = None, **more: Any) -> Decision:
    return decide(call(args, **more), FACTS, policies)


def errors(text: str) -> tuple[PolicyError, ...]:
    try:
        load({"p.yaml": text})
    except PolicyErrors as wrong:
        return wrong.errors
    return ()


__all__ = ["AGENT", "FACTS", "NOW", "REFUND", "TASK", "Fault", "ask", "call", "errors", "made", "policy", "rule"]
