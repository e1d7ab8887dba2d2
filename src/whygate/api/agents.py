"""Agents on the operators' listener: the inventory, and the kill switch.

Who switches off needs less than who switches on: a host that watches may stop an agent, only people in charge let it go on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from whygate.api.acting import Desk, subject
from whygate.api.bodies import AgentSwitched
from whygate.flow.emergencies import Emergencies
from whygate.transport.access import Who


class Listed(NamedTuple):
    """An entry of the inventory."""

    id: str
    type: str
    owner: str
    purpose: str
    status: str
    roles: tuple[str, ...]


def handlers(desk: Desk, emergencies: Emergencies, inventory: Sequence[Listed]) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    state = desk.authority.state

    @get(
        "/v1/agents",
        summary="The inventory, and who is switched off",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("agents/read", "see agents")],
    )
    async def all_agents() -> dict[str, Any]:
        """Whoever is switched off without being listed comes last."""
        listed = {each.id for each in inventory}
        others = [Listed(each, "", "", "", "", ()) for each in sorted(state.suspended - listed)]
        return {
            "agents": [
                {**each._asdict(), "roles": list(each.roles), "suspended": each.id in state.suspended}
                for each in (*inventory, *others)
            ]
        }

    @post(
        "/v1/agents/suspend",
        status_code=200,
        summary="Switch an agent off",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("agents/suspend", "switch agents off")],
    )
    async def suspend_agent(request: Request[Any, Any, Any], data: JSONBody[AgentSwitched]) -> dict[str, Any]:
        """Nothing of it passes from the next call on. Its id is in the body: ids may hold slashes."""
        await desk.do(request, "agents/suspend", emergencies.suspend(data.agent, subject(request), data.note))
        return {"id": data.agent, "suspended": True}

    @post(
        "/v1/agents/resume",
        status_code=200,
        summary="Switch an agent on again",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("agents/resume", "switch agents on again", who=Who.IN_CHARGE)],
    )
    async def resume_agent(request: Request[Any, Any, Any], data: JSONBody[AgentSwitched]) -> dict[str, Any]:
        await desk.do(request, "agents/resume", emergencies.resume(data.agent, subject(request), data.note))
        return {"id": data.agent, "suspended": False}

    return [all_agents, suspend_agent, resume_agent]
