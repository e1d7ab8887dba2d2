"""Who calls, and how that was proven."""

from enum import StrEnum
from typing import Final

import msgspec


class IdentityType(StrEnum):
    """What kind of thing calls. Always explicit: an agent is not a person, and neither is a service account."""

    AI_AGENT = "ai_agent"
    SERVICE_ACCOUNT = "service_account"
    WORKLOAD = "workload"
    HUMAN = "human"
    ANONYMOUS = "anonymous"


class Proof(StrEnum):
    """How the identity was proven."""

    JWT = "jwt"
    API_KEY = "api_key"
    MTLS = "mtls"
    PASSKEY = "passkey"
    OIDC = "oidc"
    NONE = "none"


class Status(StrEnum):
    """An inventory entry's state."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One link of the chain on whose behalf a call is made (RFC 8693 section 4.1)."""

    id: str
    issuer: str = ""
    type: IdentityType


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls. Built only by ``authn``; every field was verified, none was taken from an unverified header."""

    id: str
    type: IdentityType
    proof: Proof
    credential: str = ""
    """Fingerprint of the credential, ``sha256:`` and 16 hex digits. Never the credential."""
    issuer: str = ""
    owner: str = ""
    """Who answers for it, from the inventory."""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    on_behalf_of: tuple[Actor, ...] = ()
    """Prior actors, nearest first, then the person or service on whose behalf all of them act."""
    status: Status = Status.ACTIVE
    acr: str = ""
    """How strongly the person behind the call signed in, as the token's issuer says (RFC 9470; OpenID Connect Core 2)."""
    signed_in_us: int = 0
    """When they did (``auth_time``), in microseconds since 1970; 0: the token does not say."""
    adopt_trace: bool = False
    """The operator trusts this principal to choose its own trace ids."""

    @property
    def authenticated(self) -> bool:
        return self.type is not IdentityType.ANONYMOUS

    @property
    def kinds(self) -> frozenset[str]:
        """What an ``agents`` selector of a policy may name: the id, and each role as ``role:<name>``."""
        return frozenset((self.id, *(f"role:{role}" for role in self.roles)))


ANONYMOUS: Final = Principal(id="anonymous", type=IdentityType.ANONYMOUS, proof=Proof.NONE)
