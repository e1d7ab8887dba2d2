"""A policy set, compiled: the rules in force, found by whom and what they are about.

1. A set is a value. Its digest stands for its texts; what it caches changes no answer.
2. An index only narrows: whether a rule applies is asked of its selectors, here and in an explanation alike.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from whygate.core.calls import Tool, ToolCall
from whygate.core.decision import Claim, Evaluation, Mode, Requirement, Result, RuleRef
from whygate.core.facts import Facts
from whygate.core.identity import Principal
from whygate.core.policy import match
from whygate.core.policy.arguments import Wanted, all_of
from whygate.core.policy.cel import Condition, Joint, joint
from whygate.core.policy.match import ToolSelector
from whygate.core.policy.wants import Want
from whygate.core.reasons import Code, Outcome

CACHE_ENTRIES: Final = 4096
"""Pairs of principal and tool whose rules are remembered: some hundred bytes each."""

# What a permit may still want, cheapest for the caller first: a token, a sign-in, a person's click, an elevation, an
# emergency.
UNMET: Final = {
    "scope": Code.SCOPE_INSUFFICIENT,
    "authn": Code.AUTHN_INSUFFICIENT,
    "human": Code.STEP_UP_REQUIRED,
    "grant": Code.JIT_GRANT_REQUIRED,
    "break_glass": Code.BREAK_GLASS_AVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """One rule, ready to be asked."""

    policy: str
    version: int
    id: str
    file: str
    line: int
    digest: str
    mode: Mode
    agents: tuple[str, ...]
    tools: tuple[ToolSelector, ...]
    condition: Condition | None
    """``None``: it always holds."""
    code: Code
    """Of a deny: the reason it gives. Of a permit: ``role.permitted``, or what it gives while its ``require`` is unmet."""
    overridable: bool = False
    requirement: Requirement | None = None
    scopes: frozenset[str] = frozenset()
    want: Want | None = None
    """The requirement made ready, where it wants people."""
    rule_digest: str = ""
    """Of what this rule says, apart from the rest of its policy: what approvals and elevations are bound to."""
    why: str
    permits: bool = field(init=False)
    enforced: bool = field(init=False)
    # Made once, because they are the same on every call; only errors differ.
    matched: Evaluation = field(init=False, repr=False, compare=False)
    unmatched: Evaluation = field(init=False, repr=False, compare=False)
    unmet: Evaluation = field(init=False, repr=False, compare=False)
    ref: RuleRef = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fill = object.__setattr__  # the one moment at which a frozen value may be completed
        fill(self, "ref", RuleRef(digest=self.digest, policy=self.policy, rule=self.id, version=self.version))
        fill(self, "permits", self.code.outcome is not Outcome.BLOCKED)
        fill(self, "enforced", self.mode is Mode.ENFORCE)
        wanted = "" if self.requirement is None else f"{self.requirement.kind} is required"
        given = Code.ROLE_PERMITTED if self.permits else self.code
        fill(self, "matched", self.evaluation(Result.MATCH, given))
        fill(self, "unmatched", self.evaluation(Result.NO_MATCH, Code.POLICY_NO_MATCH))
        fill(self, "unmet", self.evaluation(Result.UNMET, self.code, wanted))

    @property
    def effect(self) -> str:
        return "permit" if self.permits else "deny"

    def selectors_for(self, principal: Principal, tool: Tool | None) -> tuple[str, str]:
        """Which of its selectors name this caller and this tool; empty where none does. It applies if both do."""
        return match.first_agent(self.agents, principal), "" if tool is None else match.first_tool(self.tools, tool)

    def evaluation(self, result: Result, code: Code, note: str = "") -> Evaluation:
        return Evaluation(
            code=code.value,
            digest=self.digest,
            effect=self.effect,
            mode=self.mode,
            note=note,
            policy=self.policy,
            result=result,
            rule=self.id,
            version=self.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCase:
    """One entry of a policy's ``tests``."""

    __test__ = False  # not for pytest, whatever its name

    policy: str
    file: str
    line: int
    call: ToolCall
    facts: Facts
    outcome: Outcome
    rule: str | None
    code: Code | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy, compiled."""

    id: str
    version: int
    owner: str
    mode: Mode
    file: str
    digest: str
    rules: tuple[CompiledRule, ...]
    tests: tuple[TestCase, ...]


@dataclass(frozen=True, slots=True)
class Applicable:
    """The rules for one principal and tool, in the order of policy id and file, and the variables they read."""

    rules: tuple[CompiledRule, ...]
    reads: frozenset[str]
    args: Wanted
    """What of the arguments."""
    visible: bool
    """Whether the tool belongs in this principal's list: some rule could permit it, and none always forbids it. Where it
    does not, whatever is answered must be the same for a tool that does not exist."""
    joint: Joint | None
    """Their conditions, to be asked at once."""


class PolicySet:
    """All policies in force. Built by ``parse.load``; equal to another by its digest."""

    __slots__ = ("_cache", "_index", "_made", "claim", "digest", "policies", "rules", "texts", "wanting")

    def __init__(self, texts: Mapping[str, str], policies: Iterable[Policy]) -> None:
        self.texts: Mapping[str, str] = MappingProxyType(dict(sorted(texts.items())))
        self.digest: str = digest_of(texts)
        self.claim = Claim(key="", kind="policy", value=self.digest)
        """That this set is in force. Every decision by rules rests on it, refusals too: a record never names another."""
        self.policies: tuple[Policy, ...] = tuple(sorted(policies, key=lambda policy: policy.id))
        self.rules: tuple[CompiledRule, ...] = tuple(rule for policy in self.policies for rule in policy.rules)
        self.wanting = {rule.rule_digest: rule for rule in self.rules if rule.want is not None}
        """Rules that want people, by their digests."""
        self._index = _indexed(self.rules)
        self._cache: dict[tuple[Any, ...], Applicable] = {}
        self._made: dict[tuple[int, ...], Applicable] = {}

    def __repr__(self) -> str:
        return f"PolicySet({len(self.policies)} policies, {len(self.rules)} rules, {self.digest[:19]})"

    def applicable(self, principal: Principal, tool: Tool) -> tuple[CompiledRule, ...]:
        """The rules whose selectors name this principal and this tool, shadow ones included."""
        return self.look_up(principal, tool).rules

    def visible(self, principal: Principal, tool: Tool) -> bool:
        """Whether the tool belongs in this principal's list: some rule could permit it, and none always forbids it.

        Says nothing about a particular call, nor about suspension and the other gates.
        """
        return self.look_up(principal, tool).visible

    def look_up(self, principal: Principal, tool: Tool) -> Applicable:
        """As ``applicable``, with what the rules read. Costs by what applies, not by what exists."""
        key = (principal.id, principal.roles, tool.type, tool.server, tool.name, tool.tool_class, tool.labels)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= CACHE_ENTRIES:
                self._cache.clear()  # simpler than forgetting one by one, and as rare
            found = self._cache[key] = self._find(principal, tool)
        return found

    def _find(self, principal: Principal, tool: Tool) -> Applicable:
        keys = tuple(match.keys_of(tool))
        numbers: set[int] = set()
        for agent in match.agent_keys(principal):
            below = self._index.get(agent)
            if below is not None:
                for key in keys:
                    numbers.update(n for n, selector in below.get(key, ()) if selector.matches(tool))
        found = tuple(sorted(numbers))
        made = self._made.get(found)  # many callers have the same rules
        if made is None:
            if len(self._made) >= CACHE_ENTRIES:
                self._made.clear()
            made = self._made[found] = _applicable(tuple(self.rules[number] for number in found))
        return made


def _applicable(rules: tuple[CompiledRule, ...]) -> Applicable:
    conditions = [rule.condition for rule in rules]
    asked = [condition for condition in conditions if condition is not None]
    enforced = [rule for rule in rules if rule.enforced]
    forbidden = any(not rule.permits and rule.condition is None and not rule.overridable for rule in enforced)
    return Applicable(
        rules,
        frozenset[str]().union(*(each.reads for each in asked)),
        all_of(each.arguments for each in asked),
        not forbidden and any(rule.permits for rule in enforced),
        joint(conditions),
    )


_Index = dict[str, dict[str, list[tuple[int, ToolSelector]]]]


def _indexed(rules: tuple[CompiledRule, ...]) -> _Index:
    made: _Index = {}
    for number, rule in enumerate(rules):
        for agent in rule.agents:
            below = made.setdefault(agent, {})
            for selector in rule.tools:
                below.setdefault(selector.key, []).append((number, selector))
    return made


def digest_of(texts: Mapping[str, str]) -> str:
    """``sha256:`` and 64 hex digits over the files, sorted by name, each as length-prefixed name and text.

    With the lengths before them, no two different sets give the same bytes. Raises ``UnicodeEncodeError`` for texts
    that are no Unicode.
    """
    hashed = hashlib.sha256(b"whygate policy set 1\n")
    for pair in sorted(texts.items()):
        for piece in pair:
            data = piece.encode()
            hashed.update(b"%d:" % len(data) + data)
    return "sha256:" + hashed.hexdigest()
