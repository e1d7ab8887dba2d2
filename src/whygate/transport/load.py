"""How much is going on in a listener, and when it is too much. Belongs to the event loop.

What only waits for a client's bytes is no work: it is bounded in time (``asgi.BODY_S``) and by the connections that the
server takes. Counted among the work, a few hundred slow strangers would have everybody else turned away.
"""

from typing import Final

MAX_BUSY: Final = 1024
"""Exchanges at work at once. At 32 in flight a core is busy already, so this is a queue of seconds: whoever comes on top
would give up waiting before the answer, and its call would be done for nobody."""
MAX_STREAMS: Final = 4096
"""Streams that clients hold open to hear of news (GET). They rest most of the time; half of the connections."""
MAX_HELD_BYTES: Final = 512 * 1024 * 1024
"""Of bodies that came in more than one piece, from their first piece to the end of their exchange: 128 of the largest."""


class Load:
    """What is under way now."""

    __slots__ = ("busy", "held_bytes", "streams")

    def __init__(self) -> None:
        self.busy = 0
        self.streams = 0
        self.held_bytes = 0
