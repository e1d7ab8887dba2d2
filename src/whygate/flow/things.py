"""How the record of a decision shows what is no tool."""

from collections.abc import Callable

from whygate.core.calls import Tool, ToolCall
from whygate.core.records import Resource
from whygate.core.things import QUESTION, RESOURCE, shown_uri


def thing_of(call: ToolCall, tool: Tool, *, allows: bool, digest: Callable[[bytes], str]) -> Resource:
    """The ``resource`` of a record. What only a caller named, and was refused, is no id; of a page that a server wanted its
    client's user to open, the host is in ``asked``.
    """
    if tool.type == QUESTION:
        return Resource(asked=call.asked, id=tool.id, server=tool.server, type=tool.type)
    name, whole = tool.name, ""
    if tool.type == RESOURCE:
        name = shown_uri(tool.name)
        whole = "" if name == tool.name else digest(tool.name.encode())
    if tool.known or allows:
        return Resource(
            digest=whole, id=f"{tool.server}/{name}", server=tool.server, tier=tool.tier.value, type=tool.type
        )
    return Resource(asked=name, digest=whole, server=tool.server, type=tool.type)
