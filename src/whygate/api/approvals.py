"""Questions and answers on the operators' listener.

Rules of this file:

1. Only people answer, and no agent's token ever does: it lies where an agent may reach it.
2. A token is enough only for somebody who has no passkey. Who has one finishes in a browser: what is signed there, no agent
   that owns the shell can sign.
3. What approvers are shown is for those who may answer, those for whom the call is made, people in charge and auditors: it holds
   the call's arguments. Others see that a question waits.
"""

from typing import Any, Final

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from whygate.api.acting import Desk, caller, subject, with_passkey
from whygate.api.bodies import AnswerGiven
from whygate.api.guard import AUDITOR, IN_CHARGE
from whygate.core import told
from whygate.core.approvals import Answerer, Approval, No
from whygate.core.identity import Proof
from whygate.flow.approvals import Approvals, Given
from whygate.transport.access import Who

ANSWERED: Final = "approvals/answer"
_ROLES: Final = IN_CHARGE | {AUDITOR}
"""Who sees every document."""


def handlers(desk: Desk, approvals: Approvals) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""

    @get(
        "/v1/approvals",
        summary="Questions that wait for people, and answers that can be used",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("approvals/read", "see approvals")],
    )
    async def all_approvals() -> dict[str, Any]:
        """The question that ends first comes first."""
        return {
            "waiting": [_told(desk, each) for each in approvals.waiting()],
            "usable": [_told(desk, each) for each in approvals.in_use()],
        }

    @get(
        "/v1/approvals/{approval:str}",
        summary="One question",
        security=[{"bearer": []}],
        guards=[desk.guard.asks("approvals/read", "see what approvers are shown", who=Who.PEOPLE)],
    )
    async def one_approval(request: Request[Any, Any, Any], approval: FromPath[str]) -> dict[str, Any]:
        """With the document that approvers are shown; `null` where it is over, or not for you."""
        found = approvals.find(approval)
        if found is None:
            raise NotFoundException("there is no such approval, or it was over long ago: `whygate why` knows")
        shown = approvals.shown(found) if _may_see(approvals, found, desk.who(caller(request))) else None
        return {**_told(desk, found), "shown": None if shown is None else told.document(shown)}

    @post(
        "/v1/approvals/{approval:str}",
        status_code=200,
        summary="Answer a question",
        security=[{"bearer": []}],
        guards=[desk.guard.asks(ANSWERED, "answer what an agent asks", who=Who.PEOPLE)],
    )
    async def answer_approval(
        request: Request[Any, Any, Any], approval: FromPath[str], data: JSONBody[AnswerGiven]
    ) -> dict[str, Any]:
        """By token, where you have no passkey; who has one is sent to the console (403 with `console`)."""
        if desk.passkeys(caller(request)):
            raise await desk.refusal(request, ANSWERED, with_passkey(), page(approval))
        given = Given(
            approve=data.approve,
            for_s=data.for_s,
            narrow=data.narrow,
            note=data.note,
            proof=Proof.OIDC.value,
            scope=data.scope,
            shown_digest=data.shown_digest,
        )
        who = desk.who(caller(request))
        work = approvals.answer(approval, who, subject(request), given)
        return _told(desk, await desk.do(request, ANSWERED, work))

    return [all_approvals, one_approval, answer_approval]


def _may_see(approvals: Approvals, found: Approval, who: Answerer) -> bool:
    if who.id in found.asked.behind or not _ROLES.isdisjoint(who.roles):
        return True
    return approvals.may(found, who) in {None, No.TWICE}


def page(approval: str) -> str:
    """Where it is answered, below the console's address."""
    return f"/console/approvals/{approval}"


def _told(desk: Desk, one: Approval) -> dict[str, Any]:
    return {**told.approval(one), "console": desk.console + page(one.id)}
