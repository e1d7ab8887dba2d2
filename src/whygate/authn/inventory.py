"""Who is known: the operator's list of agents, and what an issuer's word is worth beside it.

Rules of this file:

1. The list decides what somebody is. A token adds roles and scopes to that, and never type, owner or status.
2. An issuer speaks only for the agents that it may speak for. Otherwise each issuer could name the agents of every other.
3. Who is not listed is refused, unless the operator said of that issuer what its other subjects are.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from whygate.core.calls import Fault
from whygate.core.identity import IdentityType, Principal, Proof, Status
from whygate.core.reasons import Code

MAX_ID: Final = 256
"""Characters. SPIFFE ids may be longer; those that people give to agents are not."""


class Listed(Protocol):
    """An entry of the inventory, as the configuration has it. Described here by its shape, so that recognising callers depends on no format."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> IdentityType: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def status(self) -> Status: ...
    @property
    def roles(self) -> Sequence[str]: ...
    @property
    def api_keys(self) -> Sequence[str]: ...
    @property
    def issuer(self) -> str | None: ...
    @property
    def adopt_trace(self) -> bool: ...


class Trusted(Protocol):
    """An issuer, as the configuration has it."""

    @property
    def issuer(self) -> str: ...
    @property
    def audiences(self) -> Sequence[str]: ...
    @property
    def jwks(self) -> str: ...
    @property
    def algorithms(self) -> Sequence[str]: ...
    @property
    def roles_claim(self) -> str: ...
    @property
    def unlisted_as(self) -> IdentityType | None: ...


class Known(Protocol):
    """The ``identities`` of the configuration."""

    @property
    def agents(self) -> Sequence[Listed]: ...
    @property
    def issuers(self) -> Sequence[Trusted]: ...


class Settings(Protocol):
    """The configuration, as far as this package reads it."""

    @property
    def identities(self) -> Known: ...


def usable_id(text: object) -> bool:
    """Whether ``text`` can be an id: one that a policy's selector can't mistake for a role, a group or nobody."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= MAX_ID
        and text.isprintable()
        and text not in {"anonymous", "*"}
        and not text.startswith(("role:", "group:"))
    )


class Inventory:
    """The list, indexed. Immutable: a new configuration is a new inventory."""

    def __init__(self, agents: Sequence[Listed], issuers: Sequence[Trusted]) -> None:
        self._agents: Mapping[str, Listed] = {agent.id: agent for agent in agents}
        self._only_issuer = issuers[0].issuer if len(issuers) == 1 else None

    def by_key(self) -> dict[bytes, Principal]:
        """The principal of each API key, by the key's SHA-256."""
        return {
            bytes.fromhex(stored.removeprefix("sha256:")): Principal(
                id=agent.id,
                type=agent.type,
                proof=Proof.API_KEY,
                credential=stored[: len("sha256:") + 16],
                owner=agent.owner or "",
                roles=tuple(sorted(agent.roles)),
                status=agent.status,
                adopt_trace=agent.adopt_trace,
            )
            for agent in self._agents.values()
            for stored in agent.api_keys
        }

    def listed(self, subject: str, issuer: str) -> Listed | Fault | None:
        """The entry of ``subject`` as ``issuer`` names it; ``None`` where it is not listed.

        A ``Fault`` where it is listed but this issuer may not speak for it.
        """
        agent = self._agents.get(subject)
        if agent is None:
            return None
        if (agent.issuer or self._only_issuer) != issuer:
            return Fault(
                code=Code.AGENT_UNAUTHENTICATED,
                note=f"{issuer} may not speak for {agent.id}: set `issuer` on its entry to allow it",
            )
        return agent
