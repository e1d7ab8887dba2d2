"""Whose a session is. A session id is a handle, never a proof: it works only for the principal that it was made for
(MCP, security best practices, "Session Hijacking").
"""

from collections import OrderedDict
from typing import Final

from whygate.core.identity import Principal

_KEPT: Final = 10_000
"""Sessions remembered; beyond, the one used longest ago is forgotten and is then the upstream's to judge."""


def whose(principal: Principal) -> str:
    """A key for everything that must not be shared: the issuer, the agent, and on whose behalf it acts."""
    return "\0".join((principal.issuer, principal.id, *(actor.id for actor in principal.on_behalf_of)))


class Bindings:
    """Which principal each upstream session belongs to, as far as this gateway saw it being made."""

    def __init__(self) -> None:
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()

    def bind(self, server: str, session: str, principal: Principal) -> None:
        self._owners[server, session] = whose(principal)
        if len(self._owners) > _KEPT:
            self._owners.popitem(last=False)

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
