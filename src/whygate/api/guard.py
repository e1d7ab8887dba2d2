"""Who may use the operators' listener: people, and the hosts that the operator named; an agent never, whatever its roles.

A refusal is decided and recorded like one at the edges, and before anything of the body is read: a stranger learns
nothing from what we say of it. Some things are for people alone, and some of those for people in charge; somebody who is
nothing but an auditor reads, and changes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from whygate.core.calls import Fault, ToolCall
from whygate.core.identity import ANONYMOUS, IdentityType, Principal, Proof, Status
from whygate.core.reasons import Code
from whygate.flow.ports import Answer, Gate, Identifier
from whygate.transport import access
from whygate.transport.callers import identify
from whygate.transport.refusals import problem, refusal_headers, status_of

PROBLEM: Final = "application/problem+json"
CALLER: Final = "caller"
"""Where a handler finds the verified ``Principal``: in the request's state."""

Connection = ASGIConnection[Any, Any, Any, Any]


IN_CHARGE: Final = frozenset(("owner", "operator"))
EMERGENCY: Final = frozenset(("breakglass",))
AUDITOR: Final = "auditor"
_READING: Final = frozenset(("GET", "HEAD"))


class Refused(Exception):
    """A request that was decided against; recorded, but for ``audit.unavailable``."""

    def __init__(self, answer: Answer, *, told: str = "", console: str = "") -> None:
        """``told``: what exactly is wrong, for a person who may know. ``console``: the page where it can be done."""
        super().__init__(answer.code)
        self.answer, self.told, self.console = answer, told, console


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Asks who calls."""

    identifier: Identifier
    gate: Gate
    hosts: Sequence[str]
    """Ids and ``role:<name>``, from ``identities.task_openers``."""
    switched_off: Callable[[str], bool] = lambda _: False
    """Whether the kill switch holds this one."""

    def asks(
        self,
        method: str,
        what: str,
        limit: Callable[[Principal], Fault | None] = lambda _: None,
        *,
        who: access.Who = access.Who.OPERATORS,
    ) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
        """A guard for handlers: ``method`` names what is done in records, ``what`` says it to operators; ``limit`` tells what
        keeps one who may do it from doing it now; ``who`` as in ``transport.access``.
        """

        async def guard(connection: Connection, _: BaseRouteHandler) -> None:
            caller, fault = await self._caller(connection, what, who)
            fault = limit(caller) if fault is None else fault
            if fault is not None:
                raise Refused(await self.refuse(connection, caller, fault, method))
            connection.state[CALLER] = caller

        return guard

    async def _caller(self, connection: Connection, what: str, who: access.Who) -> tuple[Principal, Fault | None]:
        found = await identify(self.identifier, connection.headers.getall("authorization", []))
        if isinstance(found, Fault):
            return ANONYMOUS, found
        return found, self._not_for(found, what, who, reads=connection.scope.get("method") in _READING)

    def _not_for(self, caller: Principal, what: str, who: access.Who, *, reads: bool) -> Fault | None:
        if caller.status is not Status.ACTIVE or self.switched_off(caller.id):
            return Fault(code=Code.AGENT_SUSPENDED, note="switched off, or by the inventory not active")
        if caller.type is not IdentityType.HUMAN:
            named = not caller.kinds.isdisjoint(self.hosts) and caller.type is not IdentityType.AI_AGENT
            if named and who is access.Who.OPERATORS:
                return None
            hosts = (
                "people, and the hosts that identities.task_openers names," if who is access.Who.OPERATORS else "people"
            )
            return _refusal(f"only {hosts} {what}")
        if not reads and AUDITOR in caller.roles and len(caller.roles) == 1:
            return _refusal(f"an auditor reads; others {what}")
        if (wanted := _ROLES.get(who)) and wanted.isdisjoint(caller.roles):
            return _refusal(f"only people with the role {' or '.join(sorted(wanted))} {what}")
        if who is not access.Who.OPERATORS and caller.proof is not Proof.JWT:
            return _refusal(f"only people who signed in {what}: a key that lies somewhere is no person")
        return None

    async def refuse(self, connection: Connection, caller: Principal, fault: Fault, method: str) -> Answer:
        """Have the refusal decided and recorded."""
        client = connection.client.host if connection.client else ""
        call = ToolCall(
            protocol="whygate", method=method, public=True, principal=caller, client=client, faults=(fault,)
        )
        return (await self.gate.admit(call)).answer


_ROLES: Final = {access.Who.IN_CHARGE: IN_CHARGE, access.Who.EMERGENCY: EMERGENCY}


def _refusal(note: str) -> Fault:
    return Fault(code=Code.POLICY_EXPLICIT_DENY, note=note)


def checked(app: Litestar) -> Litestar:
    """``app``, if each of its paths has a row in ``transport.access``, and a guard where the row is not for anybody.

    Raises ``LookupError``: a path that nobody thought about is not served.
    """
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            raise LookupError(f"{route.path} is no plain HTTP: no row")  # noqa: TRY004  not its type is wrong
        for method, (handler, _) in route.route_handler_map.items():
            if method == "OPTIONS" and handler.handler_name == "options_handler":
                continue  # Litestar's own: names a path's methods, to anybody
            if route.path == _NOT_THERE:
                continue  # answers 404 for whatever else is asked for below /schema
            found = access.row(access.OPERATORS, route.path_format, method)
            if found is None:
                raise LookupError(f"{method} {route.path} has no row in transport.access")
            if bool(handler.guards) is (found.who is access.Who.ANYBODY):
                raise LookupError(f"{method} {route.path} is for {found.who}, and its handler says otherwise")
    return app


_NOT_THERE: Final = "/schema/{path:str}"


def unrecorded() -> Answer:
    """The one refusal that has no record."""
    code = Code.AUDIT_UNAVAILABLE
    return Answer(id="", outcome=code.outcome, code=code, note=code.entry.user, next=code.entry.next)


def refused(found: Refused, resource_metadata: str) -> Response[bytes]:
    """The answer to a refused request."""
    answer = found.answer
    headers = {name.decode(): value.decode("latin-1") for name, value in refusal_headers(answer, resource_metadata)}
    body = problem(answer)
    if found.told or found.console:
        more = {"detail": found.told or answer.note} | ({"console": found.console} if found.console else {})
        body = msgspec.json.encode(msgspec.json.decode(body) | more)
    return Response(body, status_code=status_of(answer.code), media_type=PROBLEM, headers=headers)
