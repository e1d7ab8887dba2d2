"""What waits for people: the inbox, the page of one question, and the answer, signed."""

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from webauthn.helpers import bytes_to_base64url

from whygate.console import drafts, words
from whygate.console.desk import EVERYBODY, SESSION, Console, NotForYou, Web
from whygate.console.passkeys import NotProven
from whygate.console.sessions import Session
from whygate.core import patterns, shown
from whygate.core.approvals import Approval, State
from whygate.core.events import ApprovalRecord, Signature
from whygate.core.instants import to_us
from whygate.core.reasons import Code
from whygate.core.records import AnyRecord, DecisionRecord
from whygate.flow.approvals import Given, NotAnswered
from whygate.flow.people import answerer
from whygate.flow.questions import named, never
from whygate.stores.reader import Reader

CHAIN: Final = 12
"""Calls of the task before this one that the page shows."""


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    return [*_pages(console), *_answering(console)]


def _found(console: Console, identity: str) -> Approval:
    approval = console.approvals.find(identity)
    if approval is None:
        raise NotForYou(Code.APPROVAL_UNVERIFIABLE, "There is no such question, or it is long over.")
    return approval


def _read(console: Console, approval: Approval, fields: Mapping[str, str]) -> Given:
    """The answer in a form, proof apart. Raises ``NotAnswered``."""
    document = console.approvals.shown(approval)
    return Given(
        approve=fields.get("answer") == "approve",
        for_s=_seconds(fields.get("for", "")) if fields.get("scope") == "task" else 0,
        narrow={} if document is None else _changes(document.arguments, approval.asked.narrow, fields),
        note=(fields.get("note") or fields.get("preset") or "").strip(),
        proof="",
        scope="task" if fields.get("scope") == "task" else "call",
        shown_digest=fields.get("shown_digest", ""),
    )


def _pages(console: Console) -> list[HTTPRouteHandler]:
    signed = console.guard(*EVERYBODY)

    @get("/console", include_in_schema=False, guards=[signed])
    async def inbox(request: Web) -> Response[str]:
        me = answerer(console.me(request))
        rows = []
        for approval in console.approvals.waiting():
            document = console.approvals.shown(approval)
            rows.append({"approval": approval, "shown": document, "no": console.approvals.may(approval, me)})
        mine = [row for row in rows if row["no"] is None]
        return console.page(request, "inbox.html", mine=mine, others=[row for row in rows if row["no"] is not None])

    @get("/console/approvals/{identity:str}", include_in_schema=False, guards=[signed])
    async def question(request: Web, identity: FromPath[str]) -> Response[str]:
        approval = _found(console, identity)
        document = console.approvals.shown(approval)
        events, chain = await console.read(lambda reader: _around(reader, approval))
        me = answerer(console.me(request))
        waits = approval.open(console.authority.now_us())
        laid = [] if document is None else words.leaves(document.arguments, document.reads, approval.asked.narrow)
        return console.page(
            request,
            "approval.html",
            approval=approval,
            shown=document,
            leaves=laid,
            answers=[] if document is None or not document.answers else words.leaves(document.answers, path="answers"),
            waits=waits,
            no=console.approvals.may(approval, me) if waits else None,
            who=named(approval.asked),
            never=never(approval.asked),
            events=events,
            chain=chain,
            lessened=_lessened(console, approval),
            presets=words.DENIALS,
            signs=bool(console.me(request).passkeys),
            draft="" if document is None else drafts.rule(document),
        )

    return [inbox, question]


