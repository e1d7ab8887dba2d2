"""A policy in ``mode: shadow`` is evaluated and recorded, and changes nothing: it waives no gate, permits nothing, refuses
nothing, asks nobody, and shows or hides no tool.
"""

from pathlib import Path
from typing import Any

import httpx
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.policy_bench import FACTS, NOW, call
from tests.core.test_decide_properties import CONDITIONS, EFFECTS, TOOLS, json_args, principals, set_of, tools
from tests.servers.gateway import billing_tool, running

from whygate.core.calls import Fault, Tool
from whygate.core.decide import decide
from whygate.core.decision import Claim, Decision, Mode
from whygate.core.facts import Facts
from whygate.core.identity import ANONYMOUS, Principal
from whygate.core.policy.model import PolicySet
from whygate.core.reasons import Code
from whygate.testing.billing import BillingServer

READS_MORE = (
    "task.id == 'task-1'",
    "principal.id != ''",
    "now > timestamp('2020-01-01T00:00:00Z')",
    "deployment == 'test'",
    "tool.name.startsWith('r')",
)
"""Of what an enforced policy beside it need not read."""
rules = st.tuples(st.sampled_from((*CONDITIONS, *READS_MORE)), st.sampled_from(EFFECTS), st.sampled_from(TOOLS))
agents = st.sampled_from(("role:clerk", "agent-1", "*"))
enforced = st.lists(st.tuples(agents, st.just("enforce"), st.lists(rules, min_size=1, max_size=4)), max_size=3)
shadows = st.lists(
    st.tuples(agents, st.just("shadow"), st.lists(rules, min_size=1, max_size=4)), min_size=1, max_size=3
)
faults = st.lists(st.sampled_from([Fault(code=code) for code in Code]), max_size=1).map(tuple)


def _plain(decision: Decision, policies: PolicySet) -> Decision:
    """The decision without the name of the set, which differs, and without what shadow rules answered."""
    kept = tuple(each for each in decision.evaluations if each.mode is Mode.ENFORCE)
    claims = tuple(Claim(key=c.key, kind=c.kind, value="" if c.kind == "policy" else c.value) for c in decision.claims)
    return msgspec.structs.replace(decision, evaluations=kept, claims=claims, policy_digest="")


@given(
    args=json_args,
    tool=tools | st.none(),
    principal=principals | st.just(ANONYMOUS),
    gates=st.tuples(faults, st.booleans(), st.booleans()),
    sets=st.tuples(enforced, shadows),
)
@settings(max_examples=400, deadline=None)
def test_a_set_decides_alike_with_and_without_its_shadow_policies(
    args: dict[str, Any],
    tool: Tool | None,
    principal: Principal,
    gates: tuple[tuple[Fault, ...], bool, bool],
    sets: tuple[Any, Any],
) -> None:
    """Outcome, reason, the rule that decided, what is required and what is claimed: all the same, whatever is in shadow."""
    found, public, task = gates
    without, with_shadow = set_of(sets[0]), set_of([*sets[0], *sets[1]])
    facts = FACTS if task else Facts(now=NOW, task=None)
    asked = call(args, tool=tool, who=principal, faults=found, public=public)
    before, after = decide(asked, facts, without), decide(asked, facts, with_shadow)
    assert _plain(after, with_shadow) == _plain(before, without)
    shadow = [each for each in after.evaluations if each.mode is Mode.SHADOW]
    if tool is not None:
        asked_rules = bool(after.policy_digest) and not public  # a gate's refusal names no set
        applicable = with_shadow.applicable(principal, tool) if asked_rules else ()
        assert len(shadow) == sum(not rule.enforced for rule in applicable)
        assert with_shadow.visible(principal, tool) == without.visible(principal, tool)


SHADOW = """
policy: trial
version: 1
owner: trial@example.com
agents: ["role:support-agent"]
mode: shadow
rules:
  - {id: all, tools: ["*"], permit: {}, why: Shadow permits everything.}
  - {id: none, tools: ["billing/invoice_get"], deny: {}, why: Shadow denies reading.}
  - {id: broken, tools: ["billing/invoice_get"], when: args.absent == 1, deny: {}, why: Shadow breaks.}
  - {id: ask, tools: ["billing/*"], permit: {require: {human: {approvers: ["group:x"]}}}, why: Shadow asks.}
"""
ENFORCED = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - {id: read, tools: ["billing/invoice_get"], permit: {}, why: Reading is routine.}
"""


async def test_what_shadow_would_have_done_is_recorded_and_not_done(tmp_path: Path, billing: BillingServer) -> None:
    """Through a real gateway: what it would refuse passes, what it would permit is refused, and the record has all of it."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "trial.yaml").write_text(SHADOW)
    (folder / "support.yaml").write_text(ENFORCED)
    tools = {"billing": billing_tool(billing, tmp_path)}
    async with running(tmp_path, tools, policies=str(folder)) as gateway:
        async with httpx.AsyncClient(headers=gateway.headers()) as client:
            read = await client.get(f"{gateway.url}/http/billing/invoices/1042")
            refund = await client.post(f"{gateway.url}/http/billing/refunds", json={"amount_cents": 1})
        records = [gateway.decision(answer) for answer in (read, refund)]
    assert (read.status_code, records[0]["reason"]["code"], records[0]["mode"]) == (200, "role.permitted", "enforce")
    assert (refund.status_code, records[1]["reason"]["code"]) == (403, "policy.no_match")
    assert [one["path"] for one in billing.seen] == ["/invoices/1042"]
    told = {(each["rule"], each["result"], each.get("mode", "enforce")) for each in records[0]["evaluations"]}
    assert told == {
        ("read", "match", "enforce"),
        ("all", "match", "shadow"),
        ("none", "match", "shadow"),
        ("broken", "error", "shadow"),
        ("ask", "unmet", "shadow"),
    }
    assert "Shadow" not in read.text + refund.text
