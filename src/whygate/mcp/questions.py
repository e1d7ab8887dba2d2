"""What a server asks of the client, on its way down: in a stream (the 2025 revisions) or in a result (2026-07-28).

Rules of this file:

1. Each question is decided and recorded like a call of the client's, in the same task; what is refused the client never sees.
2. Whoever asked is answered: by the client, or, where the question was refused, by us. (Since 2026-07-28 a question is the
   answer to a call already: there the answer is withheld, and nobody waits.)
3. A notification passes. What can't be read, and what answers a request that is not this stream's, does not.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from whygate.core.calls import Fault, Tool, ToolCall
from whygate.core.reasons import Code
from whygate.core.things import QUESTION
from whygate.flow.ports import Admission, Completion, Gate
from whygate.mcp import asking, refusals
from whygate.mcp.asking import Question
from whygate.mcp.backend import Backend, Outgoing, Refused
from whygate.mcp.envelope import REFUSED, Envelope
from whygate.transport.upstream import UpstreamError

MAX_ANSWERING: Final = 256
"""Answers on their way up. A server that asks faster than it listens waits for its answers in vain."""
MAX_AT_ONCE: Final = 32
"""Questions in one result: each is a decision and a record."""
_ANSWER_CAP_BYTES: Final = 64 * 1024
_NOT_OF_AN_ANSWER: Final = ("mcp-method", "mcp-name", "mcp-param-", "last-event-id", "traceparent", "content-type")
_log = logging.getLogger("whygate.mcp")


class Questions:
    """Owned by the event loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._answering: set[asyncio.Task[None]] = set()
        self._dropped: dict[str, int] = {}

    async def close(self) -> None:
        """Give up the answers that are still on their way."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def message_may_pass(self, data: bytes, asked: "Place") -> bool:
        """Decide on one message of a stream that answers nothing. Never raises."""
        found = asking.read(data)
        if isinstance(found, bool):
            if not found:
                self._tell_dropped(asked.call.server)
            return found
        wrong = "since 2026-07-28 a server asks in its result only" if asked.modern else ""
        admission = await self._gate.admit(_call(found, asked, wrong))
        if admission.allowed:
            # What the client makes of it is a message, and a record, of its own.
            self._gate.complete(admission, Completion(result_bytes=len(data), result_digest=self._gate.digest(data)))
            return True
        self._answer(found, admission, asked)
        return False

    def _tell_dropped(self, server: str) -> None:
        """In the log: the first, the second, the fourth … A server that sends thousands would fill it otherwise."""
        count = self._dropped[server] = self._dropped.get(server, 0) + 1
        if count & (count - 1) == 0:
            told = "%s: a message that can't be read, or belongs to nobody here, is dropped (the %d. since the start)"
            _log.warning(told, server, count)

    async def may_be_asked(self, found: Sequence[Question], asked: "Place") -> bool:
        """Whether all questions of one answer may be asked. Never raises."""
        allowed: list[Admission] = []
        wrong = f"more than {MAX_AT_ONCE} questions at once" if len(found) > MAX_AT_ONCE else ""
        for each in found[:MAX_AT_ONCE]:
            admission = await self._gate.admit(_call(each, asked, wrong))
            if not admission.allowed:
                for other in allowed:
                    self._gate.complete(other, Completion(is_error=True, error="not_forwarded"))
                return False
            allowed.append(admission)
        for other in allowed:
            self._gate.complete(other, Completion())
        return True

    def _answer(self, question: Question, admission: Admission, asked: "Place") -> None:
        if question.id is None or asked.modern or len(self._answering) >= MAX_ANSWERING:
            return
        body = refusals.to_server(question.id, REFUSED, admission.answer)
        task = asyncio.get_running_loop().create_task(_send(body, asked))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)


class Place:
    """Where a server asks: one exchange with a client, which is a call of ``call``. Who makes one says how its server is told."""

    __slots__ = ("_questions", "call")

    def __init__(self, questions: Questions, call: ToolCall) -> None:
        """``call`` is what the client had asked for."""
        self._questions = questions
        self.call = call

    @property
    def modern(self) -> bool:
        """The server's era: since 2026-07-28 it asks in its result only."""
        raise NotImplementedError

    async def tell(self, body: bytes) -> None:
        """Answer the server in the client's place. Raises ``UpstreamError`` and ``Refused``."""
        raise NotImplementedError

    async def message_may_pass(self, data: bytes) -> bool:
        return await self._questions.message_may_pass(data, self)

    async def may_be_asked(self, found: Sequence[Question]) -> bool:
        return await self._questions.may_be_asked(found, self)


class Within(Place):
    """The same on the way through to one server. Every call makes one, and hardly any needs it."""

    __slots__ = ("backend", "out")

    def __init__(self, questions: Questions, call: ToolCall, backend: Backend, out: Outgoing) -> None:
        self._questions = questions
        self.call = call
        self.backend = backend
        self.out = out

    @property
    def modern(self) -> bool:
        return self.out.envelope.modern

    async def tell(self, body: bytes) -> None:
        out = self.out
        kept = [(name, value) for name, value in out.headers if not name.lower().startswith(_NOT_OF_AN_ANSWER)]
        answer = Outgoing(
            http_method="POST",
            headers=[*kept, ("content-type", "application/json")],
            body=body,
            envelope=Envelope(),
            principal=out.principal,
            session=out.session,
            takes_events=False,
        )
        async with self.backend.send(answer) as told:
            await told.read(_ANSWER_CAP_BYTES)


def _call(question: Question, asked: Place, wrong: str) -> ToolCall:
    """The question as something to be decided: it is put to the client of ``asked``."""
    call = asked.call
    found = asking.wanted(question)
    wrong = wrong or found.wrong
    return ToolCall(
        protocol="mcp",
        method=question.method if found.kind else "_other",
        server=call.server,
        tool=Tool(server=call.server, name=found.kind, type=QUESTION) if found.kind else None,
        asked=found.host,
        args=found.args,
        principal=call.principal,
        client=call.client,
        public=not found.kind,  # then there is nothing that a rule could name, and the fault refuses it
        faults=(Fault(code=Code.QUESTION_REFUSED, note=wrong),) if wrong else (),
        hints=call.hints,
        version=call.version,
        request_id="" if question.id is None else str(question.id)[:128],
    )


async def _send(body: bytes, asked: Place) -> None:
    """Answer in the client's place. What the server makes of it is its affair."""
    try:
        await asked.tell(body)
    except (UpstreamError, Refused) as failed:
        _log.warning("%s: it could not be told that it may not ask: %s", asked.call.server, failed)
