"""A request of our own that is in flight: the messages that come back for it, whatever form they come in.

Rules of this file:

1. Every message is looked at whole. The response to our request ends the answer; an answer without it is a failure.
2. Our id and progress token are replaced by those of the client behind us; everything else keeps its bytes.
3. A legacy server may close the stream and answer when it is asked for the rest (2025-11-25, basic/transports,
   "Resumability"): the stream is taken up again, here, a bounded number of times; the client never has to.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import msgspec

from whygate.core.reasons import Code
from whygate.mcp import frames, splices
from whygate.mcp.backend import Answered
from whygate.transport.upstream import UpstreamError

CAP_BYTES: Final = 16 * 1024 * 1024
"""Of one message, and of one list with all its pages."""
EVENTS: Final = "text/event-stream"
RESUMES: Final = 100
"""A server that polls every three seconds gets five minutes for one call."""
_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 10.0
_FIELD: Final = re.compile(rb"(?:^|[\r\n])(id|retry): ?([^\r\n\0]*)")
_PROGRESS: Final = "notifications/progress"

_encode: Final = msgspec.json.Encoder().encode

Resume = Callable[[str], AbstractAsyncContextManager[Answered]]
"""Opens the stream again, after the event of this id."""


class _Token(msgspec.Struct):
    token: int | str | None = msgspec.field(default=None, name="progressToken")


class Asked:
    """One request that was sent. Use ``messages`` once."""

    __slots__ = ("_answer", "_resume", "_retry_s", "_seen", "_token", "answered", "id")

    def __init__(self, answer: Answered, identity: int, token: int | str | None, resume: Resume | None) -> None:
        """``identity``: ours, which is also the progress token that the server was given. ``token``: the client's."""
        self._answer = answer
        self.id = identity
        self._token = token
        self._resume = resume
        self._retry_s = _RETRY_S
        self._seen = ""
        self.answered = False
        """The response was among the messages."""

    @property
    def status(self) -> int:
        return self._answer.status

    async def messages(self) -> AsyncIterator[tuple[splices.Message, bytes]]:
        """Each message with its bytes, the response (still with our id) last. Raises ``UpstreamError`` where there is none."""
        if self._answer.media_type != EVENTS:
            found = self._heard(await self._answer.read(CAP_BYTES))
            if found is not None and self.answered:
                yield found
                return
            raise UpstreamError(Code.UPSTREAM_FAILED, f"the server answered {self.status} without a response")
        async for found in self._stream(self._answer):
            yield found
        for _ in range(RESUMES):
            if self.answered or self._resume is None or not self._seen:
                break
            await asyncio.sleep(self._retry_s)
            async with self._resume(self._seen) as answer:
                if answer.media_type != EVENTS:
                    break
                async for found in self._stream(answer):
                    yield found
        if not self.answered:
            raise UpstreamError(Code.UPSTREAM_FAILED, "the server ended its stream without a response")

    async def _stream(self, answer: Answered) -> AsyncIterator[tuple[splices.Message, bytes]]:
        parser = frames.Frames(CAP_BYTES)
        try:
            async for chunk in answer.chunks():
                for frame in parser.feed(chunk):
                    if (found := self._frame(frame)) is not None:
                        yield found
                        if self.answered:
                            return
        except frames.FrameTooLarge:
            raise UpstreamError(Code.RESULT_TOO_LARGE, f"a message is above {CAP_BYTES} bytes") from None
        rest = parser.end()
        if rest is not None and (found := self._frame(rest)) is not None:
            yield found

    def _frame(self, frame: frames.Frame) -> tuple[splices.Message, bytes] | None:
        if frame.has_id or b"retry:" in frame.raw:
            for name, value in _FIELD.findall(frame.raw):
                if name == b"id":
                    self._seen = value.decode("utf-8", "replace")
                elif value.isdigit():
                    self._retry_s = min(int(value) / 1000, _RETRY_MOST_S)
        return self._heard(frame.data) if frame.data else None

    def _heard(self, data: bytes) -> tuple[splices.Message, bytes] | None:
        """The message in ``data``; ``None`` for what is none, or a response to something else."""
        message = splices.opened(data)
        if message is None:
            return None
        if message.method == _PROGRESS:
            return message, self._progress(message, data)
        if not message.method:
            if message.id != self.id and not (message.id is None and message.error):
                return None
            if not message.result and not message.error:
                return None
            self.answered = True
        return message, data

    def _progress(self, message: splices.Message, data: bytes) -> bytes:
        try:
            token = msgspec.json.decode(message.params, type=_Token).token if message.params else None
        except (msgspec.DecodeError, RecursionError):
            return data
        if token != self.id or self._token is None:
            return data
        whole: dict[str, Any] = dict(splices.members(data) or {})
        whole["params"] = (splices.members(message.params) or {}) | {"progressToken": self._token}
        return _encode(whole)
