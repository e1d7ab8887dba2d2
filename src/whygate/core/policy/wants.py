"""What a permit still wants of people, made ready once at load: ``require: {human | grant | break_glass: …}``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.core.approvals import REQUESTER
from whygate.core.ids import sha256_digest
from whygate.core.policy.durations import seconds

_TEN_MINUTES: Final = "10m"


class HumanWant(msgspec.Struct, frozen=True, kw_only=True):
    """A person agrees to exactly this call."""

    approvers: tuple[str, ...]
    client: bool = False
    """Whether what the agent's own process answers counts: only where it is not what one guards against."""
    excluded: tuple[str, ...] = (REQUESTER,)
    for_task_s: int = 0
    narrow: tuple[str, ...] = ()
    quorum: int = 1
    use_within_s: int = 600
    uses: int = 1
    within_s: int = 600


class GrantWant(msgspec.Struct, frozen=True, kw_only=True):
    """An elevation is in force."""

    approvers: tuple[str, ...] = ()
    auto: bool = False
    """Whoever may ask for it gets it, without a person."""
    entitlement: str
    excluded: tuple[str, ...] = (REQUESTER,)
    max_ttl_s: int
    max_uses: int = 0
    """0: uncounted."""
    quorum: int = 1
    within_s: int = 600


class BreakGlassWant(msgspec.Struct, frozen=True, kw_only=True):
    """A declared emergency is open."""

    max_ttl_s: int = 3600


class AuthnWant(msgspec.Struct, frozen=True, kw_only=True):
    """The person behind the call signed in recently and strongly enough (RFC 9470)."""

    acr: tuple[str, ...] = ()
    """One of these; empty: any."""
    max_age_s: int = 0
    """0: however long ago."""


Want = HumanWant | GrantWant | BreakGlassWant | AuthnWant


def want(kind: str, params: Mapping[str, Any]) -> Want | None:
    """The requirement of ``kind`` as a rule wrote it, its shape checked before; ``None`` for kinds that want no person."""

    def within(name: str, default: str) -> int:
        return seconds(params.get(name, default))

    excluded = tuple(params.get("not", (REQUESTER,)))
    match kind:
        case "human":
            return HumanWant(
                approvers=tuple(params["approvers"]),
                client=params.get("client_answers", False),
                excluded=excluded,
                for_task_s=seconds(params["for_task"]) if "for_task" in params else 0,
                narrow=tuple(params.get("narrow", ())),
                quorum=params.get("quorum", 1),
                use_within_s=within("use_within", _TEN_MINUTES),
                uses=params.get("uses", 1),
                within_s=within("within", _TEN_MINUTES),
            )
        case "grant":
            return GrantWant(
                approvers=tuple(params.get("approvers", ())),
                auto=params.get("auto", False),
                entitlement=params["entitlement"],
                excluded=excluded,
                max_ttl_s=seconds(params["max_ttl"]),
                max_uses=params.get("max_uses") or 0,
                quorum=params.get("quorum", 1),
                within_s=within("within", _TEN_MINUTES),
            )
        case "authn":
            age = seconds(params["max_age"]) if params.get("max_age") else 0
            return AuthnWant(acr=tuple(params.get("acr") or ()), max_age_s=age)
        case "break_glass":
            return BreakGlassWant(max_ttl_s=within("max_ttl", "60m"))
    return None


def digest_of_rule(policy: str, agents: Sequence[str], names: Mapping[str, str], rule: Mapping[str, Any]) -> str:
    """Of what a rule says: whom it is for, on what, when, and what it wants; ``names`` are those that its condition rests on.
    Its ``why`` may be worded anew without an effect on what people agreed to.
    """
    said = {key: value for key, value in rule.items() if key != "why"}
    whole = {"agents": sorted(agents), "let": dict(names), "policy": policy, "rule": said}
    return sha256_digest(json.dumps(whole, sort_keys=True, default=str).encode())
