"""What a rule sees of a call: the variables of its condition."""

import datetime
from collections.abc import Callable, Iterable
from typing import Any, Final

from whygate.core.calls import Tool, ToolCall
from whygate.core.facts import Facts, TaskFacts
from whygate.core.policy import arguments
from whygate.core.policy.cel import VARIABLES

_Getter = Callable[[ToolCall, Facts, Tool], Any]


def values(call: ToolCall, facts: Facts, tool: Tool, names: Iterable[str]) -> dict[str, Any]:
    """The variables ``names`` for one call. What is not known is left out: reading it is then an error. ``args`` are all
    of them: see ``arguments.view``.
    """
    made = {}
    for name in names:
        value = _GETTERS[name](call, facts, tool)
        if value is not None:
            made[name] = value
    return made


def _task(read: Callable[[TaskFacts], Any]) -> _Getter:
    return lambda _, facts, __: None if facts.task is None else read(facts.task)


def _utc(when: datetime.datetime) -> datetime.datetime:
    return when.astimezone(datetime.UTC)


def _answers(call: ToolCall, _: Facts, __: Tool) -> Any:
    """Left out where they are too large: a person's or a model's answer is nobody's fault, unless a rule depends on it."""
    try:
        arguments.view(call.answers, arguments.Part.VALUE)
    except arguments.Unseen:
        return None
    return call.answers


_GETTERS: Final[dict[str, _Getter]] = {
    "answers": _answers,
    "args": lambda call, _, __: call.args,
    "deployment": lambda _, facts, __: facts.deployment,
    "now": lambda _, facts, __: facts.now,
    "principal.id": lambda call, _, __: call.principal.id,
    "principal.issuer": lambda call, _, __: call.principal.issuer,
    "principal.on_behalf_of": lambda call, _, __: [
        {"id": actor.id, "issuer": actor.issuer, "type": actor.type.value} for actor in call.principal.on_behalf_of
    ],
    "principal.owner": lambda call, _, __: call.principal.owner,
    "principal.proof": lambda call, _, __: call.principal.proof.value,
    "principal.roles": lambda call, _, __: list(call.principal.roles),
    "principal.scopes": lambda call, _, __: list(call.principal.scopes),
    "principal.type": lambda call, _, __: call.principal.type.value,
    "task.derived": _task(lambda task: task.derived),
    "task.id": _task(lambda task: task.id),
    "task.incident": _task(lambda task: task.incident),
    "task.opened_at": _task(lambda task: _utc(task.opened_at)),
    "task.opened_by": _task(lambda task: task.opened_by),
    "task.workflow": _task(lambda task: task.workflow),
    "tool.class": lambda _, __, tool: "" if tool.tool_class is None else tool.tool_class.value,
    "tool.id": lambda _, __, tool: tool.id,
    "tool.labels": lambda _, __, tool: list(tool.labels),
    "tool.name": lambda _, __, tool: tool.name,
    "tool.server": lambda _, __, tool: tool.server,
    "tool.tier": lambda _, __, tool: tool.tier.value,
    "tool.type": lambda _, __, tool: tool.type,
}
if _GETTERS.keys() != VARIABLES.keys():
    raise AssertionError("every variable that a rule may name has a value, and the other way round")
