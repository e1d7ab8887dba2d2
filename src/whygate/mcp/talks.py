"""Who talks with which servers through the merged address.

Rules of this file:

1. A talk belongs to one principal: the session that a legacy client opened, or everything that the principal asks without a
   session (modern clients, and legacy ones that never opened one). Nothing of a talk is ever used for another principal.
2. Whatever the servers opened for a talk (sessions, processes) ends with it.
3. Talks are bounded, per principal and in all, and end when they are idle. Where none is idle, none makes room.
4. What a server asks is answered only by the client that was asked, by an id of ours that it can't guess.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final

import msgspec

from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.mcp import merging
from whygate.mcp.backend import Backend, Refused, Server
from whygate.mcp.conversation import NOBODY, Client, Conversation, Eras
from whygate.mcp.sessions import whose
from whygate.mcp.told import Listing

PER_PRINCIPAL: Final = 64
"""A principal's clients at one time; each holds at most one session with each server."""
MOST: Final = 4_096
IDLE_S: Final = 1800.0
"""As for processes: longer than a person's lunch breaks an agent's work off for."""
QUESTIONS: Final = 100
"""That wait for one client's answer."""
WAITING: Final = 32
"""Calls of one principal that wait for its answers, before they go on as further calls: while they wait they count as at work
in the listener, and not among the calls in flight."""
CACHE_S: Final = 60.0
"""A list that is the same for everybody is kept as long as its server says, and not longer than this: it may be wrong about
itself."""
_SWEEP_S: Final = 60.0

_log = logging.getLogger("whygate.mcp")


class Question(msgspec.Struct):
    """What a server wants to know of the client."""

    call: int | str | None
    """The id of the call on whose stream it was asked."""
    conversation: Conversation | None = None
    """Who gets the answer, under ``identity``; for what we ask ourselves it is ``answer``."""
    identity: Any = None
    answer: "asyncio.Future[Mapping[str, msgspec.Raw]] | None" = None


class Running:
    """A call in flight, which its client may cancel."""

    __slots__ = ("_task", "cancelled")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.cancelled = False

    def cancel(self) -> None:
        if not self.cancelled and self._task is not None:
            self.cancelled = True
            self._task.cancel()

    def took(self) -> bool:
        """Whether the cancellation that was just caught is this one, and nobody else's too."""
        return self.cancelled and self._task is not None and self._task.uncancel() == 0


class Talk:
    """One client's, or one principal's, conversations with all servers."""

    waiting: Counter[str]
    """By owner, for all talks: calls that wait for their client's answers."""

    def __init__(self, key: str, principal: Principal, client: Client, capabilities: Mapping[str, Any]) -> None:
        self.key = key
        """The session's id; empty for what a principal asks without one."""
        self.owner = whose(principal)
        self.principal = principal
        self.capabilities = capabilities
        """The client's, as far as they work through here; none where there is no session to ask in."""
        self.client = client
        self.conversations: dict[str, Conversation] = {}
        self.questions: dict[str, Question] = {}
        self.running: dict[int | str, Running] = {}
        self.busy = 0
        self.used_s = time.monotonic()

    def can_answer(self, method: str) -> bool:
        """Whether a server may ask this of the client."""
        return bool(self.key) and merging.ASKABLE.get(method) in self.capabilities and len(self.questions) < QUESTIONS

    @property
    def can_wait(self) -> bool:
        """Whether one more call may wait for the client's answers."""
        return self.waiting[self.owner] < WAITING

    def ask(self, question: Question) -> str:
        """The id under which the client is asked. Pair with ``forget``."""
        identity = f"whygate-{secrets.token_urlsafe(12)}"
        self.questions[identity] = question
        return identity

    def forget(self, call: int | str | None) -> None:
        """Nobody waits for the answers to this call's questions any more."""
        for identity in [key for key, asked in self.questions.items() if asked.call == call]:
            del self.questions[identity]

    async def answered(self, identity: Any, parts: Mapping[str, msgspec.Raw]) -> None:
        """Pass the client's answer on to whoever asked. An answer to nothing is dropped: what asked may be over."""
        question = self.questions.pop(identity, None) if isinstance(identity, str) else None
        if question is None:
            return
        if question.answer is not None:
            if not question.answer.done():
                question.answer.set_result(parts)
        elif question.conversation is not None:
            kept = {key: parts[key] for key in ("result", "error") if key in parts}
            await question.conversation.tell({"id": question.identity} | kept)


