"""An agent's token never answers a question, and nobody approves themself: not by the API either."""

import httpx
import pytest
from tests.edges import test_operators_people as world
from tests.edges.test_operators_people import asked, send, yes
from tests.servers.gateway import Running

gateway = world.gateway


@pytest.mark.parametrize("who", ["agent:support", "agent:researcher", "host:runner"])
async def test_no_machine_answers(gateway: Running, who: str) -> None:
    """Whatever its roles, though the rule named it: refused, recorded, and the question waits on."""
    question = await asked(gateway, approvers=(who, "role:finance-lead"), principal="agent:other")
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", who, ("finance-lead",), json=yes(question))
    assert (answer.status_code, answer.json()["code"]) == (403, "policy.explicit_deny")
    assert gateway.decision(answer)["subject"]["id"] == who
    seen = await send(gateway, "GET", f"/v1/approvals/{question.id}", who)
    assert seen.status_code == 403
    assert [each["event"] for each in gateway.records() if each["kind"] == "approval"] == ["asked"]


async def test_a_persons_token_in_an_agents_hands_is_the_agents(gateway: Running) -> None:
    """A token that an agent got on an approver's behalf names the agent as its actor, and answers nothing."""
    question = await asked(gateway)
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{gateway.operators_url}/v1/approvals/{question.id}",
            headers=gateway.headers(world.LEAD, act={"sub": "agent:support"}),
            json=yes(question),
        )
    assert answer.status_code in {401, 403}
    assert [each["event"] for each in gateway.records() if each["kind"] == "approval"] == ["asked"]


@pytest.mark.parametrize("more", [{"principal": world.LEAD}, {"behind": (world.LEAD,)}])
async def test_nobody_approves_themself(gateway: Running, more: dict[str, object]) -> None:
    """Neither their own call nor one that is made for them."""
    question = await asked(gateway, **more)
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", world.LEAD, json=yes(question))
    assert (answer.status_code, answer.json()["code"]) == (403, "approval.self_approval")
    assert gateway.decision(answer)["reason"]["code"] == "approval.self_approval"


async def test_who_is_not_asked_does_not_answer(gateway: Running) -> None:
    """An operator is no approver."""
    question = await asked(gateway)
    answer = await send(gateway, "POST", f"/v1/approvals/{question.id}", world.OPERATOR, json=yes(question))
    assert (answer.status_code, answer.json()["code"]) == (403, "policy.explicit_deny")


@pytest.mark.parametrize(
    ("who", "roles", "sees"),
    [
        (world.LEAD, (), True),
        ("ada@example.com", (), True),
        ("x@example.com", ("auditor",), True),
        ("x@example.com", ("operator",), True),
        ("x@example.com", ("finance-lead",), True),
        ("x@example.com", (), False),
        ("x@example.com", ("breakglass",), False),
    ],
)
async def test_arguments_are_for_those_who_have_to_do_with_it(
    gateway: Running, who: str, roles: tuple[str, ...], sees: bool
) -> None:
    """Who may answer, for whom it is made, who is in charge or audits; anybody else sees only that a question waits."""
    question = await asked(gateway)
    found = (await send(gateway, "GET", f"/v1/approvals/{question.id}", who, roles)).json()
    assert (found["shown"] is not None) is sees
