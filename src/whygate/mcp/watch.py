"""Whether the client is still there while an upstream works for it."""

import asyncio
from typing import Final

from whygate.transport.asgi import Exchange

GRACE_S: Final = 0.05
"""Most calls are over before this; for those nothing is started, since a task for each would cost more than it saves."""
UNHEARD_S: Final = 600.0
"""A legacy tool works on for a client that has left, which may come back for the answer; for so long, as a call counts."""
UNHEARD_BYTES: Final = 16 * 1024 * 1024
"""What it may say to nobody meanwhile: as much as an answer may have. Else one that never ends keeps a core busy."""


class Watch:
    """Looks out for the client's leaving until ``close``: the server tells, or it is waited for from a little after the start.

    In the modern era a closed connection *is* the cancellation (MCP 2026-07-28, basic/transports, "Cancellation"), so
    the work is stopped. A legacy disconnect is none (2025-11-25, "Disconnection"): it is only noted.
    """

    __slots__ = ("_cancels", "_cut", "_exchange", "_handle", "_task", "_unheard", "_waiting", "left")

    def __init__(self, exchange: Exchange, *, cancels: bool) -> None:
        self.left = False
        self._exchange = exchange
        self._cancels = cancels
        self._cut = False
        self._unheard = 0
        self._waiting: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()
        self._handle: asyncio.TimerHandle | None = None
        if not exchange.on_gone(self._gone):
            self._handle = asyncio.get_running_loop().call_later(GRACE_S, self._begin)

    def _gone(self) -> None:
        self.left = True
        if self._cancels:
            self._stop()
        else:
            self._handle = asyncio.get_running_loop().call_later(UNHEARD_S, self._stop)

    def _stop(self) -> None:
        if self._task is not None:
            self._cut = True
            self._task.cancel()

    def _begin(self) -> None:
        self._waiting = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        await self._exchange.gone()
        self._gone()

    def unheard(self, size: int) -> bool:
        """Take note of so many bytes of the answer; whether nobody has heard too much of it already."""
        if self.left:
            self._unheard += size
        return self._unheard > UNHEARD_BYTES

    def took(self) -> bool:
        """Whether the cancellation that was just caught is ours, and nobody else's too: then it ends here."""
        return self._cut and self._task is not None and self._task.uncancel() == 0

    def close(self) -> None:
        self._exchange.on_gone(None)
        if self._handle is not None:
            self._handle.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
