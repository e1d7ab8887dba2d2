"""What every page of the console needs: who is here, what they may, and how a page looks.

Rules of this file:

1. No page but those for signing in is shown to nobody; each has its roles, checked before anything is read.
2. What changes something is a form with the session's token, from a page of ours.
3. A refusal is recorded like any other, with its code, and told with the way forward.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2
from litestar import MediaType, Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from whygate.console import words
from whygate.console.passkeys import Passkeys
from whygate.console.sessions import Attempts, Session, Sessions, same
from whygate.core.calls import Fault, ToolCall
from whygate.core.events import Person
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.reasons import Code
from whygate.core.records import Subject
from whygate.flow.approvals import Approvals, NotAnswered
from whygate.flow.authority import Authority
from whygate.flow.catalogue import Catalogue
from whygate.flow.elevations import Elevations
from whygate.flow.emergencies import Emergencies
from whygate.flow.people import People
from whygate.flow.policies import Policies
from whygate.flow.ports import Gate
from whygate.stores.reader import Reader

SESSION: Final = "session"
EVERYBODY: Final = ("owner", "operator", "approver", "auditor", "breakglass")
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none at all, browsers send forms with `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
Web = Request[Any, Any, Any]
_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("whygate.console"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
_TEMPLATES.filters |= {"safe_text": words.safe, "when": words.when, "moment": words.moment, "lasting": words.lasting}
_TEMPLATES.globals |= {"shapes": words.SHAPES}


class Elsewhere(Exception):
    """The page is another one: go there (RFC 9110 section 15.4.4)."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class NotForYou(Exception):
    """What is asked is not for whoever asks, or not in this way."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code, self.note = code, note


@dataclass(slots=True, kw_only=True)
class Console:
    """What the pages work with."""

    authority: Authority
    gate: Gate
    people: People
    policies: Policies
    catalogue: Catalogue
    agents: Mapping[str, Mapping[str, str]]
    """The inventory: id to owner, purpose, status."""
    ledger: Path
    url: str
    jaeger: str = ""
    clock: Callable[[], float] = time.monotonic
    approvals: Approvals = field(init=False)
    elevations: Elevations = field(init=False)
    emergencies: Emergencies = field(init=False)
    sessions: Sessions = field(init=False)
    attempts: Attempts = field(init=False)
    passkeys: Passkeys = field(init=False)
    _reader: Reader | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.approvals = Approvals(self.authority)
        self.elevations = Elevations(self.authority)
        self.emergencies = Emergencies(self.authority)
        self.sessions, self.attempts = Sessions(self.clock), Attempts(self.clock)
        self.passkeys = Passkeys(self.url, self.clock)

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def cookie(self) -> str:
        """``__Host-``: set by this very host over TLS, for all of it (RFC 6265bis section 4.1.3.2)."""
        return "__Host-whygate" if self.secure else "whygate"

    async def read(self, work: Callable[[Reader], Any]) -> Any:
        """Ask the ledger, in a thread."""
        if self._reader is None:
            self._reader = await asyncio.to_thread(Reader, self.ledger)
        return await asyncio.to_thread(work, self._reader)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    # --- who is here ---

    def guard(self, *roles: str) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
        """For whoever is signed in and has one of these roles (an owner has them all)."""

        async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            session = self.sessions.find(connection.cookies.get(self.cookie, ""))
            person = None if session is None else self.people.find(session.person)
            if session is None or person is None:
                path = connection.url.path
                raise Elsewhere(f"/console/sign-in?next={path}" if _method(connection) == "GET" else "/console/sign-in")
            site = connection.headers.get("sec-fetch-site", "same-origin")
            if _method(connection) != "GET" and site not in {"same-origin", "none"}:
                raise NotForYou(Code.REQUEST_ORIGIN_REFUSED, "a form from another site")
            if not {"owner", *roles} & set(person.roles):
                await self.refused(connection, person, Code.POLICY_EXPLICIT_DENY, "not for this person's roles")
                raise NotForYou(Code.POLICY_EXPLICIT_DENY, "Your roles do not include this.")
            connection.state[SESSION] = session

        return guard

    async def form(self, request: Web) -> dict[str, str]:
        """The form's fields, its token checked. Raises ``NotForYou``."""
        session: Session = request.state[SESSION]
        fields = {key: value for key, value in (await request.form()).multi_items() if isinstance(value, str)}
        given = fields.get("csrf") or request.headers.get("x-csrf") or ""
        if not same(given, session.csrf):
            raise NotForYou(Code.REQUEST_ORIGIN_REFUSED, "The form is not from this session. Load the page again.")
        return fields

    def me(self, request: Web) -> Person:
        session: Session = request.state[SESSION]
        person = self.people.find(session.person)
        if person is None:
            raise Elsewhere("/console/sign-in")
        return person

    def subject(self, request: Web) -> Subject:
        session: Session = request.state[SESSION]
        return subject_of(self.me(request), session.proof)

    async def refused(self, connection: Any, person: Person | None, code: Code, note: str) -> None:
        """Record that somebody was refused something here."""
        principal = Principal(
            id=person.id if person is not None else "anonymous",
            type=IdentityType.HUMAN if person is not None else IdentityType.ANONYMOUS,
            proof=Proof.PASSKEY if person is not None else Proof.NONE,
            roles=() if person is None else person.roles,
        )
        client = connection.client.host if connection.client else ""
        method = f"{_method(connection)} {connection.url.path.rpartition('/')[0][:60] or '/console'}"
        call = ToolCall(
            protocol="whygate",
            method=method,
            public=True,
            principal=principal,
            client=client,
            faults=(Fault(code=code, note=note),),
        )
        await self.gate.admit(call)

    # --- pages ---

    def page(self, request: Web, template: str, status: int = 200, **views: Any) -> Response[str]:
        """A page for whoever is signed in."""
        session: Session | None = request.state.get(SESSION)
        person = None if session is None else self.people.find(session.person)
        notice = ""
        if session is not None:
            notice, session.notice = session.notice, ""
        whole = {
            "me": person,
            "csrf": "" if session is None else session.csrf,
            "waiting": len(self.approvals.waiting()) if person is not None else 0,
            "notice": notice,
            "path": request.url.path,
            "now_us": self.authority.now_us(),
            **views,
        }
        headers = dict(HEADERS)
        if self.secure:
            headers["strict-transport-security"] = "max-age=31536000"
        return Response(
            _TEMPLATES.get_template(template).render(whole),
            media_type=MediaType.HTML,
            status_code=status,
            headers=headers,
        )

    def done(self, request: Web, path: str, notice: str = "") -> Response[str]:
        """What was asked is done: on to ``path``, one of ours."""
        session: Session | None = request.state.get(SESSION)
        if session is not None:
            session.notice = notice
        return moved(path)

    async def not_answered(self, request: Web, refused: NotAnswered, path: str) -> Response[str]:
        """Recorded, and told on the page that the form was on."""
        await self.refused(request, self.me(request), refused.code, refused.note)
        return self.done(request, path, f"Not done: {refused.note}. ({refused.code.value})")


def subject_of(person: Person, proof: str) -> Subject:
    """Somebody as a record names them."""
    return Subject(id=person.id, proof=proof, roles=person.roles, type=IdentityType.HUMAN.value)


def _method(connection: Any) -> str:
    return str(connection.scope.get("method", ""))


def moved(path: str) -> Response[str]:
    return Response("", status_code=303, headers={**HEADERS, "location": path}, media_type=MediaType.TEXT)


def local(path: str) -> str:
    """``path`` if it is one of the console's own pages; else its first. Nothing leads elsewhere."""
    plain = (
        path.startswith("/console")
        and not path.startswith("//")
        and not {"\\", ".."} & {*path, *path.split("/")}
        and path.isprintable()
    )
    return path if plain and (path == "/console" or path.startswith("/console/")) else "/console"


def static(name: str) -> bytes | None:
    """A file that pages refer to; ``None`` where there is none of this name."""
    if name not in _STATIC:
        return None
    return resources.files("whygate.console").joinpath("static", name).read_bytes()


_STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


def media_of(name: str) -> str:
    return _STATIC[name]
