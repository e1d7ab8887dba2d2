"""What a rule sees of a call: the variables of its condition, and how large arguments may be."""

import datetime
from collections.abc import Callable, Iterable
from typing import Any, Final

from whygate.core.calls import Tool, ToolCall
from whygate.core.facts import Facts, TaskFacts
from whygate.core.policy.cel import VARIABLES
from whygate.core.reasons import Code

# The agent chooses what is in its arguments, and conditions run while other calls wait: loops over 256 elements take
# tens of microseconds, over 9,000 milliseconds.
MAX_ITEMS: Final = 256
MAX_TEXT_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8
MAX_TOTAL_BYTES: Final = 256 * 1024
_SCALAR_BYTES: Final = 8

_Getter = Callable[[ToolCall, Facts, Tool], Any]


class Unseen(Exception):
    """Arguments that no rule may be asked about. ``code`` and ``note`` say why."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code = code
        self.note = note


def check_args(args: Any) -> None:
    """Whether policies can be asked about these arguments. Raises ``Unseen``; never recurses below ``MAX_DEPTH``."""
    if type(args) is not dict:
        raise Unseen(Code.REQUEST_MALFORMED, "the arguments are no object")
    _size_of_object(args, 1)


def _size(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is str:
        return _size_of_text(value)
    if kind is int or kind is bool or kind is float or value is None:
        return _SCALAR_BYTES
    if kind is dict:
        return _size_of_object(value, depth)
    if kind is list:
        _bound(depth, len(value))
        total = _SCALAR_BYTES
        for each in value:
            total += _size(each, depth + 1)
            if total > MAX_TOTAL_BYTES:
                raise Unseen(Code.ARGS_TOO_LARGE, f"the arguments are above {MAX_TOTAL_BYTES} bytes")
        return total
    raise Unseen(Code.REQUEST_MALFORMED, f"the arguments hold a {kind.__name__}, which is not JSON")


def _size_of_object(value: dict[Any, Any], depth: int) -> int:
    _bound(depth, len(value))
    total = _SCALAR_BYTES
    for key, each in value.items():
        if type(key) is not str:
            raise Unseen(Code.REQUEST_MALFORMED, "the arguments hold a key that is no text")
        total += _size_of_text(key) + _size(each, depth + 1)
        if total > MAX_TOTAL_BYTES:
            raise Unseen(Code.ARGS_TOO_LARGE, f"the arguments are above {MAX_TOTAL_BYTES} bytes")
    return total


def _bound(depth: int, items: int) -> None:
    if depth > MAX_DEPTH:
        raise Unseen(Code.ARGS_TOO_LARGE, f"the arguments are nested more than {MAX_DEPTH} deep")
    if items > MAX_ITEMS:
        raise Unseen(Code.ARGS_TOO_LARGE, f"the arguments hold a list or object of more than {MAX_ITEMS} entries")


def _size_of_text(text: str) -> int:
    size = len(text)
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise Unseen(Code.REQUEST_MALFORMED, "the arguments hold a lone surrogate") from None
    if size > MAX_TEXT_BYTES:
        raise Unseen(Code.ARGS_TOO_LARGE, f"the arguments hold a text above {MAX_TEXT_BYTES} bytes")
    return size + _SCALAR_BYTES


def values(call: ToolCall, facts: Facts, tool: Tool, names: Iterable[str]) -> dict[str, Any]:
    """The variables ``names`` for one call. What is not known is left out: reading it is then an error."""
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
        check_args(call.answers)
    except Unseen:
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
