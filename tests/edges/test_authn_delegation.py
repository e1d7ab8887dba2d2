"""Who acts for whom: the chain of RFC 8693 section 4.1, read from real tokens."""

from pathlib import Path
from typing import Any

import pytest
from tests.edges.authn_world import ISSUER, World

from whygate.core.calls import Fault
from whygate.core.identity import Actor, IdentityType, Principal, Status
from whygate.core.reasons import Code


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, unlisted_as="human")


def nested(*subjects: str) -> dict[str, Any]:
    """``act`` with the current actor first."""
    made: dict[str, Any] = {}
    for subject in reversed(subjects):
        made = {"sub": subject, "act": made} if made else {"sub": subject}
    return made


async def test_the_current_actor_is_the_principal(world: World) -> None:
    """The outermost actor calls; prior actors, nearest first, and then the person are whom it acts for."""
    act = nested("agent:support", "agent:planner", "service:mail")
    who = await world.ask(world.token(sub="u-ada", act=act, scope="read"))
    assert isinstance(who, Principal)
    assert (who.id, who.type, who.owner) == ("agent:support", IdentityType.AI_AGENT, "support@example.com")
    assert who.scopes == ("read",)
    assert who.credential.startswith("sha256:")
    assert who.on_behalf_of == (
        Actor(id="agent:planner", issuer=ISSUER, type=IdentityType.AI_AGENT),
        Actor(id="service:mail", issuer=ISSUER, type=IdentityType.SERVICE_ACCOUNT),
        Actor(id="u-ada", issuer=ISSUER, type=IdentityType.HUMAN),
    )


async def test_an_actor_does_not_inherit_the_subjects_roles(world: World) -> None:
    """The token's roles are the person's: an agent that acts for an admin is no admin."""
    who = await world.ask(world.token(sub="u-ada", roles=["admin"], act=nested("agent:support")))
    assert who.roles == ("support",)


async def test_an_unlisted_actor_does_not_become_a_person(world: World) -> None:
    """What unlisted subjects count as does not extend to actors: an unknown agent is refused."""
    who = await world.ask(world.token(sub="u-ada", act=nested("agent:unknown")))
    assert who == Fault(code=Code.AGENT_UNAUTHENTICATED, note="the current actor is not in the inventory")


async def test_prior_actors_that_nobody_lists_are_kept(world: World) -> None:
    """Prior actors are told as the issuer told them; where nobody says what one is, it counts as an agent."""
    act = {
        "sub": "agent:support",
        "act": {"sub": "svc-9", "sub_profile": "service", "act": {"sub": "x", "iss": "https://far.example"}},
    }
    who = await world.ask(world.token(sub="u-ada", act=act))
    assert who.on_behalf_of[:2] == (
        Actor(id="svc-9", issuer=ISSUER, type=IdentityType.SERVICE_ACCOUNT),
        Actor(id="x", issuer="https://far.example", type=IdentityType.AI_AGENT),
    )


@pytest.mark.parametrize(
    ("subject", "actors"),
    [("u-ada", ["agent:paused"]), ("u-ada", ["agent:support", "agent:paused"]), ("agent:paused", ["agent:support"])],
)
async def test_a_chain_is_as_good_as_its_worst_link(world: World, subject: str, actors: list[str]) -> None:
    """A suspended agent can't go on acting through another, wherever in the chain it stands."""
    who = await world.ask(world.token(sub=subject, act=nested(*actors)))
    assert who.status is Status.SUSPENDED


async def test_eight_actors_are_a_chain_and_nine_are_none(world: World) -> None:
    """The depth of a chain is bounded."""
    eight = [f"agent:{number}" for number in range(7)]
    assert len((await world.ask(world.token(sub="u", act=nested("agent:support", *eight)))).on_behalf_of) == 8
    nine = await world.ask(world.token(sub="u", act=nested("agent:support", *eight, "agent:8")))
    assert nine == Fault(code=Code.DELEGATION_INVALID, note="the act claim is more than 8 actors deep")


@pytest.mark.parametrize(
    "act",
    [
        "agent:support",
        ["agent:support"],
        {},
        {"sub": ""},
        {"sub": 7},
        {"sub": "role:admin"},
        {"sub": "agent:support", "act": "x"},
        {"sub": "agent:support", "act": {}},
        {"sub": "agent:support", "act": None},
        {"sub": "agent:support", "iss": 7},
        {"sub": "agent:support", "iss": "https://far.example"},
        {"sub": "agent:support", "act": {"sub": "x", "sub_profile": []}},
    ],
)
async def test_a_chain_that_cannot_be_read_refuses(world: World, act: Any) -> None:
    """A malformed chain is never read as a shorter one."""
    who = await world.ask(world.token(sub="u-ada", act=act))
    assert isinstance(who, Fault)
    assert who.code is Code.DELEGATION_INVALID


async def test_act_null_is_no_absent_act(world: World) -> None:
    """``act: null`` is malformed: it does not make the subject the caller."""
    from tests.edges.authn_world import claims, sign

    token = sign(world.key, {**claims(sub="u-ada"), "act": None})
    assert (await world.ask(token)).code is Code.DELEGATION_INVALID


async def test_roles_may_lie_deep_in_the_claims(tmp_path: Path) -> None:
    """``roles_claim`` finds a claim by its whole name first, dots and all, and then by the objects that dots lead into."""
    world = World(tmp_path, roles_claim="realm_access.roles")
    assert (await world.ask(world.token(realm_access={"roles": ["a"]}))).roles == ("a", "support")
    assert (await world.ask(world.token(**{"realm_access.roles": "b"}))).roles == ("b", "support")
    assert (await world.ask(world.token(realm_access="c"))).roles == ("support",)


async def test_scopes_come_in_both_forms(world: World) -> None:
    """``scope`` is text with blanks, ``scp`` is that or a list; both count."""
    assert (await world.ask(world.token(scope="a  b", scp=["c", "a"]))).scopes == ("a", "b", "c")
    assert (await world.ask(world.token(scp="d e"))).scopes == ("d", "e")
