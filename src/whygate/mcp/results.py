"""What is looked at in a server's answers before they are passed on.

Rules of this file:

1. Lists are filtered, definitions of tools compared with their pins, and what else they name is learnt. A list that can't be read is not shown.
2. A handle in an answer is bound to whoever gets it: a task's id is remembered, a request's state sealed.
3. A question in an answer is decided before the answer is passed on: whoever calls has to find out (``Undecided``).
4. What a task gave in the end is a tool's result: the decision in its ``_meta`` is ours as well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from whygate.core.calls import ToolCall
from whygate.core.identity import Principal
from whygate.core.things import PROMPT, RESOURCE, doubt_about_name, doubt_about_uri
from whygate.flow.ports import Gate
from whygate.mcp import asking, lists, splices, things
from whygate.mcp.asking import UNREADABLE, Question
from whygate.mcp.backend import Catalogue
from whygate.mcp.envelope import OURS, Envelope, Parts
from whygate.mcp.methods import LISTS, REQUESTS, How
from whygate.mcp.own_tools import OWN
from whygate.mcp.targets import Targets

PLAIN: Final = frozenset(("content", "isError", "structuredContent", "_meta", "resultType", "contents", "messages"))
"""Members of a result with nothing in it to look at, provided that it is complete."""
LIST_CHANGED: Final = b"notifications/tools/list_changed"
COMPLETE: Final = b'"complete"'
URL_REQUIRED: Final = "-32042"
"""2025-11-25: the call needs its user to visit a page first."""

_KINDS: Final[Mapping[str, str]] = {"resources": RESOURCE, "resourceTemplates": RESOURCE, "prompts": PROMPT}
_WATCHED: Final = {
    name.casefold(): name for name in ("resultType", "inputRequests", "requestState", "task", "taskId", "result")
}
_NONE: Final = msgspec.Raw(b"[]")
_encode: Final = msgspec.json.Encoder().encode


class _Task(msgspec.Struct):
    task: str = msgspec.field(default="", name="taskId")


_TASK: Final = msgspec.json.Decoder(_Task)
_TEXT: Final = msgspec.json.Decoder(str)


class Undecided(Exception):
    """The answer asks for something, and it is not decided yet whether it may."""

    def __init__(self, found: Sequence[Question]) -> None:
        super().__init__(f"{len(found)} questions")
        self.questions = found


class Results:
    """What all answers are looked at with. Owned by the event loop."""

    def __init__(self, gate: Gate, catalogue: Catalogue, targets: Targets) -> None:
        self._gate = gate
        self._catalogue = catalogue
        self._targets = targets

    def listed(self, call: ToolCall, member: str, result: Parts, *, modern: bool) -> tuple[dict[str, Any], int] | None:
        """A list as the caller may see it, and how many entries it may not; ``None`` where it can't be read."""
        if member in _KINDS:
            self._targets.learn(call.server, _KINDS[member], things.names(result, member))
        return self._filtered(result, member, call.server, call.principal, modern=modern)

    def news(self, server: str, data: bytes) -> None:
        """A notification came: where it is about the list of tools, what it says now is looked at soon."""
        if LIST_CHANGED in data:
            self._catalogue.heard(server)

    def replayed(self, data: bytes, server: str, principal: Principal) -> bytes | None:
        """For a stream that was taken up again: a response with a list, filtered like the first time; ``None`` where
        ``data`` is anything else.
        """
        message = splices.opened(data)
        if message is None or message.method or not message.result:
            return None
        result = splices.members(message.result)
        members = () if result is None else sorted(LISTS & result.keys())
        if result is None or not members:
            return None
        for member in members:
            shown = self._filtered(result, member, server, principal, modern=False, late=True)
            # What can't be filtered was never shown as a list, and is not now.
            result = {**result, member: _NONE} if shown is None else shown[0]
        whole: dict[str, Any] = splices.members(data) or {}
        whole["result"] = result
        return _encode(whole)

    def _filtered(
        self, result: Parts, member: str, server: str, principal: Principal, *, modern: bool, late: bool = False
    ) -> tuple[dict[str, Any], int] | None:
        if member == "tools":
            judged = judge(self._catalogue, server, late=late)
            return lists.filtered(result, sight(self._gate, principal, server), judged, modern=modern)
        return things.filtered(result, member, self._sight(server, principal, member), modern=modern)

    def _sight(self, server: str, principal: Principal, member: str) -> Callable[[str], bool]:
        """Whether this principal may see a resource, a template, a prompt or a task of this server."""
        if member == "tasks":
            return lambda task: self._targets.handles.usable(server, task, principal)
        kind = _KINDS[member]
        doubt = doubt_about_uri if kind == RESOURCE else doubt_about_name
        # What would be refused before any rule is nothing that a rule could permit.
        return lambda name: doubt(name) is None and self._gate.shows(principal, self._targets.thing(server, kind, name))

    def bound(self, call: ToolCall, envelope: Envelope, made: dict[str, Any], decision: bytes) -> None:
        """Bind the handles in a result that is passed on, in place, and mark a task's result."""
        if (state := _text(made.get("requestState"))) is not None:
            made["requestState"] = self._targets.seal_state(call.server, call.principal, envelope, state)
        row = REQUESTS.get(envelope.method)
        if row is None or row.how is not How.HANDLE:
            self._bind(call, made)
        elif "result" in made:
            made["result"] = _marked(made["result"], decision)

    def _bind(self, call: ToolCall, made: dict[str, Any]) -> None:
        """A task that a call became: ``taskId`` itself (SEP-2663), or in a ``task`` (2025-11-25)."""
        for raw in (made.get("task"), _encode({"taskId": made["taskId"]}) if "taskId" in made else None):
            if raw is None:
                continue
            try:
                task = _TASK.decode(raw).task
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                continue
            self._targets.handles.bind(call.server, task, call.principal, call.tool)


