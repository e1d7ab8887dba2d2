"""Pins: the definitions of tools that an operator has accepted, as files that can be reviewed.

Rules of this file:

1. One file per server. A tool is pinned by server and name together: a definition that appears under another name is a
   new tool.
2. Loading is all or nothing. What was edited by hand without its digest is an error, not a pin.
3. A definition whose input schema can't be kept to can't be pinned.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from whygate.core import definitions, schemas
from whygate.core.definitions import Unreadable
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.schemas import Unusable, Validator

VERSION: Final = 1
ENDING: Final = ".json"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """One tool as it was accepted."""

    server: str
    definition: Mapping[str, Any]
    digest: str
    by: str
    """Who pinned it, in their own words."""
    at: str
    """When: RFC 3339, UTC."""
    accepts: Validator

    @property
    def name(self) -> str:
        return str(self.definition["name"])

    @property
    def schema(self) -> Any:
        return self.definition.get("inputSchema")


def pin(server: str, definition: Mapping[str, Any], *, by: str, at: str) -> Pin:
    """A definition, accepted. Raises ``Unusable`` where its schema can't be kept to, ``Unreadable`` where it can't be
    written down.
    """
    return Pin(
        server=server,
        definition=definition,
        digest=definitions.digest(definition),
        by=by,
        at=at,
        accepts=schemas.of_tool(definition.get("inputSchema")),
    )


class PinSet:
    """All pins in force. Equal to another by its digest."""

    def __init__(self, texts: Mapping[str, str], pins: Iterable[Pin]) -> None:
        self.texts = dict(sorted(texts.items()))
        self.digest = digest_of(texts)
        self.by_tool: dict[tuple[str, str], Pin] = {(one.server, one.name): one for one in pins}

    def __repr__(self) -> str:
        return f"PinSet({len(self.by_tool)} tools, {self.digest[:19]})"

    def of(self, server: str) -> dict[str, Pin]:
        """The pins of one server by the tool's name, sorted."""
        return {name: one for (at, name), one in sorted(self.by_tool.items()) if at == server}


def load(texts: Mapping[str, str]) -> PinSet:
    """The set of all ``texts`` (file name to text). Raises ``PolicyErrors`` with every finding."""
    found: list[Pin] = []
    errors: list[PolicyError] = []
    for file, text in sorted(texts.items()):
        found += _of_file(file, text, errors)
    if errors:
        raise PolicyErrors(tuple(sorted(errors)))
    return PinSet(texts, found)


def text_of(server: str, pins: Iterable[Pin]) -> str:
    """The file of one server. The same pins give the same text."""
    tools = {one.name: {"at": one.at, "by": one.by, "definition": one.definition, "digest": one.digest} for one in pins}
    return definitions.pretty({"pins": VERSION, "server": server, "tools": tools}) + "\n"


def digest_of(texts: Mapping[str, str]) -> str:
    """``sha256:`` and 64 hex digits over the files, sorted by name, each as length-prefixed name and text."""
    hashed = hashlib.sha256(b"whygate pin set 1\n")
    for both in sorted(texts.items()):
        for piece in both:
            data = piece.encode()
            hashed.update(b"%d:" % len(data) + data)
    return "sha256:" + hashed.hexdigest()


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str
    by: str
    definition: dict[str, Any]
    digest: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pins: int
    server: str
    tools: dict[str, _Row]


def _of_file(file: str, text: str, errors: list[PolicyError]) -> list[Pin]:
    try:
        made = msgspec.convert(json.loads(text, object_pairs_hook=_once), _File)
    except json.JSONDecodeError as wrong:
        errors.append(PolicyError(file=file, line=wrong.lineno, column=wrong.colno, message=f"is no JSON: {wrong.msg}"))
        return []
    except (msgspec.ValidationError, Unreadable, RecursionError) as wrong:
        what = str(wrong) if isinstance(wrong, Unreadable) else f"is no file of pins: {wrong}"
        errors.append(PolicyError(file=file, line=1, column=1, message=what[:300]))
        return []
    if made.pins != VERSION:
        errors.append(PolicyError(file=file, line=1, column=1, message=f"pins: {VERSION} is what this version reads"))
        return []
    if file != made.server + ENDING:
        what = f"holds pins of {made.server!r}: the file of a server is named after it"
        errors.append(PolicyError(file=file, line=1, column=1, message=what))
        return []
    found = []
    for name, row in made.tools.items():
        try:
            found.append(_of_row(made.server, name, row))
        except (Unusable, Unreadable) as wrong:
            errors.append(_at(file, text, name, f"{name}: {wrong}"))
    return found


def _of_row(server: str, name: str, row: _Row) -> Pin:
    if definitions.NAME.fullmatch(name) is None:
        raise Unreadable("its name is none that a tool can have")
    if row.definition.get("name") != name:
        raise Unreadable("its definition is another tool's")
    made = pin(server, row.definition, by=row.by, at=row.at)
    if made.digest != row.digest:
        raise Unreadable("its definition was edited: pin what the server says with `whygate tools pin`")
    return made


def _at(file: str, text: str, name: str, message: str) -> PolicyError:
    """A finding at the line on which a tool begins, as ``text_of`` writes it."""
    index = max(text.find(f"\n    {json.dumps(name)}: {{") + 1, 0)
    return PolicyError(file=file, line=text.count("\n", 0, index) + 1, column=5 if index else 1, message=message)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable("has a key twice")
    return made
