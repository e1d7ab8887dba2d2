"""What records say of principals and tools: made once for each, since the same few call again and again."""

from typing import Final

from whygate.core.calls import Tool
from whygate.core.identity import Principal
from whygate.core.records import Action, Resource, Subject

REMEMBERED: Final = 4096
"""Of each kind; beyond, all are forgotten and made anew, which costs some microseconds each."""

_subjects: Final[dict[int, tuple[Principal, Subject]]] = {}
_resources: Final[dict[int, tuple[Tool, Resource]]] = {}
_actions: Final[dict[tuple[str, str, str], Action]] = {}


def subject_of(principal: Principal) -> Subject:
    """The ``subject`` of a record."""
    # By identity: a value that is kept alive here can't share its id with another, and no field has to be hashed.
    found = _subjects.get(id(principal))
    if found is not None:
        return found[1]
    made = Subject(
        credential=principal.credential,
        id=principal.id,
        issuer=principal.issuer,
        on_behalf_of=principal.on_behalf_of,
        owner=principal.owner,
        proof=principal.proof.value,
        roles=principal.roles,
        type=principal.type.value,
    )
    if len(_subjects) >= REMEMBERED:
        _subjects.clear()
    _subjects[id(principal)] = principal, made
    return made


def resource_of(tool: Tool) -> Resource:
    """The ``resource`` of a record about a tool of the catalogue."""
    found = _resources.get(id(tool))
    if found is not None:
        return found[1]
    made = Resource(definition=tool.definition, id=tool.id, server=tool.server, tier=tool.tier.value, type=tool.type)
    if len(_resources) >= REMEMBERED:
        _resources.clear()
    _resources[id(tool)] = tool, made
    return made


def action_of(protocol: str, method: str, tool: Tool | None) -> Action:
    """The ``action`` of a record."""
    key = protocol, method, tool.tool_class.value if tool is not None and tool.tool_class is not None else ""
    found = _actions.get(key)
    if found is None:
        if len(_actions) >= REMEMBERED:
            _actions.clear()
        found = _actions[key] = Action(class_=key[2], name=method, protocol=protocol)
    return found
