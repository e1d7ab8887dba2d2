"""The way back to an agent whose call a person has to agree to: whatever its protocol can do, the best of it first.

1. A standing answer: ``decide`` knows it, and nobody comes here.
2. 2026-07-28: ``input_required`` in URL mode, or, where policy trusts the client's process, as a form. The retry is held while
   people think (a long poll), so that its ten rounds last for minutes.
3. 2025: ``elicitation/create`` on the call's own stream, likewise, while the call is held.
4. Holding the call, with progress and signs of life, for at most ``HOLD_S``: clients give up at 60.
5. A result that says what to do. The same call, made again, finds the answer.

Rules of this file:

1. A handle is a name of ours that can't be guessed, bound to its principal; what it stands for is looked up and decided again.
2. What the client's process answers is never a person's: it ends the wait, and no more, unless policy trusts the process.
3. Who waits is no work: a timer and a future. A client that leaves waits no longer; its question stays.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from whygate.core.reasons import Code
from whygate.flow.ports import Admission, Gate
from whygate.mcp import frames, splices
from whygate.mcp.crowd import Crowd
from whygate.mcp.envelope import CAPABILITIES_KEY, INVALID_PARAMS, OURS, Wrong
from whygate.mcp.sessions import whose
from whygate.mcp.turns import Turn
from whygate.mcp.watch import Watch
from whygate.transport.asgi import ClientGone, Header
from whygate.transport.hints import wait_of
from whygate.transport.refusals import answer_headers

HOLD_S: Final = 50.0
"""TypeScript's SDK and some hosts give up at 60 s."""
POLL_S: Final = 40.0
"""Of a retry: ten rounds, after which SDKs give up, are more than six minutes."""
TICK_S: Final = 10.0
"""Between signs of life. The first comes after as long: an answer that is quick needs no stream."""
KEY: Final = f"{OURS}approval"
"""Of our own question among those that a result asks."""
PREFIX: Final = "wh1."
MAX_HANDLES: Final = 20_000
"""Some 10 MB; the oldest are forgotten first, and their callers ask anew."""
ASKED: Final = "whygate-ask-"
_EVENTS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_FORM: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve this call?", "default": False}},
    "required": ["approve"],
}
_encode: Final = msgspec.json.Encoder().encode


class Handle(msgspec.Struct, frozen=True):
    """What a ``requestState`` of ours stands for."""

    approval: str
    owner: str
    state: str | None
    """The tool's own, sealed, which the call came with when we asked."""
    responses: Mapping[str, Any] | None


class Question(msgspec.Struct):
    """What we asked on a stream."""

    owner: str
    admission: Admission


