"""What lets a call through though no standing rule does: elevations, and the two exceptions, waivers and break-glass.

Pure values. What each covers is asked here; whether a rule wants or allows it, ``decide`` asks.
"""

import functools
from typing import Final

from whygate.core.calls import Tool
from whygate.core.policy.match import ToolSelector, parse_tool
from whygate.core.record_parts import Part

REVIEW_DUE_US: Final = 24 * 3600 * 1_000_000
"""A review is overdue a day after its break-glass ended."""


@functools.lru_cache(maxsize=1024)
def _selector(text: str) -> ToolSelector:
    return parse_tool(text)


def names(selectors: tuple[str, ...], tool: Tool) -> bool:
    """Whether one of these selectors names the tool (``core.policy.match``). Raises ``ValueError`` for what is none."""
    return any(_selector(text).matches(tool) for text in selectors)


class Grant(Part, frozen=True, kw_only=True):
    """A just-in-time elevation."""

    approval: str = ""
    """The question that a person agreed to; empty where policy agreed by itself."""
    counted: bool = False
    entitlement: str
    id: str
    patterned: bool = False
    """Whether it is bound to arguments; the pattern itself is kept apart, as values are."""
    principal: str
    rule_digest: str = ""
    """Of the rule that offered it."""
    task: str = ""
    """Only in this one; empty: in any."""
    tools: tuple[str, ...]
    until_us: int
    uses_left: int = 0
    """With ``counted``."""

    def usable(self, now_us: int) -> bool:
        return now_us < self.until_us and not (self.counted and self.uses_left <= 0)

    def covers(self, task: str, tool: Tool) -> bool:
        """Whether it is about such a call, arguments apart."""
        return (not self.task or self.task == task) and names(self.tools, tool)


class Waiver(Part, frozen=True, kw_only=True):
    """A named, owned, time-bound exception from one overridable rule."""

    agents: tuple[str, ...] = ()
    """Empty: everybody's."""
    by: str = ""
    """Who added it."""
    id: str
    name: str
    owner: str
    policy: str
    rule: str
    tools: tuple[str, ...] = ()
    until_us: int

    def covers(self, principal: str, tool: Tool, policy: str, rule: str, now_us: int) -> bool:
        if (self.policy, self.rule) != (policy, rule) or now_us >= self.until_us:
            return False
        return (not self.agents or principal in self.agents) and (not self.tools or names(self.tools, tool))


class BreakGlass(Part, frozen=True, kw_only=True):
    """A declared emergency: what it overrides is marked as overridable, never more."""

    agents: tuple[str, ...]
    by: str
    id: str
    incident: str
    task: str = ""
    team: str = ""
    tools: tuple[str, ...]
    until_us: int

    def covers(self, principal: str, task: str, tool: Tool, now_us: int) -> bool:
        if now_us >= self.until_us or principal not in self.agents:
            return False
        return (not self.task or self.task == task) and names(self.tools, tool)


class Review(Part, frozen=True, kw_only=True):
    """What somebody else owes an answer to after a break-glass."""

    by: str
    """Who had opened the break-glass, and may not answer."""
    due_us: int
    id: str
    """That of the break-glass."""
    incident: str = ""
    team: str = ""

    def overdue(self, now_us: int) -> bool:
        return now_us >= self.due_us
