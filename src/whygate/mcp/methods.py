"""The methods of MCP that pass here, and how each is decided: the one table. What is not in it is refused.

Rules of this file:

1. Pure, and closed: a method that we have not read about can act in ways that no rule was asked about. Extensions' methods
   are no exception.
2. ``OPEN`` is every method that each authenticated, active caller may use: it names nothing of the server's, or only what a
   filter goes over before it is shown.
3. ``GLANCED`` is decided like the rest, and recorded only where it is refused (``docs/decisions/0014``).
4. What a server asks of a client is not in here: ``asking``.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec


class How(StrEnum):
    """What is decided about a method."""

    OPEN = "open"
    GLANCED = "glanced"
    TOOL = "tool"
    RESOURCE = "resource"
    PROMPT = "prompt"
    COMPLETION = "completion"
    """As the prompt or the resource template that it is about."""
    LISTEN = "listen"
    """Each resource as if it were read, each task as if it were asked for; news of lists are open."""
    HANDLE = "handle"
    """Open to whoever was given the handle."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    how: How
    needs: str = ""
    """A parameter that must be there, and a text."""
    arguments: bool = False
    """It takes ``arguments``."""
    legacy: bool = False
    """2026-07-28 has taken it out."""
    mirrored: bool = False
    """Header ``Mcp-Name`` repeats it (2026-07-28, basic/transports; SEP-2663 for tasks)."""
    shows: str = ""
    """The member of its result that is cut down to what the caller may use."""


LISTEN: Final = "subscriptions/listen"
"""A request that lasts: it is a stream of news."""
REQUESTS: Final[Mapping[str, Method]] = {
    "initialize": Method(how=How.OPEN, legacy=True),
    "server/discover": Method(how=How.OPEN),
    "ping": Method(how=How.GLANCED, legacy=True),
    "logging/setLevel": Method(how=How.OPEN, legacy=True),
    "tools/list": Method(how=How.OPEN, shows="tools"),
    "tools/call": Method(how=How.TOOL, needs="name", arguments=True, mirrored=True),
    "resources/list": Method(how=How.OPEN, shows="resources"),
    "resources/templates/list": Method(how=How.OPEN, shows="resourceTemplates"),
    "resources/read": Method(how=How.RESOURCE, needs="uri", mirrored=True),
    "resources/subscribe": Method(how=How.RESOURCE, needs="uri", legacy=True),
    "resources/unsubscribe": Method(how=How.RESOURCE, needs="uri", legacy=True),
    "prompts/list": Method(how=How.OPEN, shows="prompts"),
    "prompts/get": Method(how=How.PROMPT, needs="name", arguments=True, mirrored=True),
    "completion/complete": Method(how=How.COMPLETION),
    LISTEN: Method(how=How.LISTEN),
    "tasks/list": Method(how=How.OPEN, shows="tasks", legacy=True),
    "tasks/get": Method(how=How.HANDLE, needs="taskId", mirrored=True),
    "tasks/result": Method(how=How.HANDLE, needs="taskId", legacy=True),
    "tasks/update": Method(how=How.HANDLE, needs="taskId", mirrored=True),
    "tasks/cancel": Method(how=How.HANDLE, needs="taskId", mirrored=True),
}
NOTIFICATIONS: Final = frozenset(
    (
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    )
)
"""Of clients. All are ``GLANCED``."""
RESPONSE: Final = "response"
"""What a record calls a client's answer to a server's question, which has no method of its own."""
LISTS: Final = frozenset(row.shows for row in REQUESTS.values() if row.shows)
MAX_LISTENED: Final = 64
"""Resources and tasks in one ``subscriptions/listen``: each is a decision and a record."""

_NOTHING: Final[Mapping[str, Any]] = {}
_REFS: Final = {"ref/prompt": "name", "ref/resource": "uri"}


def fits(method: str, params: Mapping[str, Any]) -> str:
    """What is wrong with the parameters that decisions rest on; empty where nothing is."""
    if "inputResponses" in params and not isinstance(params["inputResponses"], dict):
        return "inputResponses is not an object"
    if "requestState" in params and not isinstance(params["requestState"], str):
        return "requestState is not a text"
    row = REQUESTS.get(method)
    if row is None:
        return ""
    if row.needs and not isinstance(params.get(row.needs), str):
        return f"{method} names no {row.needs}"
    if row.arguments and not isinstance(params.get("arguments", _NOTHING), dict):
        return "arguments is not an object"
    if row.how is How.COMPLETION:
        return _completion(params)
    return _listen(params) if row.how is How.LISTEN else ""


def _completion(params: Mapping[str, Any]) -> str:
    ref, argument, context = params.get("ref"), params.get("argument"), params.get("context", {})
    if not isinstance(ref, dict) or not isinstance(ref.get(_REFS.get(str(ref.get("type")), "")), str):
        return "completion/complete refers to neither a prompt nor a resource"
    if not isinstance(argument, dict) or not isinstance(argument.get("name"), str):
        return "completion/complete names no argument"
    if not isinstance(context, dict) or not isinstance(context.get("arguments", {}), dict):
        return "the context is not an object"
    return ""


def _listen(params: Mapping[str, Any]) -> str:
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        return "subscriptions/listen names no notifications"
    for key, value in wanted.items():
        if key in NAMED_NEWS:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                return f"{key} is no list of texts"
        elif not isinstance(value, bool):
            # An extension's filter would name something that nobody decides on.
            return "a filter that is not known here"
    return ""


NAMED_NEWS: Final = ("resourceSubscriptions", "taskIds")
"""Filters of ``subscriptions/listen`` that name something: resources, and (SEP-2663) tasks."""
