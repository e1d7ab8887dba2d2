"""News for open pages, as server-sent events: that something waits, was answered, or was decided."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import ServerSentEvent, ServerSentEventMessage

from whygate.console.desk import EVERYBODY, HEADERS, SESSION, Console, Web
from whygate.console.sessions import Session
from whygate.core.records import AnyRecord

STREAMS: Final = 8
"""Of one session: tabs that are open."""
BEAT_S: Final = 20.0


class News:
    """Wakes whoever watches, after each record that changes what is in force."""

    def __init__(self, console: Console) -> None:
        self._watching: set[asyncio.Event] = set()
        console.authority.heard.append(self._heard)

    def _heard(self, _: AnyRecord) -> None:
        for each in self._watching:
            each.set()

    def watch(self) -> asyncio.Event:
        event = asyncio.Event()
        self._watching.add(event)
        return event

    def leave(self, event: asyncio.Event) -> None:
        self._watching.discard(event)


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    news = News(console)

    async def told(session: Session) -> AsyncGenerator[ServerSentEventMessage, None]:
        event = news.watch()
        session.streams += 1
        try:
            while console.sessions.find(session.key, touch=False) is not None:
                waiting = str(len(console.approvals.waiting()))
                yield ServerSentEventMessage(data=waiting, event="inbox")
                event.clear()
                try:
                    async with asyncio.timeout(BEAT_S):
                        await event.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(0.2)  # what comes together is told together
        finally:
            session.streams -= 1
            news.leave(event)

    @get("/console/live", include_in_schema=False, guards=[console.guard(*EVERYBODY)])
    async def live(request: Web) -> Response[Any] | ServerSentEvent:
        session: Session = request.state[SESSION]
        if session.streams >= STREAMS:
            return Response(b"", status_code=429, headers=HEADERS)
        return ServerSentEvent(told(session), headers=HEADERS)

    return [live]
