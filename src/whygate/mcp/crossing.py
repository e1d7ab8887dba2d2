"""One admitted call of the merged address, on its way to a server of either era and back to a client of either.

Rules of this file:

1. The response is completed and passed on by ``Open``, as on the transparent address; here it is only translated.
2. A server's question reaches the client only where the client said that it answers such; else it is declined at once.
3. A modern server's ``input_required`` is asked of a legacy client as questions on the call's stream. Each further round is
   a call of its own: decided with what the client answered, recorded, completed. The server's state stays with us meanwhile.
4. A question is decided before the client sees it (``questions``), as on the transparent address.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import ToolCall
from whygate.core.reasons import Code
from whygate.flow.ports import Completion
from whygate.mcp import asking, frames, merging, refusals, splices
from whygate.mcp.conversation import Conversation
from whygate.mcp.envelope import Parts
from whygate.mcp.questions import Place, Questions
from whygate.mcp.relay import Open
from whygate.mcp.stdio import KEEPALIVE_S, status_of_error
from whygate.mcp.talks import Question, Talk
from whygate.transport.asgi import JSON, Exchange, Header
from whygate.transport.refusals import answer_headers
from whygate.transport.upstream import UpstreamError

ROUNDS: Final = 10
"""After so many, SDK clients give up as well."""
ANSWER_S: Final = 600.0
"""A person who was asked something gets ten minutes; clients give up long before."""
_EVENTS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_PASSING: Final = frozenset(("notifications/progress", "notifications/elicitation/complete"))
_LOG: Final = "notifications/message"
_CANCELLED: Final = "notifications/cancelled"
_encode: Final = msgspec.json.Encoder().encode


class Input(msgspec.Struct):
    """What a modern server wants to know before it goes on."""

    requests: "dict[str, Asking]"
    state: msgspec.Raw | None


class Asking(msgspec.Struct):
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Across(Place):
    """Where a server asks on its way across."""

    __slots__ = ("_conversation",)

    def __init__(self, questions: Questions, call: ToolCall, conversation: Conversation) -> None:
        super().__init__(questions, call)
        self._conversation = conversation

    @property
    def modern(self) -> bool:
        return self._conversation.modern

    async def tell(self, body: bytes) -> None:
        await self._conversation.tell(splices.members(body) or {})


class Down:
    """The way down to the client: one piece of JSON, or, once there is more to say than that, an event stream."""

    def __init__(self, exchange: Exchange, *, takes_events: bool) -> None:
        self._exchange = exchange
        self._headers: list[Header] = []
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._ended = False
        self.takes_events = takes_events

    def begin(self, headers: list[Header]) -> None:
        """Those of the first decision; from now on the client is told now and then that somebody is there."""
        if not self._headers:
            self._headers = headers
            self._wait()

    async def event(self, message: bytes) -> None:
        async with self._lock:
            await self._start()
            await self._exchange.send(frames.event(message))

    async def end(self, status: int, message: bytes) -> None:
        """The last word."""
        self.close()
        async with self._lock:
            self._ended = True
            if self._exchange.started:
                await self._exchange.send(frames.event(message))
                await self._exchange.end()
            else:
                await self._exchange.respond(status, [JSON, *self._headers], message)

    async def nothing(self) -> None:
        """End without an answer: the client has said that it wants none."""
        self.close()
        async with self._lock:
            if not self._ended:
                await self._start()
                await self._exchange.end()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    async def _start(self) -> None:
        if not self._exchange.started:
            await self._exchange.start(200, [*_EVENTS, *self._headers])

    def _wait(self) -> None:
        if self.takes_events:
            self._timer = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._tick)

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().create_task(self._still_here())
        self._wait()

    async def _still_here(self) -> None:
        with contextlib.suppress(Exception):  # a client that has left is somebody else's to notice
            async with self._lock:
                if self._timer is not None:
                    await self._start()
                    await self._exchange.send(b": still here\n\n")


class Crossing:
    """A call of one tool."""

    def __init__(self, talk: Talk, conversation: Conversation, tool: str, down: Down, questions: Questions) -> None:
        self._questions = questions
        self._talk = talk
        self._conversation = conversation
        self._tool = tool
        self._down = down
        self.more: dict[str, msgspec.Raw] = {}
        """What the server wanted to know, for the next round."""
        self.answers: dict[str, Any] = {}
        """The same, as it is decided about."""

    async def run(self, opened: Open, *, last: bool) -> Input | None:
        """Send the call and pass on what comes, the response included; what the server wants to know first where that is
        to be asked of the client. Raises ``UpstreamError`` and ``Refused``. ``last``: there will be no further round.
        """
        conversation, envelope = self._conversation, opened.envelope
        self._down.begin(answer_headers(opened.admission.answer))
        await conversation.start()
        params = merging.upward(envelope, self._tool, opened.admission.traceparent, modern=conversation.modern)
        params |= self.more
        arguments = envelope.params.get("arguments", {})
        token = envelope.meta.get("progressToken")
        token = token if isinstance(token, int | str) and not isinstance(token, bool) else None
        headers = await self._repeated(arguments) if conversation.modern and not envelope.modern else self._mirrored
        async with conversation.ask("tools/call", params, args=arguments, headers=headers, token=token) as asked:
            opened.status = asked.status
            across = Across(self._questions, opened.admission.call, conversation)
            try:
                async for message, data in asked.messages():
                    if not message.method:
                        return await self._response(opened, across, message, data, last=last)
                    if message.id is None:
                        await self._notice(opened, across, message, data)
                    else:
                        await self._question(opened, across, message, data)
            finally:
                self._talk.forget(envelope.id)
        raise UpstreamError(Code.UPSTREAM_FAILED, "no response")  # messages() says so itself; said again for the reader

    _mirrored: tuple[tuple[str, str], ...] = ()

    def mirrored(self, headers: tuple[tuple[str, str], ...]) -> None:
        """``Mcp-Param-*`` as the client sent them, for a modern server to compare."""
        self._mirrored = headers

    async def _repeated(self, arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """The headers that a modern server wants, for a client that knows nothing of them."""
        conversation = self._conversation
        if not conversation.listed:
            with contextlib.suppress(UpstreamError):
                await conversation.list_tools()
        return conversation.mirrors.headers(self._tool, arguments)

    async def _response(
        self, opened: Open, across: Across, message: splices.Message, data: bytes, *, last: bool
    ) -> Input | None:
        envelope = opened.envelope
        if opened.status in (401, 407):
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool did not take the gateway's credential")
        result = splices.members(message.result) if message.result else None
        kind = "complete" if result is None else merging.kind(result)
        if kind == "input_required" and not envelope.modern and result is not None:
            wanted = None if last else self._wanted(result)
            if wanted is None:
                await self._down.end(200, self._unanswerable(opened))
                return None
            refused = await opened.answer(merging.with_id(data, envelope.id), across)
            if not opened.withheld:
                return wanted
            await self._down.end(200, refused or b"")
            return None
        if kind not in ("complete", "input_required"):
            raise UpstreamError(Code.UPSTREAM_FAILED, f"an answer of the kind {kind[:32]!r}")
        passed = await opened.answer(merging.with_id(data, envelope.id), across)
        if passed is None:
            raise UpstreamError(Code.UPSTREAM_FAILED, "an answer that can't be read")
        status = status_of_error(data) if envelope.modern else 200
        await self._down.end(status, merging.downward(passed, modern=envelope.modern))
        return None

    def _wanted(self, result: Parts) -> Input | None:
        """What is to be asked of the client; ``None`` where it can't be."""
        requests = splices.members(result["inputRequests"]) if "inputRequests" in result else {}
        if requests is None or not self._down.takes_events or not self._talk.can_wait:
            return None
        found = {key: _asking(raw) for key, raw in requests.items()}
        able = {key: each for key, each in found.items() if each is not None and self._talk.can_answer(each.method)}
        return Input(able, result.get("requestState")) if len(able) == len(found) else None

    def _unanswerable(self, opened: Open, *, asked: bool = False) -> bytes:
        code = Code.UPSTREAM_FAILED
        opened.finish(Completion(status=opened.status, is_error=True, error="input_required", code=code))
        note = "The tool asks for input before it goes on, and " + (
            "no usable answer came."
            if asked
            else "this client can't be asked: it has to take event streams and to offer what the tool asks for (elicitation)."
        )
        return refusals.tool_result(opened.envelope, opened.admission.answer, note, code)

    async def gather(self, opened: Open, wanted: Input) -> bool:
        """Ask the client what the server wanted to know; the answers go along with the next round. ``False`` where they did
        not come: the client has been told then.
        """
        loop = asyncio.get_running_loop()
        waiting: dict[str, tuple[str, asyncio.Future[Mapping[str, msgspec.Raw]]]] = {}
        waiting_for = self._talk.waiting
        waiting_for[self._talk.owner] += 1
        try:
            if not wanted.requests:
                await asyncio.sleep(1)  # the server only wants to be asked again
            for key, wish in wanted.requests.items():
                answer: asyncio.Future[Mapping[str, msgspec.Raw]] = loop.create_future()
                identity = self._talk.ask(Question(call=opened.envelope.id, answer=answer))
                waiting[key] = wish.method, answer
                question = {"jsonrpc": "2.0", "id": identity, "method": wish.method, "params": wish.params}
                await self._down.event(_encode(question))
            async with asyncio.timeout(ANSWER_S):
                answers = {key: _said(method, await answer) for key, (method, answer) in waiting.items()}
        except TimeoutError:
            answers = {"": None}
        finally:
            waiting_for[self._talk.owner] -= 1
            if not waiting_for[self._talk.owner]:
                del waiting_for[self._talk.owner]
            self._talk.forget(opened.envelope.id)
        if None in answers.values():
            await self._down.end(200, self._unanswerable(opened, asked=True))
            return False
        said = _encode(answers)
        self.answers = msgspec.json.decode(said)
        self.more = {"inputResponses": msgspec.Raw(said)} if answers else {}
        if wanted.state is not None:
            self.more["requestState"] = wanted.state
        return True

    async def _notice(self, opened: Open, across: Across, message: splices.Message, data: bytes) -> None:
        if not self._down.takes_events or not await across.message_may_pass(data):
            return
        if message.method in _PASSING or (message.method == _LOG and merging.wants_logs(opened.envelope)):
            await self._down.event(data)
        elif message.method == _CANCELLED:
            # The server takes a question back; the client knows it by our id.
            params: dict[str, Any] = dict(splices.members(message.params) or {})
            about = splices.opened(b'{"id":' + bytes(params.get("requestId", msgspec.Raw(b"null"))) + b"}")
            for identity, question in tuple(self._talk.questions.items()):
                if about is not None and question.conversation is self._conversation and question.identity == about.id:
                    del self._talk.questions[identity]
                    params["requestId"] = identity
                    whole = {"jsonrpc": "2.0", "method": _CANCELLED, "params": params}
                    await self._down.event(_encode(whole))

    async def _question(self, opened: Open, across: Across, message: splices.Message, data: bytes) -> None:
        found = asking.read(data)
        if not self._down.takes_events or not self._talk.can_answer(message.method) or isinstance(found, bool):
            # Of what can't be read as one question there is none that could be decided on.
            await self._conversation.decline(message)
            return
        if not await across.message_may_pass(data):
            return
        asked = Question(call=opened.envelope.id, conversation=self._conversation, identity=message.id)
        await self._down.event(merging.with_id(data, self._talk.ask(asked)))


def _asking(raw: msgspec.Raw) -> Asking | None:
    try:
        return msgspec.json.decode(raw, type=Asking)
    except (msgspec.DecodeError, RecursionError):
        return None


def _said(method: str, parts: Mapping[str, msgspec.Raw]) -> msgspec.Raw | None:
    """The client's answer as an input response; a client that can't ask its user has cancelled."""
    if "result" in parts:
        return parts["result"]
    return msgspec.Raw(b'{"action":"cancel"}') if method == "elicitation/create" else None
