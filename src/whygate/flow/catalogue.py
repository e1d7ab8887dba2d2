"""The tools as the operator classified and accepted them.

Rules of this file:

1. A tool of an MCP server is usable while the server says of it what was pinned. Plain HTTP operations are the operator's
   own words and count as pinned.
2. A tool that nobody classified is of high tier and its results are untrusted, whatever its server says of it.
3. A definition that differs takes the tool out of use at once; back in use it comes only by ``restore``, which whoever
   writes the record calls after it.
4. A name that is not pinned is a tool nevertheless, unpinned: whether somebody may learn that is ``decide``'s to say, and
   it never gets into a span's name.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.core import definitions
from whygate.core.calls import Standing, Tool
from whygate.core.definitions import Unreadable
from whygate.core.pins import Pin, PinSet

MAX_NEW: Final = 2_000
"""Names remembered of one server that are not pinned: none that is honest has more, and one that is not leaves the others
theirs."""
MAX_FITTING: Final = 20_000
NO_PINS: Final = PinSet({}, ())


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the configuration."""

    make: Callable[[str], Tool]
    """The tool of a name, classified."""
    names: tuple[str, ...]
    """The tools that the operator named exactly."""
    pinned: bool = False
    """Its tools are usable only as pinned: an MCP server."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A server says something else of a tool than it did before."""

    server: str
    name: str
    event: str
    """``new``, ``changed``, ``restored`` or ``gone``: see ``records.ToolRecord``."""
    definition: str = ""
    pinned: str = ""