class Ladder:
    """Owned by the event loop."""

    def __init__(self, gate: Gate, capabilities: Callable[[Turn], Mapping[str, Any]], crowd: Crowd) -> None:
        """``capabilities`` gives those of a legacy client's session."""
        self._gate = gate
        self._capabilities = capabilities
        self._crowd = crowd
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._asked: dict[str, Question] = {}
        self._telling: set[asyncio.Task[None]] = set()

    # --- what comes with a call ---

    def take_up(self, turn: Turn) -> Wrong | None:
        """Take our own handle and answer out of a request, so that what is left is the call as it was; what is wrong with it."""
        params = turn.envelope.params
        state, responses = params.get("requestState"), params.get("inputResponses")
        ours = isinstance(state, str) and state.startswith(PREFIX)
        said = responses.get(KEY) if isinstance(responses, dict) else None
        if not ours and said is None:
            return None
        if not ours:
            rest = {key: value for key, value in responses.items() if key != KEY} if isinstance(responses, dict) else {}
            _rewrite(turn, state, rest or None)
            return None
        handle = self._handles.get(str(state))
        if handle is None or handle.owner != whose(turn.principal):
            note = "the requestState was not given out to this caller, or long ago"
            return Wrong(Code.HANDLE_NOT_USABLE, note, rpc=INVALID_PARAMS)
        turn.presented = handle.approval
        turn.said = said if isinstance(said, dict) else {}
        _rewrite(turn, handle.state, handle.responses)
        return None

    def heard(self, turn: Turn) -> bool:
        """Whether a client's message answers a question of ours; then it is taken."""
        parts = turn.envelope.parts
        identity = msgspec.json.decode(parts["id"]) if "id" in parts else None
        question = self._asked.get(identity) if isinstance(identity, str) else None
        if question is None or question.owner != whose(turn.principal):
            return False
        del self._asked[str(identity)]
        said = msgspec.json.decode(parts["result"]) if "result" in parts else {"action": "cancel"}
        task = asyncio.get_running_loop().create_task(self._take(question.admission, said))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return True

    async def _take(self, admission: Admission, said: Any) -> None:
        """What the client's process says to our question: that it will not, or, in a form, yes or no."""
        action = said.get("action") if isinstance(said, dict) else None
        if action in {"decline", "cancel"}:
            await self._gate.client_answers(admission, None)
            return
        content = said.get("content") if isinstance(said, dict) else None
        if action == "accept" and isinstance(content, dict) and isinstance(content.get("approve"), bool):
            await self._gate.client_answers(admission, content["approve"])

    # --- the ladder ---

    async def climb(
        self, turn: Turn, admission: Admission, again: Callable[[], Awaitable[Admission]]
    ) -> Admission | None:
        """What became of a challenge; ``None`` where the client has been told to ask again. Raises ``ClientGone``."""
        approval = admission.approval
        if approval is None or turn.envelope.id is None:
            return admission
        mode = self._mode(turn, admission)
        modern = turn.envelope.modern
        if modern and mode:
            if not turn.presented or turn.presented != approval.id:
                await self._ask_in_result(turn, admission, mode)
                return None
            await self._take(admission, turn.said)
        limit = wait_of(turn.heads.text(b"prefer"))
        usual = POLL_S if modern and mode else HOLD_S if _takes_events(turn) else 0.0
        within_s = usual if limit is None else min(float(limit), HOLD_S)
        if await self._hold(turn, admission, within_s, "" if modern else mode):
            turn.presented = approval.id
            return await again()
        if modern and mode and not turn.exchange.started:
            await self._ask_in_result(turn, admission, mode)
            return None
        return admission

    def _mode(self, turn: Turn, admission: Admission) -> str:
        """How this client can be asked: ``url`` or ``form``; empty where it can't."""
        envelope = turn.envelope
        said = envelope.meta.get(CAPABILITIES_KEY) if envelope.modern else self._capabilities(turn)
        elicits = said.get("elicitation") if isinstance(said, Mapping) else None
        if not isinstance(elicits, Mapping) or (not envelope.modern and not _takes_events(turn)):
            return ""
        trusted = admission.want is not None and admission.want.client
        if trusted and ("form" in elicits or not elicits):
            return "form"
        return "url" if "url" in elicits else ""

    async def _ask_in_result(self, turn: Turn, admission: Admission, mode: str) -> None:
        params = turn.envelope.params
        handle = PREFIX + secrets.token_urlsafe(24)
        state, responses = turn.carried, params.get("inputResponses")
        self._handles[handle] = Handle(admission.answer.approval, whose(turn.principal), state, responses)
        while len(self._handles) > MAX_HANDLES:
            self._handles.popitem(last=False)
        asked = {KEY: {"method": "elicitation/create", "params": _question(admission, mode)}}
        result = {"resultType": "input_required", "inputRequests": asked, "requestState": handle}
        result["_meta"] = {splices.DECISION_KEY: admission.answer}
        body = _encode({"jsonrpc": "2.0", "id": turn.envelope.id, "result": result})
        headers = [(b"content-type", b"application/json"), *answer_headers(admission.answer)]
        await turn.exchange.respond(200, headers, body)

    async def _hold(self, turn: Turn, admission: Admission, within_s: float, mode: str) -> bool:
        """Wait for the answer, with signs of life; whether it came. Raises ``ClientGone``."""
        if within_s <= 0:
            return False
        loop = asyncio.get_running_loop()
        ends, identity = loop.time() + within_s, ""
        watch = Watch(turn.exchange, cancels=True)
        try:
            with turn.exchange.resting(), self._crowd.apart():
                if mode:
                    identity = await self._ask_on_stream(turn, admission, mode)
                while (left := ends - loop.time()) > 0:
                    settled = await self._gate.settled(admission, min(TICK_S, left))
                    if settled is None:  # too many of this caller's wait already
                        return False
                    if settled:
                        if identity and mode == "url":
                            await self._told(turn, admission)
                        return True
                    if _takes_events(turn):
                        await self._sign_of_life(turn, admission, within_s - (ends - loop.time()), within_s)
            return False  # noqa: TRY300  not the way that the others end
        except asyncio.CancelledError:
            if watch.took():
                raise ClientGone from None
            raise
        finally:
            watch.close()
            self._asked.pop(identity, None)

    async def _start(self, turn: Turn, admission: Admission) -> None:
        if not turn.exchange.started:
            await turn.exchange.start(200, [*_EVENTS, *answer_headers(admission.answer)])

    async def _sign_of_life(self, turn: Turn, admission: Admission, waited_s: float, within_s: float) -> None:
        await self._start(turn, admission)
        token = turn.envelope.meta.get("progressToken")
        if isinstance(token, bool) or not isinstance(token, int | str):
            await turn.exchange.send(b": waiting for a person\n\n")
            return
        params = {"progressToken": token, "progress": round(waited_s), "total": round(within_s)}
        params["message"] = "Waiting for a person to agree."
        await self._event(turn, {"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def _ask_on_stream(self, turn: Turn, admission: Admission, mode: str) -> str:
        await self._start(turn, admission)
        identity = ASKED + secrets.token_urlsafe(16)
        self._asked[identity] = Question(whose(turn.principal), admission)
        params = _question(admission, mode)
        if mode == "url":
            params["elicitationId"] = admission.answer.approval
        asked = {"jsonrpc": "2.0", "id": identity, "method": "elicitation/create", "params": params}
        await self._event(turn, asked)
        return identity

    async def _told(self, turn: Turn, admission: Admission) -> None:
        """2025-11-25, client/elicitation: the page was dealt with."""
        params = {"elicitationId": admission.answer.approval}
        await self._event(turn, {"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": params})

    async def _event(self, turn: Turn, message: Mapping[str, Any]) -> None:
        await turn.exchange.send(frames.event(_encode(message)))


def _takes_events(turn: Turn) -> bool:
    return "text/event-stream" in turn.heads.text(b"accept")


def _question(admission: Admission, mode: str) -> dict[str, Any]:
    """An elicitation (client/elicitation). Its words are ours; what exactly is asked, the page shows."""
    answer, tool = admission.answer, admission.call.tool
    what = f"{tool.id}" if tool is not None else "this call"
    if mode == "form":
        return {"mode": "form", "message": f"Policy asks a person to agree to {what}.", "requestedSchema": _FORM}
    message = (
        f"A person has to agree to {what} (by {answer.answer_by}). The page shows what exactly, and asks to sign in."
    )
    return {"mode": "url", "message": message, "url": answer.approval_url}


def _rewrite(turn: Turn, state: Any, responses: Mapping[str, Any] | None) -> None:
    """The request without what was ours, and with what the tool's own round had."""
    envelope = turn.envelope
    params = {key: value for key, value in envelope.params.items() if key not in {"requestState", "inputResponses"}}
    raw: dict[str, Any] = dict(splices.members(envelope.parts["params"]) or {})
    raw.pop("requestState", None)
    raw.pop("inputResponses", None)
    for key, value in (("requestState", state), ("inputResponses", responses)):
        if value is not None:
            params[key] = value
            raw[key] = value
    envelope.params = params
    envelope.parts["params"] = msgspec.Raw(_encode(raw))
