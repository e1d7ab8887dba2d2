"""Selectors: whom and what a rule is about. They are data, never conditions, so that rules can be found by them.

0. What a selector names is a tool, unless it says ``resource:``, ``prompt:`` or ``question:``; ``*``, classes and labels are
   about tools.
1. A principal's own id never matches a role selector, nor ``*``, whatever the id is: ``role:`` speaks of roles only.
2. A selector that could never match is refused at load: a typing error in a deny must not pass for a deny.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from whygate.core.calls import Tool, ToolClass
from whygate.core.identity import Principal
from whygate.core.things import KINDS, QUESTION, QUESTIONS, RESOURCE, doubt_about_uri

_ROLE: Final = "role:"
_CLASS: Final = "class:"
_LABEL: Final = "label:"
_PREFIX: Final = re.compile(r"^[a-z_]+:")
_URI_BEGINS: Final = re.compile(r"([a-z][a-z0-9+.-]*(:.*)?)?", re.DOTALL)
_SERVER: Final = re.compile(r"[A-Za-z0-9_*-]+")


class ToolSelector(msgspec.Struct, frozen=True):
    """One entry of ``tools``."""

    text: str
    key: str
    """Where an index keeps it; ``keys_of`` yields it for every tool that could match."""
    pattern: re.Pattern[str] | None = None
    """For globs: what the tool's id must match as a whole."""
    kind: str = ""
    """``resource`` or ``prompt``; empty for tools."""
    pieces: tuple[str, ...] = ()
    """For globs over resources and prompts: what stands between the asterisks. ``pattern`` is about the server then."""

    def matches(self, tool: Tool) -> bool:
        """The one test of a tool against a selector; an index only narrows whom it is asked for."""
        if self.pieces:
            fits = self.kind == tool.type and self.pattern is not None and self.pattern.fullmatch(tool.server)
            return bool(fits) and _fits(self.pieces, tool.name)
        if self.pattern is not None:
            return tool.type not in KINDS and self.pattern.fullmatch(tool.id) is not None
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
    kind = next((each for each in KINDS if text.startswith(f"{each}:")), "")
    if kind:
        return _parse_thing(kind, text)
    server, slash, name = text.partition("/")
    if _PREFIX.match(text) or not slash or not server or not name or any(char.isspace() for char in text):
        raise ValueError(
            "a tool is named as server/name, server/* or another glob, *, class:<class> or label:<label>;"
            " a resource as resource:server/uri, a prompt as prompt:server/name, what a server asks as question:server/kind"
        )
    if "*" not in text:
        return ToolSelector(text, f"={text}")
    pattern = "".join("[^/]*" if piece == "*" else re.escape(piece) for piece in re.split(r"(\*)", server))
    pattern += "/" + "".join(".*" if piece == "*" else re.escape(piece) for piece in re.split(r"(\*)", name))
    return ToolSelector(text, "?" if "*" in server else f"/{server}", re.compile(pattern, re.DOTALL))


def _parse_thing(kind: str, text: str) -> ToolSelector:
    server, slash, name = text.removeprefix(f"{kind}:").partition("/")
    if not slash or not name or _SERVER.fullmatch(server) is None or any(char.isspace() for char in name):
        raise ValueError(f"a {kind} is named as {kind}:server/{'uri' if kind == RESOURCE else 'name'}; * is a glob")
    if kind == QUESTION and not any(_fits(tuple(name.split("*")), each) for each in QUESTIONS):
        raise ValueError(f"unknown question: a server may ask {', '.join(QUESTIONS)}")
    if kind == RESOURCE and (wrong := _never_a_uri(name)):
        raise ValueError(wrong)
    if "*" not in server and "*" not in name:
        return ToolSelector(text, f"{kind}={server}/{name}", kind=kind)
    pattern = re.compile(".*".join(map(re.escape, server.split("*"))))
    key = f"{kind}?" if "*" in server else f"{kind}/{server}"
    return ToolSelector(text, key, pattern, kind, tuple(name.split("*")))


def _never_a_uri(pattern: str) -> str:
    """Why no URI that a rule is asked about could match; empty where one could."""
    if "*" in pattern:
        fits = _URI_BEGINS.fullmatch(pattern.partition("*")[0]) is not None
        return "" if fits else "a resource's URI begins with a scheme in lower case: file:///srv/docs/*"
    doubt = doubt_about_uri(pattern)
    return "" if doubt is None else f"no call names this URI, since it is refused before any rule: {doubt.note}"


def _fits(pieces: tuple[str, ...], name: str) -> bool:
    """Whether ``name`` is the pieces with anything between them. In one pass: callers choose URIs of thousands of
    characters, and a regular expression with several asterisks would try them all against each other.
    """
    first, *middle = pieces
    if not middle:
        return name == first
    last = middle.pop()
    end = len(name) - len(last)
    at = len(first)
    if end < at or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def split_target(text: str) -> tuple[str, str, str]:
    """Kind (``mcp`` for a tool), server and name of what ``server/name``, ``resource:server/uri``, ``prompt:server/name`` or
    ``question:server/kind`` names. Raises ``ValueError`` for anything else.
    """
    kind = next((each for each in KINDS if text.startswith(f"{each}:")), "")
    server, slash, name = text.removeprefix(f"{kind}:").partition("/") if kind else text.partition("/")
    if not slash or not server or not name:
        raise ValueError("not server/name, resource:server/uri, prompt:server/name or question:server/kind")
    return kind or "mcp", server, name


def keys_of(tool: Tool) -> Iterator[str]:
    """Under which keys of an index a tool's rules are found."""
    if tool.type in KINDS:
        yield f"{tool.type}={tool.server}/{tool.name}"
        yield f"{tool.type}/{tool.server}"
        yield f"{tool.type}?"
        return
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
