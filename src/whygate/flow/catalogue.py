"""The tools as the operator classified them.

A tool that nobody classified is of high tier, its results are untrusted, and only rules that name it (or everything)
can permit it. A name that neither the operator nor the upstream ever mentioned is answered like any other that no rule
permits, so that nobody can tell a hidden tool from one that does not exist; it only never gets into a span's name.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from whygate.core.calls import Tier, Tool, ToolClass

_NAME: Final = re.compile(r"^[A-Za-z0-9_.:/\-]{1,128}$")
MAX_LEARNED: Final = 10_000
"""Names remembered for each server: no honest server has more."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says about the tools whose names match a pattern."""

    pattern: str
    tool_class: ToolClass | None = None
    tier: Tier = Tier.HIGH
    labels: tuple[str, ...] = ("untrusted",)


class Catalogue:
    """Looks up tools by server and name. Owned by the event loop."""

    def __init__(self, servers: Mapping[str, tuple[str, tuple[Classification, ...]]]) -> None:
        """``servers``: name to protocol (``mcp`` or ``http``) and classifications; an exact name wins over a glob, and
        among globs the first.
        """
        self._servers = dict(servers)
        self._known: dict[tuple[str, str], Tool] = {}
        for server, (_, classes) in self._servers.items():
            self.learn(server, [one.pattern for one in classes if not any(mark in one.pattern for mark in "*?[")])

    def find(self, server: str, name: str) -> Tool | None:
        """The tool, ``None`` where there is no such server or the name has no tool's shape. An unlearned name gives a
        tool with ``known=False``.
        """
        found = self._known.get((server, name))
        if found is not None:
            return found
        if server not in self._servers or _NAME.match(name) is None:
            return None
        return self._make(server, name, known=False)

    def by_id(self, tool_id: str) -> Tool | None:
        """The tool of an id ``server/name``."""
        server, _, name = tool_id.partition("/")
        return self.find(server, name)

    def learn(self, server: str, names: Iterable[str]) -> None:
        """Remember names that the operator or the upstream itself mentioned."""
        for name in names:
            if (server, name) in self._known or _NAME.match(name) is None or len(self._known) > MAX_LEARNED:
                continue
            self._known[server, name] = self._make(server, name, known=True)

    def known(self) -> list[Tool]:
        """All tools mentioned so far, by id."""
        return sorted(self._known.values(), key=lambda tool: tool.id)

    def _make(self, server: str, name: str, *, known: bool) -> Tool:
        protocol, classes = self._servers[server]
        exact = [one for one in classes if one.pattern == name]
        globs = [one for one in classes if fnmatch.fnmatchcase(name, one.pattern)]
        chosen = (exact or globs or [Classification(pattern="*")])[0]
        return Tool(
            server=server,
            name=name,
            type=protocol,
            tool_class=chosen.tool_class,
            tier=chosen.tier,
            labels=chosen.labels,
            known=known,
        )
