"""Whose a session is. A session id is a handle, never a proof: it works only for the principal that it was made for
(MCP, security best practices, "Session Hijacking").
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from whygate.core.identity import Principal

_MOST_KINDS: Final = 8
_KEPT: Final = 10_000
"""Sessions remembered; beyond, the one used longest ago is forgotten and is then the upstream's to judge."""


def whose(principal: Principal) -> str:
    """A key for everything that must not be shared: the issuer, the agent, and on whose behalf it acts."""
    return "\0".join((principal.issuer, principal.id, *(actor.id for actor in principal.on_behalf_of)))


class Bindings:
    """Which principal each upstream session belongs to, as far as this gateway saw it being made."""

    def __init__(self) -> None:
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._elicits: dict[tuple[str, str], Mapping[str, Any]] = {}
        """What clients said of how they can be asked, where they said it."""

    def bind(self, server: str, session: str, principal: Principal, capabilities: Any = None) -> None:
        self._owners[server, session] = whose(principal)
        elicits = capabilities.get("elicitation") if isinstance(capabilities, Mapping) else None
        if isinstance(elicits, Mapping) and len(elicits) <= _MOST_KINDS:
            self._elicits[server, session] = {"elicitation": {str(kind)[:16]: {} for kind in elicits}}
        if len(self._owners) > _KEPT:
            self._elicits.pop(self._owners.popitem(last=False)[0], None)

    def capabilities(self, server: str, session: str, principal: Principal) -> Mapping[str, Any]:
        """What the client of this session said of how it can be asked; nothing where the session is another's."""
        if not session or self._owners.get((server, session)) != whose(principal):
            return {}
        return self._elicits.get((server, session), {})

    def usable(self, server: str, session: str, principal: Principal) -> bool:
        """Whether ``principal`` may name this session. One that is not known here (made before a restart, or through
        another gateway) may be named: the upstream knows whether it exists.
        """
        if not session:
            return True
        owner = self._owners.get((server, session))
        if owner is None:
            return True
        self._owners.move_to_end((server, session))
        return owner == whose(principal)

    def forget(self, server: str, session: str) -> None:
        self._owners.pop((server, session), None)
        self._elicits.pop((server, session), None)