def _answering(console: Console) -> list[HTTPRouteHandler]:
    may_answer = console.guard("approver", "operator", "breakglass")

    @post("/console/approvals/{identity:str}/options", status_code=200, include_in_schema=False, guards=[may_answer])
    async def options(request: Web, identity: FromPath[str]) -> Response[Any]:
        fields, approval = await console.form(request), _found(console, identity)
        me = console.me(request)
        try:
            choice = console.approvals.choice(approval, _read(console, approval, fields))
        except NotAnswered as refused:
            return Response({"error": refused.note}, status_code=422)
        nonce = secrets.token_bytes(32)
        value = shown.challenge(nonce, approval.shown_digest, choice)
        made = console.passkeys.asking(f"answer {identity} {me.id}", me.passkeys, value)
        return Response({**made, "nonce": bytes_to_base64url(nonce)})

    @post("/console/approvals/{identity:str}", include_in_schema=False, guards=[may_answer])
    async def answer(request: Web, identity: FromPath[str]) -> Response[str]:
        fields, approval = await console.form(request), _found(console, identity)
        me, path = console.me(request), f"/console/approvals/{identity}"
        if fields.get("answer") not in {"approve", "deny"}:
            raise NotForYou(Code.REQUEST_MALFORMED, "Approve or deny.")
        try:
            given = _read(console, approval, fields)
            given = _proven(console, request, approval, (given, fields))
            after = await console.approvals.answer(identity, answerer(me), console.subject(request), given)
        except NotProven as wrong:
            await console.refused(request, me, Code.APPROVAL_UNVERIFIABLE, "an answer without its signature")
            return console.done(request, path, str(wrong))
        except NotAnswered as refused:
            return await console.not_answered(request, refused, path)
        told = {State.DENIED: "Denied.", State.PENDING: "Your agreement counts; others have to agree as well."}
        return console.done(request, "/console", told.get(after.state, "Approved."))

    @post("/console/approvals/{identity:str}/revoke", include_in_schema=False, guards=[may_answer])
    async def revoke(request: Web, identity: FromPath[str]) -> Response[str]:
        fields = await console.form(request)
        try:
            await console.approvals.revoke(identity, console.subject(request), fields.get("note", ""))
        except NotAnswered as refused:
            return await console.not_answered(request, refused, f"/console/approvals/{identity}")
        return console.done(request, "/console", "Revoked.")

    return [options, answer, revoke]


def _lessened(console: Console, approval: Approval) -> list[words.Leaf]:
    """The arguments as somebody who agreed before has lessened them; nothing where nobody has."""
    changed = (console.authority.document(approval.id) or {}).get("narrowed")
    return words.leaves(changed) if isinstance(changed, dict) else []


def _proven(console: Console, request: Web, approval: Approval, what: tuple[Given, Mapping[str, str]]) -> Given:
    """The answer with its proof: a passkey's signature, where the person has one. Raises ``NotProven`` and ``NotAnswered``."""
    given, fields = what
    session: Session = request.state[SESSION]
    me = console.me(request)
    if not me.passkeys:
        return msgspec.structs.replace(given, proof=session.proof)
    said = fields.get("passkey", "")
    credential = console.passkeys.credential(said)
    passkey = next((each for each in me.passkeys if each.credential == credential), None)
    if passkey is None:
        raise NotProven("This passkey is not yours.")
    nonce = fields.get("nonce", "")
    value = shown.challenge(_bytes(nonce), approval.shown_digest, console.approvals.choice(approval, given))
    signature: Signature = console.passkeys.proven(f"answer {approval.id} {me.id}", said, passkey, value)
    session.passkey_s = console.sessions.now()
    return msgspec.structs.replace(given, proof="passkey", signature=msgspec.structs.replace(signature, nonce=nonce))


def _bytes(text: str) -> bytes:
    from webauthn.helpers import base64url_to_bytes  # noqa: PLC0415  beside its only use

    try:
        return base64url_to_bytes(text)
    except ValueError:
        raise NotProven("This page is broken. Load it again.") from None


def _changes(args: Mapping[str, Any], allowed: tuple[str, ...], fields: Mapping[str, str]) -> dict[str, Any]:
    """What the approver changed: fields that differ from what was asked. Raises ``NotAnswered``."""
    made: dict[str, Any] = {}
    for path in allowed:
        text = fields.get(f"narrow {path}")
        if text is None or not patterns.has(args, path):
            continue
        before = patterns.at(args, path)
        value: Any = text
        if not isinstance(before, str):
            try:
                value = json.loads(text)
            except ValueError:
                raise NotAnswered(Code.ARGS_NOT_ALLOWED, f"{path} is not readable as a value") from None
        if value != before or type(value) is not type(before):
            made[path] = value
    return made


def _seconds(text: str) -> int:
    return int(text) * 60 if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _around(reader: Reader, approval: Approval) -> tuple[list[ApprovalRecord], list[DecisionRecord]]:
    """What happened to the question, and the calls of its task before it."""
    events = [stored.record for stored in reader.about(approval.id)]
    chain: list[AnyRecord] = []
    if approval.asked.task:
        chain = [stored.record for stored in reader.task(approval.asked.task)]
    asked = [each for each in chain if isinstance(each, DecisionRecord) and each.resource.id]
    earlier = [each for each in asked if each.id != approval.decision and to_us(each.time) <= approval.asked_us]
    before = earlier[-CHAIN:]
    return [each for each in events if isinstance(each, ApprovalRecord)], before
