"""The door: who calls, by API key or JWT. Implements ``flow.ports.Identifier``.

Rules of this file:

1. A credential is known by its SHA-256 and kept in no other form: not here, not in a note, not in a ``repr``.
2. A token that was verified is believed again without another look for at most ``BELIEVED``, never beyond its ``exp``,
   and not once its key left the issuer's set.
3. What can't be verified is a ``Fault``, for whatever reason; ``decide`` alone refuses.
"""

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx
import msgspec

from whygate.authn import api_key, delegation, jwt
from whygate.authn.inventory import Inventory, Listed, Settings, Trusted
from whygate.authn.jwks import NEVER, TIMEOUT_S, FileKeys, Keys, UrlKeys
from whygate.core.calls import Fault
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.flow.ports import Clock

BELIEVED: Final = datetime.timedelta(minutes=5)
"""RFC 9068 section 4 leaves caching to the resource server; five minutes is also how old the keys grow."""
MAX_TOKEN: Final = 16 * 1024
"""Characters. Twice the header size that common servers accept; refused before anything reads it."""
REMEMBERED: Final = 10_000
"""Tokens, some 10 MB. Only tokens that were valid get in, so nobody else can push them out."""

_MISSING: Final = Fault(code=Code.AGENT_UNAUTHENTICATED, note="the call has no credential")
_SCHEME: Final = Fault(code=Code.AGENT_UNAUTHENTICATED, note="the credential is no bearer token (RFC 6750 section 2.1)")
_TOO_LONG: Final = Fault(code=Code.AGENT_UNAUTHENTICATED, note=f"the credential is longer than {MAX_TOKEN} characters")
_NO_KEY: Final = Fault(code=Code.AGENT_UNAUTHENTICATED, note="no agent has this API key")
_NOT_A_KEY: Final = Fault(
    code=Code.AGENT_UNAUTHENTICATED, note="the credential begins like an API key and is none: it may have been cut off"
)


class _Believed(msgspec.Struct, frozen=True):
    principal: Principal
    until: datetime.datetime
    keys: Keys
    thumbprint: str


class Door:
    """Recognises callers by what ``agents`` and ``issuers`` of the configuration say."""

    def __init__(
        self,
        agents: Sequence[Listed],
        issuers: Sequence[Trusted],
        clock: Clock,
        *,
        keys: Mapping[str, Keys] | None = None,
    ) -> None:
        """``keys``: other sources of keys than the issuers' ``jwks``, by issuer."""
        self._clock = clock
        self._inventory = Inventory(agents, issuers)
        self._by_key = self._inventory.by_key()
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S) if _asks_urls(issuers) else None
        given = keys or {}
        self._issuers = {each.issuer: (each, given.get(each.issuer) or self._source(each.jwks)) for each in issuers}
        self._believed: dict[bytes, _Believed] = {}

    @classmethod
    def from_config(cls, config: Settings, clock: Clock) -> Self:
        """The door that a configuration describes. Opens nothing yet: keys are read when the first token asks."""
        return cls(config.identities.agents, config.identities.issuers, clock)

    def __repr__(self) -> str:
        return f"<Door: {len(self._by_key)} API keys, {len(self._issuers)} issuers>"

    async def identify(self, authorization: str | None) -> Principal | Fault:
        """Who calls. Suspended and retired agents are principals, with that status."""
        if authorization is None:
            return _MISSING
        if len(authorization) > MAX_TOKEN + 16:
            return _TOO_LONG
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" and scheme.lower() != "bearer":  # RFC 9110 section 11.1: in any case
            return _SCHEME
        token = token.strip(" ")
        if not token.isascii() or len(token) > MAX_TOKEN:
            return _TOO_LONG if token.isascii() else _SCHEME
        if not token:
            return _MISSING
        digest = hashlib.sha256(token.encode("ascii"))
        if token.startswith(api_key.PREFIX):
            known = self._by_key.get(digest.digest())
            return known or (_NO_KEY if api_key.has_shape(token) else _NOT_A_KEY)
        now = self._clock.now()
        believed = self._believed.get(digest.digest())
        if believed is not None:
            if now >= believed.keys.check_at:
                believed.keys.check(now)
            if now < believed.until and believed.thumbprint in believed.keys.live:
                return believed.principal
            del self._believed[digest.digest()]
        # The token's own hash and not its jti: it names exactly what was presented, whatever the issuer put into it.
        return await self._verify(token, digest.digest(), f"sha256:{digest.hexdigest()[:16]}")

    def problems(self) -> dict[str, str]:
        """Issuers whose keys are not as they should be, and why: for health checks and operators."""
        return {name: keys.problem for name, (_, keys) in self._issuers.items() if keys.problem}

    async def close(self) -> None:
        """End what is under way."""
        for _, keys in self._issuers.values():
            await keys.close()
        if self._client is not None:
            await self._client.aclose()

    async def _verify(self, token: str, digest: bytes, credential: str) -> Principal | Fault:
        verified = await jwt.verify(token, self._issuers, self._clock)
        if isinstance(verified, Fault):
            return verified
        principal = delegation.principal(verified.claims, verified.issuer, self._inventory, credential)
        if isinstance(principal, Principal):
            self._remember(digest, principal, verified)
        return principal

    def _remember(self, digest: bytes, principal: Principal, verified: jwt.Verified) -> None:
        if len(self._believed) >= REMEMBERED:
            del self._believed[next(iter(self._believed))]  # the one verified longest ago, which ends soonest anyway
        until = self._clock.now() + BELIEVED
        if verified.expires < until.timestamp():
            until = NEVER + datetime.timedelta(seconds=verified.expires)
        self._believed[digest] = _Believed(principal, until, verified.keys, verified.thumbprint)

    def _source(self, jwks: str) -> Keys:
        if jwks.startswith("file:"):
            return FileKeys(Path(jwks.removeprefix("file:")))
        if self._client is None:
            raise ValueError("keys come from file:PATH or a URL")
        return UrlKeys(jwks, self._client)


def _asks_urls(issuers: Sequence[Trusted]) -> bool:
    return any(issuer.jwks.startswith(("https:", "http:")) for issuer in issuers)
