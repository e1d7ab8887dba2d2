"""Selectors: whom and what a rule is about. They are data, never conditions, so that rules can be found by them.

1. A principal's own id never matches a role selector, nor ``*``, whatever the id is: ``role:`` speaks of roles only.
2. A selector that could never match is refused at load: a typing error in a deny must not pass for a deny.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from whygate.core.calls import Tool, ToolClass
from whygate.core.identity import Principal

_ROLE: Final = "role:"
_CLASS: Final = "class:"
_LABEL: Final = "label:"
_PREFIX: Final = re.compile(r"^[a-z_]+:")


class ToolSelector(msgspec.Struct, frozen=True):
    """One entry of ``tools``."""

    text: str
    key: str
    """Where an index keeps it; ``keys_of`` yields it for every tool that could match."""
    pattern: re.Pattern[str] | None = None
    """For globs: what the tool's id must match as a whole."""

    def matches(self, tool: Tool) -> bool:
        """The one test of a tool against a selector; an index only narrows whom it is asked for."""
        if self.pattern is not None:
            return self.pattern.fullmatch(tool.id) is not None
        return self.key in keys_of(tool)


def parse_tool(text: str) -> ToolSelector:
    """A selector of tools. Raises ``ValueError`` saying what is wrong with it."""
    if text == "*":
        return ToolSelector(text, "*")
    if text.startswith(_CLASS):
        if text.removeprefix(_CLASS) not in {str(each) for each in ToolClass}:
            raise ValueError(f"unknown class: the classes are {', '.join(ToolClass)}")
        return ToolSelector(text, text)
    if text.startswith(_LABEL) and len(text) > len(_LABEL) and "*" not in text:
        return ToolSelector(text, text)
    server, slash, name = text.partition("/")
    if _PREFIX.match(text) or not slash or not server or not name or any(char.isspace() for char in text):
        raise ValueError("a tool is named as server/name, server/* or another glob, *, class:<class> or label:<label>")
    if "*" not in text:
        return ToolSelector(text, f"={text}")
    pattern = "".join("[^/]*" if piece == "*" else re.escape(piece) for piece in re.split(r"(\*)", server))
    pattern += "/" + "".join(".*" if piece == "*" else re.escape(piece) for piece in re.split(r"(\*)", name))
    return ToolSelector(text, "?" if "*" in server else f"/{server}", re.compile(pattern, re.DOTALL))


def keys_of(tool: Tool) -> Iterator[str]:
    """Under which keys of an index a tool's rules are found."""
    yield "*"
    yield f"={tool.server}/{tool.name}"
    yield f"/{tool.server}"
    yield "?"
    if tool.tool_class is not None:
        yield _CLASS + tool.tool_class.value
    for label in tool.labels:
        yield _LABEL + label


def parse_agent(text: str) -> str:
    """A selector of principals, as it is. Raises ``ValueError`` saying what is wrong with it."""
    if text == "*":
        return text
    if "*" in text or any(char.isspace() for char in text) or text == _ROLE:
        raise ValueError("an agent is named by its exact id, role:<name>, or * for all")
    return text


def agent_keys(principal: Principal) -> Iterator[str]:
    """The ``agents`` selectors that name this principal."""
    yield "*"
    if not principal.id.startswith(_ROLE) and principal.id != "*":
        yield principal.id
    for role in principal.roles:
        yield _ROLE + role


def first_agent(selectors: Iterable[str], principal: Principal) -> str:
    """The first of ``selectors`` that names ``principal``; empty if none does."""
    keys = frozenset(agent_keys(principal))
    return next((text for text in selectors if text in keys), "")


def first_tool(selectors: Iterable[ToolSelector], tool: Tool) -> str:
    """The first of ``selectors`` that names ``tool``; empty if none does."""
    return next((each.text for each in selectors if each.matches(tool)), "")
