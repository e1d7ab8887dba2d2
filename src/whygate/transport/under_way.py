"""The exchanges of a listener that are under way, so that a stop can let them finish, and end those that do not."""

import asyncio
from typing import Final

CUT_S: Final = 2.0
"""For those that are ended to say so to their callers and to the ledger."""


class UnderWay:
    """Belongs to the event loop. Each exchange is a task of its own, as the server makes them."""

    __slots__ = ("calls", "stopping", "streams")

    def __init__(self, streams: set[asyncio.Task[object]] | None = None) -> None:
        self.calls: set[asyncio.Task[object]] = set()
        self.streams: set[asyncio.Task[object]] = set() if streams is None else streams
        """Those that only listen (GET, subscriptions): they end when they are told, and nothing is lost by it."""
        self.stopping = False
        """From now on a cancellation is the stop's, and the exchange says goodbye."""

    async def finish(self, within_s: float, hurry: asyncio.Event) -> int:
        """End the streams, wait for the calls, and end those that are left when ``within_s`` are over or ``hurry`` is set.

        Returns how many calls were cut off.
        """
        self.stopping = True
        for task in list(self.streams):
            task.cancel()
        told = asyncio.ensure_future(hurry.wait())
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (calls := self.calls - self.streams) and not told.done() and (left_s := until - loop.time()) > 0:
            await asyncio.wait({told, *calls}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        cut = list(self.calls - self.streams)
        for task in cut:
            task.cancel()
        if rest := {*cut, *self.streams}:
            await asyncio.wait(rest, timeout=CUT_S)
        return len(cut)
