"""How much is going on in a listener, and when it is too much. Belongs to the event loop.

What only waits for a client's bytes is no work: it is bounded in time (``asgi.BODY_S``) and by the connections that the
server takes. Counted among the work, a few hundred slow strangers would have everybody else turned away.
"""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

MAX_BUSY: Final = 1024
"""Exchanges at work at once. At 32 in flight a core is busy already, so this is a queue of seconds: whoever comes on top
would give up waiting before the answer, and its call would be done for nobody."""
MAX_STREAMS: Final = 6144
"""Streams that clients hold open to hear of news (GET), and calls that wait for a person. They rest most of the time; three
quarters of the connections."""
MAX_HELD_BYTES: Final = 512 * 1024 * 1024
"""Of bodies that came in more than one piece, from their first piece to the end of their exchange: 128 of the largest."""
TRIM_BYTES: Final = 64 * 1024 * 1024
"""When so much was held and is let go, the C library is told to give it back: by itself it keeps what bodies were pieced
together in (measured with glibc 2.36: 650 MiB for good after 200 bodies of 4 MiB at once)."""


class Load:
    """What is under way now."""

    __slots__ = ("_most", "_trim", "busy", "held_bytes", "resting", "streams")

    def __init__(self) -> None:
        self.busy = 0
        self.streams = 0
        self.resting: set[asyncio.Task[object]] = set()
        """The streams' exchanges."""
        self.held_bytes = 0
        self._most = 0
        self._trim = _trimmer()

    def hold(self, size: int) -> None:
        """So many more bytes of bodies are held. Does not look whether they may be."""
        self.held_bytes += size
        self._most = max(self._most, self.held_bytes)

    def let_go(self, size: int) -> None:
        """So many bytes of bodies are held no more."""
        self.held_bytes -= size
        if self._most >= TRIM_BYTES and self.held_bytes < TRIM_BYTES // 4:
            self._most = 0
            # A moment later, when what held them is gone too; in a thread, because it takes some milliseconds.
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, loop.run_in_executor, None, self._trim)


def _trimmer() -> Callable[[], object]:
    """What gives free memory back to the system; nothing where the C library has no such thing."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda: None
    return lambda: trim(0)
