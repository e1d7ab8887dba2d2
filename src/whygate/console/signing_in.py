"""Signing in, enrolling, signing out."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from whygate.console.desk import (
    HEADERS,
    SESSION,
    Console,
    NotForYou,
    Web,
    local,
    media_of,
    moved,
    static,
    subject_of,
)
from whygate.console.passkeys import NotProven
from whygate.core.reasons import Code

_SIGN_IN: Final = "sign-in"


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    return [*_signing_in(console), *_enrolling(console), *_rest(console)]


def _source(request: Web) -> str:
    return request.client.host if request.client else ""


def _begun(console: Console, request: Web, person: str, path: str) -> Response[str]:
    """Signed in: a new session, whatever session came along."""
    old = console.sessions.find(request.cookies.get(console.cookie, ""))
    if old is not None:
        console.sessions.end(old)
    session = console.sessions.begin(person, "passkey")
    answer = moved(path)
    answer.set_cookie(
        key=console.cookie,
        value=session.key,
        path="/",
        httponly=True,
        secure=console.secure,
        samesite="lax",
    )
    return answer


def _page(console: Console, request: Web, error: str = "", status: int = 200, after: str = "/console") -> Response[str]:
    nobody = not console.authority.state.people
    return console.page(request, "sign_in.html", status, error=error, after=after, nobody=nobody)


def _signing_in(console: Console) -> list[HTTPRouteHandler]:
    people, passkeys = console.people, console.passkeys

    @get("/console/sign-in", include_in_schema=False)
    async def sign_in(request: Web) -> Response[str]:
        return _page(console, request, after=local(request.query_params.get("next", "/console")))

    @post("/console/sign-in/options", status_code=200, include_in_schema=False)
    async def options() -> dict[str, Any]:
        return passkeys.asking(_SIGN_IN)

    @post("/console/sign-in", include_in_schema=False)
    async def signed_in(request: Web) -> Response[str]:
        fields = {key: value for key, value in (await request.form()).multi_items() if isinstance(value, str)}
        after = local(fields.get("next", "/console"))
        if (wait_s := console.attempts.wait_s(_source(request))) > 0:
            return _page(console, request, f"Too many attempts. Wait {wait_s:.0f} s.", 429, after)
        said = fields.get("passkey", "")
        try:
            found = people.with_passkey(passkeys.credential(said))
            if found is None:
                raise NotProven("This passkey is not enrolled here.")  # noqa: TRY301  told like the others
            person, passkey = found
            passkeys.proven(_SIGN_IN, said, passkey)
        except NotProven as wrong:
            console.attempts.failed(_source(request))
            await console.refused(request, None, Code.AGENT_UNAUTHENTICATED, "a sign-in to the console that failed")
            return _page(console, request, str(wrong), 403, after)
        console.attempts.succeeded(_source(request))
        return _begun(console, request, person.id, after)

    return [sign_in, options, signed_in]


def _enrolling(console: Console) -> list[HTTPRouteHandler]:
    people, passkeys = console.people, console.passkeys

    @get("/console/enrol", include_in_schema=False)
    async def enrol(request: Web) -> Response[str]:
        token = request.query_params.get("token", "")
        invitation = people.invited(token)
        if invitation is None:
            error = "This link is not good any more: each works once, for 15 minutes. Ask for another."
            return console.page(request, "error.html", 410, title="Link not good", error=error)
        return console.page(request, "enrol.html", token=token, person=invitation.person, error="")

    @post("/console/enrol/options", status_code=200, include_in_schema=False)
    async def enrol_options(request: Web) -> dict[str, Any]:
        invitation = people.invited(str((await request.form()).get("token", "")))
        if invitation is None:
            raise NotForYou(Code.APPROVAL_UNVERIFIABLE, "This link is not good any more.")
        known = people.find(invitation.person.id)
        return passkeys.enrolling(known or invitation.person)

    @post("/console/enrol", include_in_schema=False)
    async def enrolled(request: Web) -> Response[str]:
        fields = await request.form()
        token, said = str(fields.get("token", "")), str(fields.get("passkey", ""))
        invitation = people.invited(token)
        if invitation is None:
            raise NotForYou(Code.APPROVAL_UNVERIFIABLE, "This link is not good any more.")
        try:
            passkey = passkeys.enrolled(people.find(invitation.person.id) or invitation.person, said)
        except NotProven as wrong:
            return console.page(request, "enrol.html", 400, token=token, person=invitation.person, error=str(wrong))
        person = await people.enrol(token, passkey, subject_of(invitation.person, "passkey"))
        if person is None:
            raise NotForYou(Code.APPROVAL_UNVERIFIABLE, "This link is not good any more.")
        return _begun(console, request, person.id, "/console")

    return [enrol, enrol_options, enrolled]


def _rest(console: Console) -> list[HTTPRouteHandler]:
    @post(
        "/console/sign-out",
        include_in_schema=False,
        guards=[console.guard("operator", "approver", "auditor", "breakglass")],
    )
    async def sign_out(request: Web) -> Response[str]:
        await console.form(request)
        console.sessions.end(request.state[SESSION])
        answer = moved("/console/sign-in")
        answer.delete_cookie(console.cookie, path="/")
        return answer

    @get("/console/static/{name:str}", include_in_schema=False)
    async def file(name: FromPath[str]) -> Response[bytes]:
        data = static(name)
        if data is None:
            return Response(b"", status_code=404, headers=HEADERS)
        headers = {**HEADERS, "cache-control": "max-age=300"}
        return Response(data, media_type=media_of(name), headers=headers)

    return [sign_out, file]