class Talks:
    """All talks of one gateway."""

    def __init__(self, servers: Mapping[str, Server], backends: Mapping[str, Backend]) -> None:
        self._servers = servers
        self._backends = backends
        self._sessions: dict[str, Talk] = {}
        self._shared: dict[str, Talk] = {}
        self._of: dict[str, set[Talk]] = {}
        """All of them, by owner."""
        self._eras: Eras = {}
        self._lists: dict[str, tuple[float, Listing]] = {}
        """What servers say is the same for everybody, and until when."""
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def open(self, principal: Principal, capabilities: Mapping[str, Any], info: msgspec.Raw) -> Talk:
        """A session for a legacy client. Raises ``Refused`` over the bounds."""
        self._make_room(principal)
        shown = merging.shown(capabilities)
        client = Client(capabilities=msgspec.Raw(msgspec.json.encode(shown)), info=info, modern=False)
        talk = Talk(secrets.token_urlsafe(24), principal, client, shown)
        self._sessions[talk.key] = talk
        return self._new(talk)

    def find(self, session: str, principal: Principal) -> Talk | None:
        """The talk of a session, or of the principal where no session is named. ``None`` for a session that is not, or is
        somebody else's. Raises ``Refused`` over the bounds.
        """
        owner = whose(principal)
        if session:
            talk = self._sessions.get(session)
            if talk is None or talk.owner != owner:
                return None
        elif (talk := self._shared.get(owner)) is None:
            self._make_room(principal)
            talk = self._shared[owner] = Talk("", principal, NOBODY, {})
            self._new(talk)
        talk.used_s = time.monotonic()
        return talk

    def _new(self, talk: Talk) -> Talk:
        talk.waiting = self._waiting
        self._of.setdefault(talk.owner, set()).add(talk)
        return talk

    def conversation(self, talk: Talk, name: str) -> Conversation:
        """The talk's conversation with this server; it begins with its first request. A server that speaks both eras is
        spoken to in the client's own, in which nothing has to be translated.
        """
        found = talk.conversations.get(name)
        if found is None:
            found = talk.conversations[name] = Conversation(
                self._servers[name],
                self._backends[name],
                talk.principal,
                eras=self._eras,
                client=talk.client,
            )
        return found

    async def listing(self, talk: Talk, name: str, traceparent: str) -> Listing:
        """The tools of one server, by its own account. Raises ``UpstreamError`` and ``Refused``."""
        until_s, known = self._lists.get(name, (0.0, None))
        if known is not None and time.monotonic() < until_s:
            return known
        found = await self.conversation(talk, name).list_tools(traceparent)
        if found.public and found.ttl_ms:
            self._lists[name] = (
                time.monotonic() + min(found.ttl_ms / 1000, CACHE_S),
                msgspec.structs.replace(found, kept=True),
            )
        return found

    def end(self, talk: Talk) -> None:
        """Take it out of use now; what the servers opened for it ends in its own time."""
        if self._sessions.get(talk.key) is talk:
            del self._sessions[talk.key]
        elif self._shared.get(talk.owner) is talk:
            del self._shared[talk.owner]
        own = self._of.get(talk.owner, set())
        own.discard(talk)
        if not own:
            self._of.pop(talk.owner, None)
        for running in tuple(talk.running.values()):
            running.cancel()
        for conversation in talk.conversations.values():
            self.later(conversation.close())

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have ``work`` done without waiting for it; it must not raise."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every talk."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for talk in (*self._sessions.values(), *self._shared.values()):
            self.end(talk)
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make_room(self, principal: Principal) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        own = self._of.get(whose(principal), ())
        if len(own) >= PER_PRINCIPAL:
            self._give_way(own)
        if len(self._sessions) + len(self._shared) >= MOST:
            self._give_way((*self._sessions.values(), *self._shared.values()))

    def _give_way(self, crowd: Collection[Talk]) -> None:
        idle = [talk for talk in crowd if not talk.busy]
        if not idle:
            raise Refused(Code.QUOTA_EXCEEDED, f"{len(crowd)} sessions are in use")
        self.end(min(idle, key=lambda talk: talk.used_s))

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        before_s = time.monotonic() - IDLE_S
        for talk in (*self._sessions.values(), *self._shared.values()):
            if not talk.busy and talk.used_s < before_s:
                self.end(talk)
