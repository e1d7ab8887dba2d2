"""From verified claims to a principal, with the chain on whose behalf it acts (RFC 8693 section 4.1).

Rules of this file:

1. Without ``act``, the principal is ``sub``. With it, the principal is the current actor, the outermost ``act``; prior
   actors and the subject are whom it acts for.
2. The current actor must be in the inventory: ``unlisted_as`` says what *subjects* are, and an unknown agent must not
   become a person by it.
3. The token's roles are the subject's. An actor does not get them: it has the roles of its own entry.
4. A chain is as good as its worst link: if one link is suspended, the principal counts as suspended.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.authn.inventory import Inventory, Listed, Trusted, usable_id
from whygate.core.calls import Fault
from whygate.core.identity import Actor, IdentityType, Principal, Proof, Status
from whygate.core.reasons import Code

MAX_DEPTH: Final = 8
"""Actors in a chain. Real ones have two or three; each is work for whoever reads the record."""
_WORST_LAST: Final = (Status.ACTIVE, Status.SUSPENDED, Status.RETIRED)
# draft-mcguinness-oauth-actor-profile: what a prior actor is, in the words of the issuer that vouches for it.
_PROFILES: Final = {
    "ai_agent": IdentityType.AI_AGENT,
    "service": IdentityType.SERVICE_ACCOUNT,
    "user": IdentityType.HUMAN,
}


_LATEST_S: Final = 2**40
"""Beyond, a time is no time."""


class _Link(msgspec.Struct, frozen=True):
    sub: str
    iss: str
    profile: str


def principal(claims: Mapping[str, Any], issuer: Trusted, inventory: Inventory, credential: str) -> Principal | Fault:
    """Who calls, by claims that were verified already; or what is wrong with them."""
    subject = claims.get("sub")
    if not usable_id(subject):
        return _unproven("the token's sub is missing or no usable id")  # RFC 9068 section 2.2 requires it
    roles, scopes = _words(_claim(claims, issuer.roles_claim)), _scopes(claims)
    if roles is None or scopes is None:
        return _unproven("the token's roles or scopes are not text or lists of text")
    entry = inventory.listed(str(subject), issuer.issuer)
    if isinstance(entry, Fault):
        return entry
    if entry is None and issuer.unlisted_as is None:
        return _unproven(f"the subject is not in the inventory, and {issuer.issuer} may bring no others (unlisted_as)")
    kind = entry.type if entry is not None else issuer.unlisted_as or IdentityType.ANONYMOUS
    if "act" not in claims:
        return Principal(
            id=str(subject),
            type=kind,
            proof=Proof.JWT,
            credential=credential,
            issuer=issuer.issuer,
            owner=(entry.owner or "") if entry is not None else "",
            roles=tuple(sorted({*(entry.roles if entry is not None else ()), *roles})),
            scopes=scopes,
            status=entry.status if entry is not None else Status.ACTIVE,
            adopt_trace=entry is not None and entry.adopt_trace,
            **_sign_in(claims, kind),
        )
    links = _links(claims["act"])
    if isinstance(links, Fault):
        return links
    behind = Actor(id=str(subject), issuer=issuer.issuer, type=kind)
    made = _actor(links, behind, issuer, inventory, entry.status if entry is not None else Status.ACTIVE)
    if isinstance(made, Fault):
        return made
    return msgspec.structs.replace(made, credential=credential, scopes=scopes, **_sign_in(claims, kind))


def _sign_in(claims: Mapping[str, Any], kind: IdentityType) -> dict[str, Any]:
    """How and when the person that the token is about signed in (RFC 9470 section 6). What is of the wrong type was not said;
    of what is no person, nothing is.
    """
    at, acr = claims.get("auth_time"), claims.get("acr")
    if kind is not IdentityType.HUMAN or isinstance(at, bool) or not isinstance(at, int | float):
        return {}
    usable = 0 < at < _LATEST_S
    return {"acr": acr[:128] if isinstance(acr, str) else "", "signed_in_us": int(at * 1_000_000) if usable else 0}


def _actor(
    links: Sequence[_Link], behind: Actor, issuer: Trusted, inventory: Inventory, subject_status: Status
) -> Principal | Fault:
    current = links[0]
    if current.iss not in {"", issuer.issuer}:
        return _broken("the current actor belongs to another issuer than the token")
    entry = inventory.listed(current.sub, issuer.issuer)
    if isinstance(entry, Fault):
        return entry
    if entry is None:
        return _unproven("the current actor is not in the inventory")
    statuses, prior = [entry.status, subject_status], []
    for link in links[1:]:
        here = link.iss in {"", issuer.issuer}
        known = inventory.listed(link.sub, issuer.issuer) if here else None
        if isinstance(known, Fault):
            return known
        if known is not None:
            statuses.append(known.status)
        prior.append(Actor(id=link.sub, issuer=link.iss or issuer.issuer, type=_kind(known, link)))
    return Principal(
        id=entry.id,
        type=entry.type,
        proof=Proof.JWT,
        issuer=issuer.issuer,
        owner=entry.owner or "",
        roles=tuple(sorted(entry.roles)),
        on_behalf_of=(*prior, behind),
        status=max(statuses, key=_WORST_LAST.index),
        adopt_trace=entry.adopt_trace,
    )


def _kind(known: Listed | None, link: _Link) -> IdentityType:
    # An agent, where nobody says: the type that is trusted least.
    return known.type if known is not None else _PROFILES.get(link.profile, IdentityType.AI_AGENT)


def _links(act: Any) -> list[_Link] | Fault:
    """The actors, current one first."""
    links: list[_Link] = []
    while True:
        if not isinstance(act, dict) or not usable_id(act.get("sub")):
            return _broken("an act claim is no object with a usable sub")
        issuer, profile = act.get("iss", ""), act.get("sub_profile", "")
        if not isinstance(issuer, str) or not isinstance(profile, str) or len(issuer) > 512 or not _printable(issuer):
            return _broken("an act claim has an iss or sub_profile that is no text")
        links.append(_Link(act["sub"], issuer, profile))
        if len(links) > MAX_DEPTH:
            return _broken(f"the act claim is more than {MAX_DEPTH} actors deep")
        if "act" not in act:
            return links
        act = act["act"]


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name; where there is none, dots lead into objects (``realm_access.roles``)."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return ()
        found = found[part]
    return found


def _scopes(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """``scope`` (RFC 8693 section 4.2: separated by blanks) and ``scp`` (the same, or a list)."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name, ())
        words = _words(value.split(" ") if isinstance(value, str) else value)
        if words is None:
            return None
        found.update(words)
    return tuple(sorted(found))


def _words(value: Any) -> tuple[str, ...] | None:
    """Names in a claim: a list of text, or one text. ``None`` where it is something else, so that a deny rule for a
    role can't be dodged by a claim that nobody could read.
    """
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        return None
    if not all(isinstance(word, str) and len(word) <= 256 and _printable(word) for word in words):
        return None
    return tuple(word for word in words if word)


def _printable(text: str) -> bool:
    return text.isprintable()


def _unproven(note: str) -> Fault:
    return Fault(code=Code.AGENT_UNAUTHENTICATED, note=note)


def _broken(note: str) -> Fault:
    return Fault(code=Code.DELEGATION_INVALID, note=note)
