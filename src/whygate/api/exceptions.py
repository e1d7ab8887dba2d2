"""Elevations, waivers and break-glass on the operators' listener.

Rules of this file:

1. Who ends an exception needs less than who makes one.
2. A break-glass is opened in the console, with a passkey. Here is only told where.
"""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, delete, get, post
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from whygate.api.acting import Desk, caller, subject, with_passkey
from whygate.api.bodies import EmergencyWanted, ReviewGiven, WaiverWanted
from whygate.api.guard import IN_CHARGE
from whygate.core import told
from whygate.core.reasons import Code
from whygate.flow.approvals import NotAnswered
from whygate.flow.elevations import Elevations
from whygate.flow.emergencies import Emergencies, Wanted
from whygate.flow.reloading import PolicyReloader
from whygate.transport.access import Who

AnyRequest = Request[Any, Any, Any]


def grants(desk: Desk, elevations: Elevations) -> list[HTTPRouteHandler]:
    """Elevations: to see, and to end."""

    @get(
        "/v1/grants",
        summary="Elevations that are in force",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("grants/read", "see elevations")],
    )
    async def all_grants() -> dict[str, Any]:
        return {"grants": [told.grant(each) for each in elevations.held()]}

    @get(
        "/v1/grants/{grant:str}",
        summary="One elevation",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("grants/read", "see elevations")],
    )
    async def one_grant(grant: FromPath[str]) -> dict[str, Any]:
        found = [each for each in elevations.held() if each.id == grant]
        if not found:
            raise NotFoundException("there is no such elevation in force")
        return told.grant(found[0])

    @delete(
        "/v1/grants/{grant:str}",
        status_code=200,
        summary="End an elevation now",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("grants/revoke", "end elevations", who=Who.IN_CHARGE)],
    )
    async def revoke_grant(request: AnyRequest, grant: FromPath[str]) -> dict[str, Any]:
        """Calls that wait under it are decided again at once."""
        return told.grant(await desk.do(request, "grants/revoke", elevations.revoke(grant, subject(request))))

    return [all_grants, one_grant, revoke_grant]


def waivers(desk: Desk, emergencies: Emergencies, reloader: PolicyReloader) -> list[HTTPRouteHandler]:
    """Waivers: to see, to add, to end."""

    @get(
        "/v1/waivers",
        summary="Waivers that are in force",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("waivers/read", "see waivers")],
    )
    async def all_waivers() -> dict[str, Any]:
        return {"waivers": [told.waiver(each) for each in desk.authority.state.waivers.values()]}

    @post(
        "/v1/waivers",
        status_code=201,
        summary="Add a waiver",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("waivers/add", "add waivers", who=Who.IN_CHARGE)],
    )
    async def add_waiver(request: AnyRequest, data: JSONBody[WaiverWanted]) -> dict[str, Any]:
        """For one rule that its policy marks as overridable."""
        wanted = Wanted(
            agents=tuple(data.agents),
            days=data.days,
            name=data.name,
            owner=data.owner,
            policy=data.policy,
            reason=data.reason,
            rule=data.rule,
            tools=tuple(data.tools),
        )
        work = emergencies.waive(wanted, subject(request), reloader.held.current)
        return told.waiver(await desk.do(request, "waivers/add", work))

    @delete(
        "/v1/waivers/{waiver:str}",
        status_code=200,
        summary="End a waiver now",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("waivers/end", "end waivers", who=Who.IN_CHARGE)],
    )
    async def end_waiver(request: AnyRequest, waiver: FromPath[str]) -> dict[str, Any]:
        """By its name or id."""
        return told.waiver(await desk.do(request, "waivers/end", emergencies.end_waiver(waiver, subject(request))))

    return [all_waivers, add_waiver, end_waiver]


def breakglass(desk: Desk, emergencies: Emergencies) -> list[HTTPRouteHandler]:
    """Break-glass and its reviews."""
    state = desk.authority.state

    @get(
        "/v1/breakglass",
        summary="Break-glass that is open, and reviews that are owed",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("breakglass/read", "see break-glass")],
    )
    async def all_breakglass() -> dict[str, Any]:
        now_us = desk.authority.now_us()
        return {
            "open": [told.breakglass(each) for each in state.breakglass.values() if now_us < each.until_us],
            "reviews": [told.review(each, now_us) for each in state.reviews.values()],
        }

    @post(
        "/v1/breakglass",
        status_code=200,
        summary="Where to open a break-glass",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("breakglass/open", "open break-glass", who=Who.EMERGENCY)],
    )
    async def open_breakglass(request: AnyRequest, data: JSONBody[EmergencyWanted]) -> dict[str, Any]:
        """Always 403, with the page where a passkey opens it (`console`), filled in with what is said here."""
        raise await desk.refusal(request, "breakglass/open", with_passkey(), form(data))

    @post(
        "/v1/breakglass/{breakglass:str}/close",
        status_code=200,
        summary="End a break-glass now",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("breakglass/close", "end break-glass", who=Who.PEOPLE)],
    )
    async def close_breakglass(request: AnyRequest, breakglass: FromPath[str]) -> dict[str, Any]:
        """Whoever opened it may, and people in charge; answers the review that is owed now."""
        opened, who = state.breakglass.get(breakglass), caller(request)
        if opened is not None and opened.by != who.id and IN_CHARGE.isdisjoint(who.roles):
            no = NotAnswered(Code.POLICY_EXPLICIT_DENY, "only its opener, an operator or an owner ends it")
            raise await desk.refusal(request, "breakglass/close", no)
        owed = await desk.do(request, "breakglass/close", emergencies.close(breakglass, subject(request)))
        return told.review(owed, desk.authority.now_us())

    @post(
        "/v1/breakglass/{breakglass:str}/review",
        status_code=200,
        summary="Answer a review",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("breakglass/review", "review break-glass", who=Who.IN_CHARGE)],
    )
    async def review_breakglass(
        request: AnyRequest, breakglass: FromPath[str], data: JSONBody[ReviewGiven]
    ) -> dict[str, Any]:
        """Somebody else than who opened it."""
        work = emergencies.review(breakglass, subject(request), data.finding, data.note)
        await desk.do(request, "breakglass/review", work)
        return {"id": breakglass, "finding": data.finding}

    return [all_breakglass, open_breakglass, close_breakglass, review_breakglass]


def form(wanted: EmergencyWanted) -> str:
    """The page with its form filled in, below the console's address. The reason is typed there."""
    said = {
        "agent": ",".join(wanted.agents),
        "tools": ",".join(wanted.tools),
        "minutes": wanted.minutes,
        "incident": wanted.incident,
    }
    return f"/console/breakglass?{urlencode(said)}"
