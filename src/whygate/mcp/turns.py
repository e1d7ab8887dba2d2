"""One exchange of the MCP edge: what is known of it so far."""

from typing import Any, Final

from whygate.core.identity import ANONYMOUS, Principal
from whygate.flow.ports import Admission
from whygate.mcp.envelope import Envelope, Heads, Wrong
from whygate.mcp.methods import RESPONSE
from whygate.transport.asgi import Exchange

METHODS: Final = frozenset(("POST", "GET", "DELETE"))
"""Of MCP's transport."""
_NONE: Final[dict[str, Any]] = {}


class Turn:
    """Not shared between tasks."""

    __slots__ = (
        *("admitted", "answers", "asked", "besides", "body", "envelope", "exchange", "heads", "merged", "principal"),
        *("carried", "presented", "said", "server", "wrong"),
    )

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.heads = Heads(exchange.headers)
        self.principal: Principal = ANONYMOUS
        self.server = ""
        """Empty until it is known that there is such a server, and that the caller may know."""
        self.merged = False
        """It came by the address of all servers."""
        self.asked = ""
        """What was asked for there, where no such server is."""
        self.answers = _NONE
        """What the client said, there, to a server that asks before it goes on."""
        self.presented = ""
        """The approval that it came back with."""
        self.said: dict[str, Any] = _NONE
        """What the client's process answered to our own question."""
        self.carried: str | None = None
        """The tool's own state as the client sent it: sealed."""
        self.envelope = Envelope()
        self.wrong: Wrong | None = None
        self.admitted = False
        self.besides: tuple[Admission, ...] = ()
        """What was admitted beside the one that is answered with."""
        self.body = b""


def without_method(turn: Turn) -> str:
    """What a record calls an exchange whose message has no method, or one that is not shown."""
    method = turn.exchange.method
    if method == "POST" and turn.envelope.parts and not turn.envelope.method:
        return RESPONSE
    return method if method in METHODS else "_other"
