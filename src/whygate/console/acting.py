"""What people in charge do: elevations, break-glass and its reviews, waivers, the kill switch, other people."""

from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from whygate.console.desk import EVERYBODY, SESSION, Console, NotForYou, Web
from whygate.core.approvals import State
from whygate.core.events import Person
from whygate.core.reasons import Code
from whygate.flow.approvals import NotAnswered
from whygate.flow.emergencies import FINDINGS, MAX_DAYS, MAX_MINUTES, Emergency, Wanted
from whygate.flow.people import ROLES

_MOST: Final = 20


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    return [
        *_grants(console),
        *_emergencies(console),
        *_endings(console),
        *_waivers(console),
        *_agents(console),
        *_people(console),
    ]


def _several(text: str) -> tuple[str, ...]:
    """Words of a field, split at spaces and commas."""
    return tuple(text.replace(",", " ").split())[:_MOST]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _grants(console: Console) -> list[HTTPRouteHandler]:
    @get("/console/grants", include_in_schema=False, guards=[console.guard(*EVERYBODY)])
    async def grants(request: Web) -> Response[str]:
        asked = [each for each in console.approvals.waiting() if each.asked.entitlement]
        usable = [each for each in console.approvals.in_use() if each.state is State.APPROVED]
        return console.page(request, "grants.html", grants=console.elevations.held(), asked=asked, usable=usable)

    @post(
        "/console/grants/{identity:str}/revoke", include_in_schema=False, guards=[console.guard("operator", "approver")]
    )
    async def revoke(request: Web, identity: FromPath[str]) -> Response[str]:
        fields = await console.form(request)
        try:
            await console.elevations.revoke(identity, console.subject(request), fields.get("note", ""))
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/grants")
        return console.done(request, "/console/grants", "Revoked: it opens nothing from the next call on.")

    return [grants, revoke]


def _emergencies(console: Console) -> list[HTTPRouteHandler]:
    @get("/console/breakglass", include_in_schema=False, guards=[console.guard(*EVERYBODY)])
    async def page(request: Web) -> Response[str]:
        state = console.authority.state
        asked = request.query_params
        filled = {name: asked.get(name, "") for name in ("tools", "task", "minutes", "incident", "reason")}
        filled["agents"] = asked.get("agents") or asked.get("agent") or ""
        return console.page(
            request,
            "breakglass.html",
            opened=list(state.breakglass.values()),
            reviews=list(state.reviews.values()),
            waivers=list(state.waivers.values()),
            filled=filled,
            findings=FINDINGS,
            fresh=request.state[SESSION].fresh(console.sessions.now()),
            most=(MAX_MINUTES, MAX_DAYS),
            rules=[]
            if console.policies.current is None
            else [each for each in console.policies.current.rules if each.overridable],
        )

    @post("/console/breakglass", include_in_schema=False, guards=[console.guard("breakglass")])
    async def begin(request: Web) -> Response[str]:
        fields, me = await console.form(request), console.me(request)
        if not request.state[SESSION].fresh(console.sessions.now()):
            await console.refused(request, me, Code.AUTHN_INSUFFICIENT, "a break-glass without a fresh passkey")
            raise NotForYou(
                Code.AUTHN_INSUFFICIENT, "Show your passkey again: sign out, sign in, and open it within 5 minutes."
            )
        if "breakglass" not in me.roles:
            await console.refused(request, me, Code.POLICY_EXPLICIT_DENY, "a break-glass without its role")
            raise NotForYou(Code.POLICY_EXPLICIT_DENY, "Your roles do not include break-glass.")
        wanted = Emergency(
            agents=_several(fields.get("agents", "")),
            incident=fields.get("incident", "").strip(),
            minutes=_number(fields.get("minutes", "")),
            reason=fields.get("reason", ""),
            task=fields.get("task", "").strip(),
            team=me.groups[0] if me.groups else me.id,
            tools=_several(fields.get("tools", "")),
        )
        try:
            await console.emergencies.open(wanted, console.subject(request), "passkey")
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/breakglass")
        return console.done(
            request, "/console/breakglass", "Open. Every call under it is an exception, and a review is owed."
        )

    return [page, begin]


def _endings(console: Console) -> list[HTTPRouteHandler]:
    @post(
        "/console/breakglass/{identity:str}/close",
        include_in_schema=False,
        guards=[console.guard("breakglass", "operator")],
    )
    async def close(request: Web, identity: FromPath[str]) -> Response[str]:
        await console.form(request)
        try:
            await console.emergencies.close(identity, console.subject(request))
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/breakglass")
        return console.done(request, "/console/breakglass", "Closed. Somebody else owes its review within a day.")

    @post(
        "/console/breakglass/{identity:str}/review",
        include_in_schema=False,
        guards=[console.guard("operator", "breakglass")],
    )
    async def review(request: Web, identity: FromPath[str]) -> Response[str]:
        fields = await console.form(request)
        try:
            await console.emergencies.review(
                identity, console.subject(request), fields.get("finding", ""), fields.get("note", "")
            )
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/breakglass")
        return console.done(request, "/console/breakglass", "Reviewed.")

    return [close, review]


