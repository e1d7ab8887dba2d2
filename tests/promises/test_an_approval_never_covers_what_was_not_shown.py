"""An approval covers what was shown and agreed to, and nothing beside it."""

import asyncio

import pytest
from tests.gatekeeping import World, call

from whygate.core.approvals import Answerer, Approval
from whygate.core.records import Subject
from whygate.flow.approvals import Approvals, Given, NotAnswered
from whygate.flow.ports import Admission

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support"]
rules:
  - {{id: small, tools: [billing/write], when: args.x <= 10, permit: {{}}, why: Little is routine.}}
  - id: big
    tools: [billing/write]
    when: args.x > 10
    permit: {{require: {{human: {{approvers: [group:leads], quorum: {quorum}, narrow: [args.x]}}}}}}
    why: Much needs a lead.
"""


async def _asked(quorum: int = 1) -> tuple[World, Admission]:
    world = await World().load({"support.yaml": RULES.format(quorum=quorum)})
    return world, await world.gate.admit(call("write", args={"x": 20}))


async def _agree(world: World, asked: Admission, who: str, narrow: dict[str, int] | None = None) -> Approval:
    assert asked.approval is not None
    given = Given(approve=True, narrow=narrow or {}, proof="oidc", shown_digest=asked.approval.shown_digest)
    subject = Subject(id=who, proof="oidc", type="human")
    person = Answerer(id=who, groups=("leads",))
    return await Approvals(world.authority).answer(asked.approval.id, person, subject, given)


@pytest.mark.parametrize("less", [15, 5])
async def test_a_narrowed_call_is_sent_as_narrowed_and_once(less: int) -> None:
    """Also where a standing rule would permit so little: the call as it came is never what passes."""
    world, asked = await _asked()
    await _agree(world, asked, "lead-1", {"args.x": less})
    found = await asyncio.gather(*(world.gate.admit(call("write", args={"x": 20})) for _ in range(64)))
    assert [each.call.args for each in found if each.allowed] == [{"x": less}]


async def test_what_an_approver_changed_and_nobody_can_read_permits_nothing() -> None:
    """Erased or unreadable: the call as it came does not take its place."""
    world, asked = await _asked()
    await _agree(world, asked, "lead-1", {"args.x": 15})
    world.authority._sealed.clear()
    assert not (await world.gate.admit(call("write", args={"x": 20}))).allowed


async def test_one_person_at_the_same_moment_counts_once() -> None:
    """Of answers at the same moment one counts, and a quorum is never passed over."""
    world, asked = await _asked(quorum=2)
    found = await asyncio.gather(*(_agree(world, asked, "lead-1") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(each, NotAnswered) for each in found) == 2
    assert not (await world.gate.admit(call("write", args={"x": 20}))).allowed
    await _agree(world, asked, "lead-2")
    assert (await world.gate.admit(call("write", args={"x": 20}))).allowed
