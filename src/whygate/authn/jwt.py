"""JWTs as access tokens: RFC 9068, with the care of RFC 8725.

Rules of this file:

1. The algorithm comes from the operator's list for the issuer, asymmetric ones only; the header may only name one of them
   (RFC 8725 section 3.1). What a header brings along (``jwk``, ``jku``, ``x5c``) is never a key.
2. No claim is believed before the signature is checked, but ``iss``, which only chooses whose keys check it.
3. ``exp`` holds to the second; clocks that disagree are forgiven in ``nbf`` and ``iat`` only, where the mistake costs
   a caller patience and never lengthens a token's life.
4. Notes are our own words: nothing of the token gets into them.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from whygate.authn.inventory import Trusted
from whygate.authn.jwks import Keys, Signer
from whygate.core.calls import Fault
from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable, loads
from whygate.flow.ports import Clock

LEEWAY_S: Final = 30
"""How far an issuer's clock may be ahead of ours."""
_SEGMENTS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# RFC 9068 section 2.1 wants at+jwt; many issuers still write JWT or nothing. Whatever names another use (logout+jwt,
# dpop+jwt, secevent+jwt) is refused: a token made for one purpose must not serve another (RFC 8725 section 3.11).
_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})


class Verified(msgspec.Struct, frozen=True):
    """A token whose signature and claims hold."""

    claims: Mapping[str, Any]
    issuer: Trusted
    keys: Keys
    thumbprint: str
    """Of the key that signed it."""
    expires: float
    """Seconds since 1970."""


class _Token(msgspec.Struct, frozen=True):
    algorithm: str
    kid: str
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


async def verify(text: str, issuers: Mapping[str, tuple[Trusted, Keys]], clock: Clock) -> Verified | Fault:
    """The verified token, or what is wrong with it. ``issuers`` by their exact name."""
    token = _read(text)
    if isinstance(token, Fault):
        return token
    name = token.claims.get("iss")
    if not isinstance(name, str) or name not in issuers:
        return _refused("the token's issuer is not configured")
    issuer, keys = issuers[name]
    if token.algorithm not in issuer.algorithms:
        return _refused(f"the token's algorithm is not on the list for {issuer.issuer}")
    candidates = await keys.find(token.kid, token.algorithm, clock.now())
    if not candidates:
        why = f": {keys.problem}" if keys.problem else ""
        return _refused(f"no key of {issuer.issuer} fits the token's kid and algorithm{why}")
    signer = next((each for each in candidates if _signed(token, each)), None)
    if signer is None:
        return _refused(f"the signature was not made by {issuer.issuer}")
    # The time once more: waiting for keys may have taken a while, and ``exp`` holds to the second.
    wrong = _claims(token.claims, issuer, clock.now().timestamp())
    return wrong or Verified(token.claims, issuer, keys, signer.thumbprint, float(token.claims["exp"]))


def _read(text: str) -> _Token | Fault:
    match = _SEGMENTS.fullmatch(text)
    if match is None:
        return _refused("the credential is neither an API key nor a signed JWT")
    try:
        header, claims = loads(_decode(match[1])), loads(_decode(match[2]))
        signature = _decode(match[3])
    except (Unreadable, binascii.Error, ValueError):
        return _refused("the token is not made of base64url and JSON")
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return _refused("the token's header or claims are no object")
    if "crit" in header or "b64" in header:
        # RFC 7515 section 4.1.11: what is critical and not understood refuses. We understand none.
        return _refused("the token's header has critical parameters")
    algorithm, kid, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "")
    if not isinstance(algorithm, str) or not isinstance(kid, str) or not isinstance(kind, str):
        return _refused("the token's header has an alg, kid or typ that is no text")
    if kind.lower() not in _TYPES:
        return _refused("the token's typ says that it is no access token")
    return _Token(algorithm, kid, claims, text[: match.end(2)].encode("ascii"), signature)


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _signed(token: _Token, signer: Signer) -> bool:
    try:
        return JWSRegistry.algorithms[token.algorithm].verify(token.signed, token.signature, signer.key)
    except (JoseError, ValueError, TypeError):
        return False


def _claims(claims: Mapping[str, Any], issuer: Trusted, now: float) -> Fault | None:
    """What is wrong with claims that were signed."""
    expires = claims.get("exp")
    if not _is_time(expires):
        return _refused("the token has no exp")
    if now >= expires:
        return Fault(code=Code.AGENT_TOKEN_EXPIRED, note=f"the token of {issuer.issuer} has expired")
    for name in ("nbf", "iat"):
        if name in claims and (not _is_time(claims[name]) or claims[name] > now + LEEWAY_S):
            return _refused(f"the token's {name} is in the future or no time: compare the clocks")
    audience = claims.get("aud", ())
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not set(issuer.audiences) & {a for a in audiences if isinstance(a, str)}:
        return Fault(code=Code.AGENT_TOKEN_AUDIENCE, note=f"the token of {issuer.issuer} was made for another audience")
    if "cnf" in claims:
        # RFC 9449 section 7.1 and RFC 8705 section 3: bound to a key of the sender's, it proves nothing without it.
        return _refused("the token is bound to a key (cnf), which a bearer does not prove")
    return None


def _is_time(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(note: str) -> Fault:
    return Fault(code=Code.AGENT_UNAUTHENTICATED, note=note)
