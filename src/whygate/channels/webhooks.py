"""Signed webhooks: that somebody is asked, that time is running out, what was answered, and what is loud (break-glass, reviews,
the kill switch).

Rules of this file:

1. A message leads to signing in and never answers anything: whoever reads it, or steals it, has a link to a locked door.
2. No arguments, and no words of an agent or a tool: only ids, rules and our own words go out.
3. Addresses come from the configuration alone; redirects are not followed; answers are not read.
4. Each receiver has its own bounded queue and pace: one that hangs delays nobody else, least of all a call.
5. Standard Webhooks 1.0 (https://www.standardwebhooks.com): the same message has the same id however often it is sent.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
import msgspec
import tenacity

from whygate.core.approvals import State
from whygate.core.events import AgentRecord, ApprovalRecord, BreakGlassRecord, ReviewRecord
from whygate.core.instants import from_us, to_us
from whygate.core.records import AnyRecord
from whygate.flow.authority import Authority

QUEUE: Final = 1000
"""Messages that wait for one receiver; then the oldest are dropped, and the log says so."""
TRIES_S: Final = 600.0
"""After so long a message is given up: what it told of is over by then."""
REMIND_S: Final = 120
"""Before the time to answer is over."""
_TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
_TOLD: Final = frozenset(("asked", "approved", "denied", "expired"))
_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger("whygate.channels")


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told, as the operator configured it."""

    url: str
    secret: str
    slack: bool = False
    """Only ``text``, as chat systems take it."""

    def __repr__(self) -> str:
        return f"Receiver(url={self.url!r})"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    text: str
    at: str
    url: str


class _Again(Exception):
    """It was not taken; it may be later."""


class Webhooks:
    """Belongs to the event loop. ``start`` after the authority has its state; ``close`` once."""

    def __init__(self, receivers: Sequence[Receiver], authority: Authority, console: str) -> None:
        """``console``: where people answer, without a path."""
        self._authority, self._console = authority, console
        self._queues = {receiver: asyncio.Queue[Message](QUEUE) for receiver in receivers}
        self._tasks: list[asyncio.Task[None]] = []
        self._reminders: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """From now on, tell. Questions that wait already get their reminder."""
        self._tasks = [asyncio.create_task(self._deliver(*each)) for each in self._queues.items()]
        self._authority.heard.append(self.heard)
        for approval in self._authority.state.approvals.values():
            if approval.state is State.PENDING:
                self._plan(approval.id, approval.answer_by_us)

    async def close(self) -> None:
        """Give up what has not been told."""
        for handle in self._reminders.values():
            handle.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what is told ---

    def heard(self, record: AnyRecord) -> None:
        """A record is durable. Never blocks, never raises."""
        message = self._message(record)
        if message is not None:
            self._tell(message)
        if isinstance(record, ApprovalRecord):
            if record.event == "asked" and record.asked is not None:
                self._plan(record.approval, to_us(record.time) + record.asked.within_s * 1_000_000)
            elif (handle := self._reminders.pop(record.approval, None)) is not None:
                handle.cancel()

    def _tell(self, message: Message) -> None:
        for receiver, queue in self._queues.items():
            if queue.full():
                queue.get_nowait()
                _log.warning("%s does not keep up: a message to it is dropped", receiver.url)
            queue.put_nowait(message)

    def _plan(self, approval: str, answer_by_us: int) -> None:
        left_s = (answer_by_us - self._authority.now_us()) / 1e6 - REMIND_S
        if left_s > 0:
            self._reminders[approval] = asyncio.get_running_loop().call_later(left_s, self._remind, approval)

    def _remind(self, identity: str) -> None:
        self._reminders.pop(identity, None)
        approval = self._authority.state.approvals.get(identity)
        if approval is None or not approval.open(self._authority.now_us()):
            return
        what = approval.asked.entitlement or approval.asked.tool
        text = f"Still waiting, {REMIND_S // 60} minutes left: {approval.asked.principal} for {what}."
        at = from_us(self._authority.now_us()).isoformat(timespec="seconds")
        self._tell(self._made(f"{identity}-reminder", "approval.reminder", text, at, f"approvals/{identity}"))

    def _message(self, record: AnyRecord) -> Message | None:
        at = record.time.isoformat(timespec="seconds")
        match record:
            case ApprovalRecord() if record.event in _TOLD:
                return self._about_approval(record, at)
            case BreakGlassRecord():
                opened = record.breakglass
                text = f"Break-glass {record.event}: {opened.incident}, by {opened.by}, for {', '.join(opened.agents)}."
                return self._made(record.id, f"breakglass.{record.event}", text, at, "breakglass")
            case ReviewRecord():
                text = f"Review {record.event}: the break-glass of {record.review.incident}."
                return self._made(record.id, f"review.{record.event}", text, at, "breakglass")
            case AgentRecord():
                text = f"Agent {record.event}: {record.agent}, by {record.subject.id}."
                return self._made(record.id, f"agent.{record.event}", text, at, "agents")
        return None

    def _about_approval(self, record: ApprovalRecord, at: str) -> Message:
        asked = record.asked
        if asked is not None:
            what = f"an elevation ({asked.entitlement})" if asked.entitlement else asked.tool
            by = from_us(to_us(record.time) + asked.within_s * 1_000_000).isoformat(timespec="seconds")
            text = (
                f"{asked.principal} asks for {what}, by rule {asked.policy}/{asked.rule}. Until {by}; silence refuses."
            )
        else:
            text = f"A question was {record.event}."
        return self._made(record.id, f"approval.{record.event}", text, at, f"approvals/{record.approval}")

    def _made(self, identity: str, kind: str, text: str, at: str, path: str) -> Message:
        return Message(id=identity, kind=kind, text=text, at=at, url=f"{self._console}/console/{path}")

    # --- telling ---

    async def _deliver(self, receiver: Receiver, queue: "asyncio.Queue[Message]") -> None:
        async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
            while True:
                message = await queue.get()
                try:
                    await self._send(client, receiver, message)
                except tenacity.RetryError:
                    _log.warning("%s was not told of %s %s", receiver.url, message.kind, message.id)
                except Exception:  # noqa: BLE001  whatever it is, the next message is another
                    _log.exception("telling %s failed in an unforeseen way", receiver.url)

    async def _send(self, client: httpx.AsyncClient, receiver: Receiver, message: Message) -> None:
        body = body_of(receiver, message)
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_delay(TRIES_S),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=60),
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _Again)),
        )
        async for attempt in retrying:
            with attempt:
                headers = signed(receiver.secret, message.id, int(time.time()), body)
                async with client.stream("POST", receiver.url, content=body, headers=headers) as answer:
                    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
                        raise _Again
                    if not answer.is_success:
                        _log.warning("%s does not take %s: %d", receiver.url, message.kind, answer.status_code)


def body_of(receiver: Receiver, message: Message) -> bytes:
    """What is sent: for chat systems a text with the link, for programs the parts as well."""
    text = f"{message.text} {message.url}"
    if receiver.slack:
        return _encode({"text": text})
    told: dict[str, Any] = {"text": text, "type": message.kind, "timestamp": message.at}
    return _encode({**told, "data": {"id": message.id, "url": message.url}})


def signed(secret: str, identity: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks: HMAC-SHA256 over id, time and body."""
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    mac = hmac.new(key, b"%s.%d.%s" % (identity.encode(), at_s, body), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(at_s),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
