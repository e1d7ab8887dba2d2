"""Handles that servers give out, and whose they are. A handle is a name, never a proof: it works for the principal whose
call it came from, and for nobody else (MCP, security best practices, "Session Hijacking"; SEP-2663, "Security").

Rules of this file:

1. A task's id is remembered with its owner and its tool. What is not remembered is refused: it could be anybody's.
2. A request's state is not remembered but sealed: who got it, from which server, for which call. It survives a restart.
3. Memory is bounded, for each principal and in all; what was given out longest ago goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import Tool
from whygate.core.identity import Principal
from whygate.mcp.envelope import Envelope
from whygate.mcp.methods import REQUESTS, How
from whygate.mcp.sessions import whose

PER_PRINCIPAL: Final = 1_000
"""Tasks of one principal on one server: more than anybody polls."""
IN_ALL: Final = 50_000
"""Some 20 MB."""
MAX_ID: Final = 512
"""Characters of a task's id that is remembered; servers use some forty."""

_SEAL: Final = "wg1."
_SEAL_DIGITS: Final = 32
"""128 bits of a keyed hash."""
_PURPOSE: Final = b"\0whygate request state\0"
"""What is hashed under the same key elsewhere is JSON or an answer's bytes; none of it begins so."""
_APART: Final = frozenset(("_meta", "inputResponses", "requestState"))
"""Parameters that differ between a call and its repetition with answers (SEP-2322)."""
_sorted: Final = msgspec.json.Encoder(order="sorted").encode


class Handles:
    """Tasks that calls through this gateway became. Owned by the event loop."""

    def __init__(self, *, per_principal: int = PER_PRINCIPAL, in_all: int = IN_ALL) -> None:
        self._per_principal = per_principal
        self._in_all = in_all
        self._given: OrderedDict[tuple[str, str, str], Tool | None] = OrderedDict()
        """By server, owner and handle. Processes of one stdio server count alike, so two owners may have the same."""
        self._of: dict[tuple[str, str], OrderedDict[str, None]] = {}
        """By server and owner: its handles, the oldest first."""

    def bind(self, server: str, handle: str, principal: Principal, tool: Tool | None) -> None:
        """This handle was given to ``principal`` for a call of ``tool``."""
        owner = whose(principal)
        if not handle or len(handle) > MAX_ID or (server, owner, handle) in self._given:
            return
        if len(self._of.get((server, owner), ())) >= self._per_principal:
            self._forget(server, owner, next(iter(self._of[server, owner])))
        elif len(self._given) >= self._in_all:
            self._forget(*next(iter(self._given)))
        self._given[server, owner, handle] = tool
        self._of.setdefault((server, owner), OrderedDict())[handle] = None

    def usable(self, server: str, handle: str, principal: Principal) -> bool:
        return (server, whose(principal), handle) in self._given

    def tool(self, server: str, handle: str, principal: Principal) -> Tool | None:
        """What the task is a call of."""
        return self._given.get((server, whose(principal), handle))

    def _forget(self, server: str, owner: str, handle: str) -> None:
        del self._given[server, owner, handle]
        mine = self._of[server, owner]
        del mine[handle]
        if not mine:
            del self._of[server, owner]


def seal(state: str, digest: Callable[[bytes], str], bound: bytes) -> str:
    """An upstream's ``requestState`` for the client: ``bound`` says whose it is and for what."""
    return f"{_SEAL}{_mac(state, digest, bound)}.{state}"


def unseal(sealed: str, digest: Callable[[bytes], str], bound: bytes) -> str | None:
    """The upstream's own state; ``None`` where this is none that was sealed for the same principal and call."""
    mac, dot, state = sealed.removeprefix(_SEAL).partition(".")
    # Compared in constant time it would be no safer: whoever measures has to have us decide and record each guess.
    genuine = sealed.startswith(_SEAL) and dot and mac == _mac(state, digest, bound)
    return state if genuine else None


def bound_to(server: str, principal: Principal, envelope: Envelope) -> bytes:
    """Whose state it is, and for which call: server, principal, method and parameters, but for what may differ when the
    call is repeated.
    """
    row = REQUESTS.get(envelope.method)
    if row is not None and row.how is How.HANDLE:
        # `tasks/update` answers what `tasks/get` asked.
        return _sorted([server, whose(principal), "tasks", envelope.params.get("taskId")])
    said: Mapping[str, Any] = {key: value for key, value in envelope.params.items() if key not in _APART}
    return _sorted([server, whose(principal), envelope.method, said])


def _mac(state: str, digest: Callable[[bytes], str], bound: bytes) -> str:
    return digest(_PURPOSE + _sorted([bound.decode(), state])).partition(":")[2][:_SEAL_DIGITS]