def _waivers(console: Console) -> list[HTTPRouteHandler]:
    may = console.guard("operator")

    @post("/console/waivers", include_in_schema=False, guards=[may])
    async def add(request: Web) -> Response[str]:
        fields = await console.form(request)
        policy, _, rule = fields.get("rule", "").partition("/")
        wanted = Wanted(
            agents=_several(fields.get("agents", "")),
            days=_number(fields.get("days", "")),
            name=fields.get("name", "").strip(),
            owner=fields.get("owner", "").strip(),
            policy=policy,
            reason=fields.get("reason", ""),
            rule=rule,
            tools=_several(fields.get("tools", "")),
        )
        try:
            await console.emergencies.waive(wanted, console.subject(request), console.policies.current)
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/breakglass")
        return console.done(request, "/console/breakglass", "The waiver is in force.")

    @post("/console/waivers/{identity:str}/end", include_in_schema=False, guards=[may])
    async def end(request: Web, identity: FromPath[str]) -> Response[str]:
        await console.form(request)
        try:
            await console.emergencies.end_waiver(identity, console.subject(request))
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/breakglass")
        return console.done(request, "/console/breakglass", "The waiver has ended.")

    return [add, end]


def _agents(console: Console) -> list[HTTPRouteHandler]:
    @get("/console/agents", include_in_schema=False, guards=[console.guard(*EVERYBODY)])
    async def agents(request: Web) -> Response[str]:
        off = console.authority.state.suspended
        known = {**console.agents, **{name: {} for name in off if name not in console.agents}}
        return console.page(request, "agents.html", agents=sorted(known.items()), off=off)

    @post("/console/agents", include_in_schema=False, guards=[console.guard("operator", "breakglass")])
    async def switch(request: Web) -> Response[str]:
        fields = await console.form(request)
        agent, note = fields.get("agent", ""), fields.get("note", "")
        if not agent or len(agent) > 256:
            raise NotForYou(Code.REQUEST_MALFORMED, "Name an agent.")
        try:
            if fields.get("switch") == "resume":
                await console.emergencies.resume(agent, console.subject(request), note)
            else:
                await console.emergencies.suspend(agent, console.subject(request), note)
        except NotAnswered as refused:
            return await console.not_answered(request, refused, "/console/agents")
        return console.done(request, "/console/agents", "Done: it holds from the next call on.")

    return [agents, switch]


def _people(console: Console) -> list[HTTPRouteHandler]:
    owner = console.guard()

    def listed(request: Web, **more: Any) -> Response[str]:
        people = console.people.everybody()
        return console.page(request, "people.html", people=people, roles=ROLES, **{"link": "", **more})

    @get("/console/people", include_in_schema=False, guards=[owner])
    async def people(request: Web) -> Response[str]:
        return listed(request)

    @post("/console/people", status_code=200, include_in_schema=False, guards=[owner])
    async def invite(request: Web) -> Response[str]:
        fields = await console.form(request)
        identity = fields.get("id", "").strip()
        roles = tuple(role for role in ROLES if fields.get(f"role {role}"))
        if not 0 < len(identity) <= 256 or not identity.isprintable():
            raise NotForYou(Code.REQUEST_MALFORMED, "Name somebody, by the id that tokens and policies use.")
        person = Person(
            groups=_several(fields.get("groups", "")), id=identity, name=fields.get("name", "")[:128], roles=roles
        )
        known = console.people.find(identity)
        if known is not None and not fields.get("passkey_only"):
            changed = msgspec.structs.replace(known, groups=person.groups, name=person.name or known.name, roles=roles)
            await console.people.change(changed, console.subject(request))
            console.sessions.end_all_of(identity)
            return console.done(request, "/console/people", f"{identity} is changed, and has to sign in again.")
        token = console.people.invite(person, console.me(request).id)
        return listed(request, link=f"{console.url}/console/enrol?token={token}")

    @post("/console/people/remove", include_in_schema=False, guards=[owner])
    async def remove(request: Web) -> Response[str]:
        fields = await console.form(request)
        person = console.people.find(fields.get("id", ""))
        if person is None or person.id == console.me(request).id:
            raise NotForYou(Code.REQUEST_MALFORMED, "There is nobody of this id, or it is you.")
        await console.people.remove(person, console.subject(request))
        console.sessions.end_all_of(person.id)
        return console.done(request, "/console/people", f"{person.id} is removed.")

    return [people, invite, remove]
