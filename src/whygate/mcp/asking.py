"""What a server asks of the client: a form or a page for its user, its model's words, its roots.

A server is a guest in the conversation between an agent and its user: a question that comes from it looks as if it came from
the agent. So a question is decided like a call, by selectors ``question:server/kind``, and what no rule permits is not asked.

Rules of this file:

1. Pure. A message, a result or an error of a server goes in; the questions in it come out, as a rule may look at them.
2. What can't be read as one message is not shown: a client that is more lenient could take it for a question.
3. A page has a host that everybody reads alike, and is encrypted; else no rule is asked.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from whygate.core.strict_json import Unreadable, loads
from whygate.core.things import ELICITATION, PAGE, ROOTS, SAMPLING, TASKS

KINDS: Final[Mapping[str, str]] = {
    "elicitation/create": ELICITATION,
    "sampling/createMessage": SAMPLING,
    "roots/list": ROOTS,
    # 2025-11-25: a client may answer with a task, which the server then follows.
    "tasks/get": TASKS,
    "tasks/result": TASKS,
    "tasks/cancel": TASKS,
    "tasks/list": TASKS,
}
"""Methods that a server may call on a client, and what a rule calls them. An elicitation that leads to a page is a ``page``."""

_URL: Final = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:[/?#][!-\[\]-~]*)?")
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]")
_FOLDED: Final = ("mode", "url", "method", "params", "id", "result", "error")
_LONG: Final = frozenset(("messages", "tools", "systemPrompt", "_meta", "metadata"))
"""What a rule does not see of a question: texts for a model, which are as long as they like."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a server sends to the client."""

    id: int | str | None = None
    method: str
    params: dict[str, Any] = {}


UNREADABLE: Final = Question(method="")
"""Stands for questions that are there and can't be read."""


class Wanted(NamedTuple):
    """A question as it is decided about."""

    kind: str
    args: dict[str, Any]
    host: str = ""
    """Of a page, as far as it can be read. Untrusted."""
    wrong: str = ""
    """Why no rule may be asked about it."""


class _Note(msgspec.Struct, forbid_unknown_fields=True):
    """A message with no other members than a notification has, as they are spelt."""

    jsonrpc: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"")


_NOTE: Final = msgspec.json.Decoder(_Note)


def read(data: bytes) -> Question | bool:
    """The question in a server's message; else whether it is a notification or a ping (which may pass) and not something
    that nobody can read, or that answers a request of somebody else.
    """
    if _is_note(data):
        return True
    value = _readable(data)
    if not isinstance(value, dict) or not _spelt(value):
        return False
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict) or "result" in value or "error" in value:
        return False
    if method == "ping" or (method.startswith("notifications/") and "id" not in value):
        return True
    identity = value.get("id")
    known = isinstance(identity, int | str) and not isinstance(identity, bool)
    return Question(id=identity if known else None, method=method, params=params)


def is_harmless(data: bytes) -> bool:
    """Whether the body of an error can be passed on: text, or JSON that nobody can take for a message that asks."""
    if data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] not in (b"{", b"["):
        return True
    value = _readable(data)
    return isinstance(value, dict) and not any(key.strip().casefold() == "method" for key in value)


def in_result(raw: msgspec.Raw) -> list[Question]:
    """The questions of a result's ``inputRequests`` (2026-07-28)."""
    found = _readable(raw)
    if not isinstance(found, dict):
        return [UNREADABLE]
    return [_question(each, each.get("method"), each.get("params", {})) for each in map(_object, found.values())]


def in_error(raw: msgspec.Raw) -> list[Question]:
    """The pages that an error of code -32042 asks for (2025-11-25, "URL Elicitation Required Error")."""
    asked = _object(_object(_readable(raw)).get("data")).get("elicitations")
    if not isinstance(asked, list):
        return [UNREADABLE]
    return [_question(each, "elicitation/create", each) for each in map(_object, asked)]


def wanted(question: Question) -> Wanted:
    """What it asks for, as a rule may look at it: without long texts, and with a page's ``host`` read out by us."""
    kind = KINDS.get(question.method, "")
    args = {name: value for name, value in question.params.items() if name not in _LONG}
    if not kind:
        return Wanted("", {}, wrong="no method of clients that is known here, or a question that can't be read")
    if kind != ELICITATION:
        return Wanted(kind, args)
    if not _spelt(args):
        return Wanted(kind, args, wrong="a parameter's name is spelt in another case")
    mode = args.get("mode", "form")
    if mode == "form" and "url" not in args:
        return Wanted(kind, args)
    if mode != "url":
        return Wanted(kind, args, _host(args.get("url")), "an elicitation that is neither form nor page")
    match = _URL.fullmatch(args["url"]) if isinstance(args.get("url"), str) else None
    if match is None:
        return Wanted(
            PAGE, args, _host(args.get("url")), "its page is no plain http or https URL with its host in lower case"
        )
    host = match[2]
    plain = match[1] != "https" and _LOOPBACK.fullmatch(host) is None
    return Wanted(PAGE, args | {"host": host}, host[:128], "its page is not encrypted" if plain else "")


def _is_note(data: bytes) -> bool:
    """Whether this is plainly a notification. What it holds is the server's affair, and need not be as strict as a
    question's: a log's lines may have keys that differ in case only.
    """
    if data.count(b'"method"') != 1:
        return False
    try:
        note = _NOTE.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return note.method.startswith("notifications/")


def _readable(data: bytes | msgspec.Raw) -> Any:
    """JSON that everybody reads alike; ``None`` for anything else."""
    try:
        return loads(bytes(data), forwarded=True)
    except Unreadable:
        return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _question(whole: Mapping[str, Any], method: Any, params: Any) -> Question:
    if not isinstance(method, str) or not isinstance(params, dict) or not _spelt(whole) or KINDS.get(method) == TASKS:
        return UNREADABLE
    return Question(method=method, params=params)


def _host(url: Any) -> str:
    """What stands in a host's place, for the record of a page that was refused."""
    match = re.match(r"[A-Za-z]+://([^/?#]{1,200})", url) if isinstance(url, str) else None
    return "" if match is None else match[1].rpartition("@")[2][:128]


def _spelt(value: Mapping[str, Any]) -> bool:
    """Clients that match members without regard to case must read the same message as we do."""
    return all(key in _FOLDED or key.casefold() not in _FOLDED for key in value)
