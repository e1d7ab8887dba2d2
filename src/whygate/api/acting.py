"""What people in charge want done, over HTTP: who they are to the flow, and what becomes of a refusal.

Rules of this file:

1. What the flow refuses is recorded with its code, like what the guard refuses; the person is told what exactly was wrong.
2. Nothing here decides: who may come at all the guard says, what may be done the flow.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar import Request

from whygate.api.guard import CALLER, Guard, Refused, unrecorded
from whygate.core.approvals import Answerer
from whygate.core.calls import Fault
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.core.records import Subject
from whygate.flow.approvals import NotAnswered
from whygate.flow.authority import Authority
from whygate.flow.ports import LedgerUnavailable
from whygate.flow.subjects import subject_of

AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where what people want done is taken."""

    guard: Guard
    authority: Authority
    console: str
    """Where people finish with a passkey: the address of the console's listener."""

    async def do(self, request: AnyRequest, method: str, work: Awaitable[T]) -> T:
        """What ``work`` gives. Raises ``Refused``, recorded under ``method``."""
        try:
            return await work
        except NotAnswered as no:
            raise await self.refusal(request, method, no) from None
        except LedgerUnavailable:
            raise Refused(unrecorded()) from None

    async def refusal(self, request: AnyRequest, method: str, no: NotAnswered, console: str = "") -> Refused:
        """The refusal, recorded; ``console`` is a path there."""
        caller: Principal = request.state[CALLER]
        answer = await self.guard.refuse(request, caller, Fault(code=no.code, note=no.note), method)
        return Refused(answer, told=no.note, console=self.console + console if console else "")

    def who(self, principal: Principal) -> Answerer:
        """Somebody as rules name approvers: with what their token says, and what the people's list says of them."""
        known = self.authority.state.people.get(principal.id)
        if known is None:
            return Answerer(id=principal.id, roles=principal.roles)
        return Answerer(id=principal.id, groups=known.groups, roles=(*principal.roles, *known.roles))

    def passkeys(self, principal: Principal) -> int:
        """How many passkeys this person has enrolled."""
        known = self.authority.state.people.get(principal.id)
        return 0 if known is None else len(known.passkeys)


def caller(request: AnyRequest) -> Principal:
    """Whom the guard let pass."""
    found: Principal = request.state[CALLER]
    return found


def subject(request: AnyRequest) -> Subject:
    """The same, as records name them."""
    return subject_of(caller(request))


def with_passkey() -> NotAnswered:
    """Why a token alone is not enough."""
    return NotAnswered(Code.AUTHN_INSUFFICIENT, "finish with your passkey in a browser")
