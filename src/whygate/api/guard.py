"""Who may use the operators' listener: people, and the hosts that the operator named; an agent never, whatever its roles.

A refusal is decided and recorded like one at the edges, and before anything of the body is read: a stranger learns
nothing from what we say of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litestar import Litestar, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from whygate.core.calls import Fault, ToolCall
from whygate.core.identity import ANONYMOUS, IdentityType, Principal
from whygate.core.reasons import Code
from whygate.flow.ports import Answer, Gate, Identifier
from whygate.transport import access
from whygate.transport.callers import identify
from whygate.transport.refusals import problem, refusal_headers, status_of

PROBLEM: Final = "application/problem+json"
CALLER: Final = "caller"
"""Where a handler finds the verified ``Principal``: in the request's state."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Refused(Exception):
    """A request that was decided against; recorded, but for ``audit.unavailable``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Asks who calls."""

    identifier: Identifier
    gate: Gate
    hosts: Sequence[str]
    """Ids and ``role:<name>``, from ``identities.task_openers``."""

    def asks(
        self, method: str, what: str, limit: Callable[[Principal], Fault | None] = lambda _: None
    ) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
        """A guard for handlers: ``method`` names what is done in records, ``what`` says it to operators; ``limit`` tells what
        keeps one who may do it from doing it now.
        """

        async def guard(connection: Connection, _: BaseRouteHandler) -> None:
            caller, fault = await self._caller(connection, what)
            fault = limit(caller) if fault is None else fault
            if fault is not None:
                raise Refused(await self._refuse(connection, caller, fault, method))
            connection.state[CALLER] = caller

        return guard

    async def _caller(self, connection: Connection, what: str) -> tuple[Principal, Fault | None]:
        found = await identify(self.identifier, connection.headers.getall("authorization", []))
        if isinstance(found, Fault):
            return ANONYMOUS, found
        named = not found.kinds.isdisjoint(self.hosts)
        if found.type is IdentityType.HUMAN or (named and found.type is not IdentityType.AI_AGENT):
            return found, None
        note = f"only people, and the hosts that identities.task_openers names, {what}"
        return found, Fault(code=Code.POLICY_EXPLICIT_DENY, note=note)

    async def _refuse(self, connection: Connection, caller: Principal, fault: Fault, method: str) -> Answer:
        client = connection.client.host if connection.client else ""
        call = ToolCall(
            protocol="whygate", method=method, public=True, principal=caller, client=client, faults=(fault,)
        )
        return (await self.gate.admit(call)).answer


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
            found = access.row(access.OPERATORS, route.path.replace(":str}", "}"), method)
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


def refused(answer: Answer, resource_metadata: str) -> Response[bytes]:
    """The answer to a refused request."""
    headers = {name.decode(): value.decode("latin-1") for name, value in refusal_headers(answer, resource_metadata)}
    return Response(problem(answer), status_code=status_of(answer.code), media_type=PROBLEM, headers=headers)
