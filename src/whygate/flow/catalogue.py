"""The tools as the operator classified them.

A tool that nobody classified is of high tier, its results are untrusted, and only rules that name it (or everything)
can permit it. A name that neither the operator nor the upstream ever mentioned is answered like any other that no rule
permits, so that nobody can tell a hidden tool from one that does not exist; it only never gets into a span's name.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from whygate.core.calls import Tool

_NAME: Final = re.compile(r"[A-Za-z0-9_.:/\-]{1,128}")
MAX_LEARNED: Final = 2_000
"""Names remembered of one server: none that is honest has more, and one that is not leaves the others theirs."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the configuration."""

    make: Callable[[str], Tool]
    """The tool of a name, classified."""
    names: tuple[str, ...]
    """The tools that the operator named exactly."""


class Catalogue:
    """Looks up tools by server and name. Owned by the event loop."""

    def __init__(self, servers: Mapping[str, Listed]) -> None:
        self._servers = dict(servers)
        self._known: dict[tuple[str, str], Tool] = {}
        self._counts: Counter[str] = Counter()
        for server, listed in self._servers.items():
            self.learn(server, listed.names)

    def find(self, server: str, name: str) -> Tool | None:
        """The tool; ``None`` where there is no such server or the name has no tool's shape. A name that only a caller
        ever used gives a tool with ``known=False``.
        """
        found = self._known.get((server, name))
        if found is not None:
            return found
        listed = self._servers.get(server)
        if listed is None or _NAME.fullmatch(name) is None:
            return None
        return msgspec.structs.replace(listed.make(name), known=False)

    def by_id(self, tool_id: str) -> Tool | None:
        """The tool of an id ``server/name``."""
        server, _, name = tool_id.partition("/")
        return self.find(server, name)

    def learn(self, server: str, names: Iterable[str]) -> None:
        """Remember names that the operator or the upstream itself mentioned."""
        listed = self._servers.get(server)
        if listed is None:
            return
        for name in names:
            if (server, name) not in self._known and self._counts[server] < MAX_LEARNED and _NAME.fullmatch(name):
                self._known[server, name] = listed.make(name)
                self._counts[server] += 1

    def known(self) -> list[Tool]:
        """All tools mentioned so far, by id."""
        return sorted(self._known.values(), key=lambda tool: tool.id)