def questions(made: Mapping[str, msgspec.Raw]) -> Sequence[Question]:
    """What a result asks of the client."""
    if any(_WATCHED.get(key.casefold(), key) != key for key in made):
        return (UNREADABLE,)  # to a client that does not mind case it could ask something else
    return asking.in_result(made["inputRequests"]) if "inputRequests" in made else ()


def asked_in(message: splices.Message) -> Sequence[Question]:
    """What a response asks of the client, be it a result or an error."""
    found: list[Question] = []
    if message.error and splices.error_code(message.error) == URL_REQUIRED:
        found += asking.in_error(message.error)
    if message.result and (result := splices.members(message.result)) is not None:
        found += questions(result)
    return found


def sight(gate: Gate, principal: Principal, server: str) -> Callable[[str], bool]:
    """Whether this principal may see a tool of this server, by the tool's name."""
    return lambda name: gate.visible(principal, f"{server}/{name}")


def judge(catalogue: Catalogue, server: str, *, late: bool = False) -> lists.Judge:
    """Whether what this server lists is as pinned; it takes note of what is not. ``late``: what the server said some time
    ago, from which nothing follows about what it says by now.
    """
    if server == OWN:
        return lambda given: [True] * len(given)
    return lambda given: catalogue.as_pinned(server, given) if late else catalogue.listed(server, given)


def failed_within(made: dict[str, Any]) -> bool:
    """Whether the tool's result in a task's answer is an error of the tool's."""
    inner = splices.members(made["result"]) if isinstance(made.get("result"), msgspec.Raw) else None
    return inner is not None and bytes(inner.get("isError", b"")) == b"true"


def _marked(raw: msgspec.Raw, decision: bytes) -> msgspec.Raw:
    inner: dict[str, Any] | None = splices.members(raw)
    if inner is None:
        return raw
    meta: dict[str, Any] = (splices.members(inner["_meta"]) if "_meta" in inner else None) or {}
    inner["_meta"] = {key: value for key, value in meta.items() if not key.startswith(OURS)} | {
        splices.DECISION_KEY: msgspec.Raw(decision)
    }
    return msgspec.Raw(_encode(inner))


def _text(raw: msgspec.Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return _TEXT.decode(raw)
    except msgspec.DecodeError:
        return None