class Catalogue:
    """Looks up tools by server and name. Owned by the event loop."""

    def __init__(self, servers: Mapping[str, Listed], pins: PinSet = NO_PINS) -> None:
        self._servers = dict(servers)
        self._known: dict[tuple[str, str], Tool] = {}
        self._differs: dict[tuple[str, str], str] = {}
        """Pinned tools of which their server says something else: its digest; empty where it can't be read."""
        self._new: dict[str, dict[str, str]] = {name: {} for name in servers}
        """By server and name: digests of what is not pinned, and was told of."""
        self._gone: set[tuple[str, str]] = set()
        self._fitting: dict[tuple[str, bytes], str] = {}
        """Hashes of what was found to be as pinned, with the tool's name: most lists say what the one before did."""
        self.tell: Callable[[Sequence[Change], str], None] = lambda _, __: None
        """Told of every change, once, and of where it was seen."""
        self.stirred: Callable[[str], None] = lambda _: None
        """Told that a server says its list is another now."""
        self.pins = pins
        self.put(pins)

    def put(self, pins: PinSet) -> None:
        """Other pins are in force from now on. What a server was last heard to say goes on to count."""
        differs, self._differs = self._differs, {}
        self.pins = pins
        self._known.clear()
        self._fitting.clear()
        for key, said in differs.items():
            pin = pins.by_tool.get(key)
            if pin is not None and pin.digest != said:
                self._differs[key] = said
        for server, said_of in self._new.items():
            for name in [name for name in said_of if (server, name) in pins.by_tool]:
                if said_of.pop(name) != pins.by_tool[server, name].digest:
                    self._differs[server, name] = ""
        for server, listed in self._servers.items():
            for name in {*listed.names, *pins.of(server)}:
                self._settle(server, name)

    def find(self, server: str, name: str) -> Tool | None:
        """The tool; ``None`` where there is no such server or the name has no tool's shape. A name that neither the
        operator nor a pin mentions gives a tool with ``known=False``.
        """
        found = self._known.get((server, name))
        if found is not None:
            return found
        listed = self._servers.get(server)
        if listed is None or definitions.NAME.fullmatch(name) is None:
            return None
        standing = Standing.UNPINNED if listed.pinned else Standing.ACCEPTED
        return msgspec.structs.replace(listed.make(name), known=False, standing=standing)

    def schema(self, tool: Tool | None) -> Any:
        """The input schema as it is pinned; ``None`` where nothing is."""
        pin = None if tool is None else self.pins.by_tool.get((tool.server, tool.name))
        return None if pin is None else pin.schema

    def by_id(self, tool_id: str) -> Tool | None:
        """The tool of an id ``server/name``."""
        server, _, name = tool_id.partition("/")
        return self.find(server, name)

    def known(self) -> list[Tool]:
        """All tools that the operator or a pin mentions, by id."""
        return sorted(self._known.values(), key=lambda tool: tool.id)

    def new(self) -> list[str]:
        """Ids of tools that their servers list and nobody has pinned."""
        return sorted(f"{server}/{name}" for server, names in self._new.items() for name in names)

    def pinned(self) -> list[tuple[Tool, Pin]]:
        """All pinned tools of the servers that there are, by id."""
        tools = [(self.find(*key), pin) for key, pin in sorted(self.pins.by_tool.items()) if key[0] in self._servers]
        return [(tool, pin) for tool, pin in tools if tool is not None]

    def listed(self, server: str, given: Sequence[bytes], cause: str = "list") -> list[bool]:
        """Take note of definitions as ``server`` lists them; for each, whether it is as pinned.

        ``cause``: ``look`` for a whole list that the gateway asked for itself, of which what is missing is gone.
        """
        if server not in self._servers:
            return [False] * len(given)
        changes: list[Change] = []
        verdicts, names, wrong = [], set(), set()
        for data in given:
            name, fits, said = self._judge(server, data)
            verdicts.append(fits)
            names.add(name)
            # Of a name that is listed twice, one that differs counts.
            if not fits and name and name not in wrong:
                wrong.add(name)
                changes += self._differing(server, name, said)
        for name in names - wrong - {""}:
            if (server, name) in self._differs:
                pin = self.pins.by_tool[server, name]
                changes.append(_change(pin, "restored", pin.digest))
        if cause == "look":
            changes += self._missing(server, names)
        if changes:
            self.tell(changes, cause)
        return verdicts

    def as_pinned(self, server: str, given: Sequence[bytes]) -> list[bool]:
        """The same for what ``server`` said some time ago: no note is taken, and what differs by now stays out."""
        judged = [self._judge(server, data) for data in given]
        return [fits and (server, name) not in self._differs for name, fits, _ in judged]

    def heard(self, server: str) -> None:
        """The server says that its list is another now: it is looked at soon."""
        if server in self._servers:
            self.stirred(server)

    def restore(self, server: str, name: str) -> None:
        """Back in use, as it is recorded that the server says what was pinned."""
        if self._differs.pop((server, name), None) is not None:
            self._settle(server, name)

    def forget(self, change: Change) -> None:
        """A change that could not be told of is to be told of again."""
        if change.event == "new":
            self._new[change.server].pop(change.name, None)
        elif change.event == "changed" and (change.server, change.name) in self._differs:
            self._differs[change.server, change.name] = ""
        self._gone.discard((change.server, change.name))

    def _judge(self, server: str, data: bytes) -> tuple[str, bool, str]:
        """Name, whether it is as pinned, and, where it is not, its digest."""
        seen = hashlib.blake2b(data, digest_size=16).digest()
        known = self._fitting.get((server, seen))
        if known is not None:
            return known, True, ""
        try:
            definition = definitions.read(data)
        except Unreadable:
            return _name_in(data), False, ""
        name = str(definition["name"])
        key = (server, name)
        pin = self.pins.by_tool.get(key)
        try:
            said = definitions.digest(definition)
            fits = pin is not None and (said == pin.digest or definitions.fits(definition, pin.definition))
        except Unreadable:
            return name, False, ""
        if fits:
            if len(self._fitting) >= MAX_FITTING:
                self._fitting.clear()
            self._fitting[server, seen] = name
        return name, fits, said

    def _differing(self, server: str, name: str, said: str) -> Iterable[Change]:
        key = (server, name)
        pin = self.pins.by_tool.get(key)
        if pin is None:
            told = self._new[server]
            if told.get(name) != said and (name in told or len(told) < MAX_NEW):
                told[name] = said
                yield Change(server=server, name=name, event="new", definition=said)
        elif key not in self._differs or (said and self._differs[key] != said):
            self._differs[key] = said
            self._settle(server, name)
            yield _change(pin, "changed", said)

    def _missing(self, server: str, names: set[str]) -> Iterable[Change]:
        for name, pin in self.pins.of(server).items():
            if name in names:
                self._gone.discard((server, name))
            elif (server, name) not in self._gone:
                self._gone.add((server, name))
                yield _change(pin, "gone", "")

    def _settle(self, server: str, name: str) -> None:
        """Make the tool anew from what is known of it."""
        listed = self._servers.get(server)
        if listed is None or definitions.NAME.fullmatch(name) is None:
            return
        made = listed.make(name)
        if listed.pinned:
            pin = self.pins.by_tool.get((server, name))
            standing = Standing.UNPINNED
            if pin is not None:
                standing = Standing.CHANGED if (server, name) in self._differs else Standing.ACCEPTED
                made = msgspec.structs.replace(made, definition=pin.digest, accepts=pin.accepts)
            made = msgspec.structs.replace(made, standing=standing)
        self._known[server, name] = made


def _change(pin: Pin, event: str, said: str) -> Change:
    return Change(server=pin.server, name=pin.name, event=event, definition=said, pinned=pin.digest)


class _Named(msgspec.Struct):
    name: str


def _name_in(data: bytes) -> str:
    """The name in what can't be read otherwise; empty where there is none that a tool can have."""
    try:
        name = msgspec.json.decode(data, type=_Named).name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:  # what only a lenient reader takes, NaN for one, a client may take as well
            name = str(json.loads(data)["name"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
    return name if definitions.NAME.fullmatch(name) is not None else ""
