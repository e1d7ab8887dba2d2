"""CEL behind one small door: the only file that touches the engine.

1. An answer is ``True``, ``False`` or a text that says what failed. The engine's error values are truthy in Python and
   its iteration budget raises: both come out as a text here, and so does anything that is not a bool.
2. The engine's own error texts quote keys, patterns and values of the call. They are never passed on: a failure is
   told in our words, with names that stand in the rule's own source and with nothing else.
3. ``args`` is evaluated as a map, where reading an absent key is an error. (As a message type an absent number would
   read as 0, and a deny rule about it would silently never fire.)
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings

from whygate.core.policy import arguments, tree
from whygate.core.policy.document import Place

_T: Final = cel.Type
_TEXTS: Final = _T.List(_T.STRING)

# Names with a dot are declared whole: `tool.nmae` and `tool.tier > 3` are then errors at load, not at three in the
# morning. A name that has no value in a call (no task) is an error for the rules that read it.
VARIABLES: Final[dict[str, Any]] = {
    "answers": _T.Map(_T.STRING, _T.DYN),
    "args": _T.Map(_T.STRING, _T.DYN),
    "deployment": _T.STRING,
    "now": _T.TIMESTAMP,
    "principal.id": _T.STRING,
    "principal.issuer": _T.STRING,
    "principal.on_behalf_of": _T.List(_T.Map(_T.STRING, _T.STRING)),
    "principal.owner": _T.STRING,
    "principal.proof": _T.STRING,
    "principal.roles": _TEXTS,
    "principal.scopes": _TEXTS,
    "principal.type": _T.STRING,
    "task.derived": _T.BOOL,
    "task.id": _T.STRING,
    "task.incident": _T.STRING,
    "task.opened_at": _T.TIMESTAMP,
    "task.opened_by": _T.STRING,
    "task.workflow": _T.STRING,
    "tool.class": _T.STRING,
    "tool.id": _T.STRING,
    "tool.labels": _TEXTS,
    "tool.name": _T.STRING,
    "tool.server": _T.STRING,
    "tool.tier": _T.STRING,
    "tool.type": _T.STRING,
}
_HEADS: Final = frozenset(name.partition(".")[0] for name in VARIABLES)
_WORDS: Final = (
    "as break const continue else false for function if import in let loop namespace null package return true var void "
    "while"
)
RESERVED: Final = frozenset(
    (*_HEADS, *_WORDS.split(), "chain", "origin", "grants", "budgets", "cel", "optional", "strings", "math")
)
"""What a ``let`` can't be named: CEL's own words, and what rules see now or in a later version."""

JOINED: Final = 16
"""Conditions asked at once: the engine nests as deep as the sum has terms, and gives up at 32."""
_EXTENSIONS: Final = [ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
_PLACED: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '(.*)'")
_ABSENT: Final = re.compile(r'Key not found in map : "(.*)"', re.DOTALL)
_UNSET: Final = re.compile(r'No value with name "([a-z_.]+)"')
_OVERLOAD: Final = re.compile(r"No matching overloads found : (.*)", re.DOTALL)
_TYPE_WORDS: Final = frozenset(
    (
        "bool",
        "int64",
        "uint64",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null",
        "null_type",
        "timestamp",
        "duration",
    )
)
# What the engine says, and what is told of it: first match counts.
_SAID: Final = (
    ("Iteration budget exceeded", "it looks at too many elements"),
    ("Applying SELECT to", "a field is read from something that is no object"),
    ("Index error", "an index is beyond the end of a list"),
    ("divide by zero", "it divides by zero"),
    ("modulus by zero", "it divides by zero"),
    ("overflow", "a number is too large"),
    ("out of range", "a number is too large"),
    ("regular expression", "a pattern is no regular expression"),
    ("conver", "a value can't be converted"),
    ("<pos>", "a position is beyond the end of a text"),
    ("<start>", "a position is beyond the end of a text"),
)


class Wrong(msgspec.Struct, frozen=True):
    """A finding in an expression: its character, and what is wrong."""

    offset: int
    message: str


class Env:
    """What an expression may name: the variables, and the ``let`` names of one policy with their types."""

    def __init__(self, names: Mapping[str, Any] = {}) -> None:
        self._env = cel.NewEnv(variables={**VARIABLES, **names}, extensions=_EXTENSIONS)

    def check(self, source: str) -> "Checked | tuple[Wrong, ...]":
        """Compile, or say everything that the compiler says."""
        try:
            compiled = self._env.compile(source)
            return Checked(source=source, compiled=compiled, tree=tree.read(compiled.serialize()))
        except Exception as wrong:  # noqa: BLE001  the engine raises RuntimeError and whatever else: all of it is a finding
            return _findings(source, str(wrong))


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled expression with its tree."""

    source: str
    compiled: Any
    tree: tree.Node

    @property
    def type(self) -> Any:
        return self.compiled.return_type()

    @property
    def may_be_bool(self) -> bool:
        """Its type is bool, or known only when it is evaluated."""
        return self.type.name() in {"BOOL", "DYN"}

    @property
    def idents(self) -> frozenset[str]:
        """Every name that it mentions as a whole (``args``, ``tool.id``, names of its own loops)."""
        return frozenset(node.name for node in self.tree.walk() if node.kind == "ident")


BASE: Final = Env()


class Condition:
    """A condition ready to be asked."""

    __slots__ = ("_compiled", "_words", "arguments", "lets", "reads", "source", "text")

    def __init__(self, checked: Checked, source: str, lets: Mapping[str, str] = {}) -> None:
        self._compiled = checked.compiled
        self.text = checked.source
        """What was compiled: ``source`` within the ``let`` names that it may use."""
        self._words = frozenset(node.name for node in checked.tree.walk())
        self.source = source
        self.reads = checked.idents & VARIABLES.keys()
        """Which variables it needs; no others have to be given."""
        self.arguments = arguments.read_by(checked.tree)
        """Which arguments it needs."""
        self.lets = dict(lets)
        """The names that it rests on, with their expressions, in order."""

    def holds(self, activation: Any) -> bool | str:
        """``True``, ``False``, or what failed (never with a value of the call)."""
        try:
            value = self._compiled.eval(activation)
            answer = value.value()
            # A bool here is a CEL bool: no other kind of value, and no error, comes out as one.
            if answer is True or answer is False:
                return answer
            kind = value.type()
            if kind == _T.ERROR:
                return _told(str(answer), self._words)
            return f"it answers with a {kind.name().lower()}, which is neither true nor false"
        except Exception as wrong:  # noqa: BLE001  the engine raises for its budget and for values it can't hold
            return _told(str(wrong), self._words)


class Joint:
    """Some conditions in one expression, so that the engine is asked once: crossing over to it costs more than most
    conditions do. Each is a bit of a number.

    It knows only how to say that all of them are true or false. As soon as one fails, nothing is said, and each has to be
    asked by itself for what failed.
    """

    __slots__ = ("_compiled", "_size")

    def __init__(self, compiled: Any, size: int) -> None:
        self._compiled = compiled
        self._size = size

    def holds(self, activation: Any) -> list[bool | str] | None:
        """Each condition's answer, in their order; ``None`` where one of them is neither true nor false."""
        try:
            bits = self._compiled.eval(activation).value()
        except Exception:  # noqa: BLE001  as above
            return None
        if type(bits) is not int:
            return None
        return [bits >> place & 1 == 1 for place in range(self._size)]


def joint(conditions: Sequence[Condition | None]) -> Joint | None:
    """``conditions`` as one, ``None`` among them being true; ``None`` where there are too few to gain by it, or too many for the engine."""
    if not 2 <= len(conditions) <= JOINED:
        return None
    # A condition that is no bool makes the choice an error, just as it is one by itself.
    texts = ["true" if each is None else each.text for each in conditions]
    bits = [f"(({text}\n) ? {1 << place} : 0)" for place, text in enumerate(texts)]
    checked = BASE.check(" + ".join(bits))
    return Joint(checked.compiled, len(bits)) if isinstance(checked, Checked) else None


def condition(source: str, lets: Mapping[str, str]) -> Condition | tuple[Wrong, ...]:
    """A condition in which each name of ``lets`` stands for its expression.

    Each becomes a ``cel.bind`` around the condition: evaluated when first read and at most once, seen by scope and not
    by text, and an error in it is an error only where it is read. ``lets`` in the order in which they may use another.
    """
    text = source
    for name, expression in reversed(list(lets.items())):
        text = f"cel.bind({name}, ({expression}\n), {text}\n)"  # the line ends close a comment in either
    checked = BASE.check(text)
    return Condition(checked, source, lets) if isinstance(checked, Checked) else checked


def activation(values: Mapping[str, Any]) -> Any:
    """What conditions of one decision are asked with. Converts lazily, and each value at most once."""
    return BASE._env.Activation(values)  # noqa: SLF001  one door, this file


def constant_fails(function: str, text: str) -> bool:
    """Whether ``function`` fails on this constant whatever the call: a bad pattern, time, duration or time zone."""
    literal = json.dumps(text)
    if function == "matches":
        asked = f"''.matches({literal})"
    elif function in {"timestamp", "duration"}:
        asked = f"{function}({literal}) == {function}({literal})"
    else:
        asked = f"now.{function}({literal}) >= 0"
    made = BASE.check(asked)
    if not isinstance(made, Checked):
        return False
    return isinstance(Condition(made, "").holds(activation({"now": _ANY_TIME})), str)


_ANY_TIME: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _told(said: str, words: frozenset[str]) -> str:
    if (absent := _ABSENT.search(said)) is not None:
        key = absent[1]
        return f"`{key}` is absent (guard it with has())" if key in words else "a key is absent"
    if (unset := _UNSET.search(said)) is not None and unset[1] in VARIABLES:
        return f"`{unset[1]}` is not known for this call"
    if (overload := _OVERLOAD.search(said)) is not None:
        found = re.findall(r"[A-Za-z0-9_]+", overload[1])
        if len(overload[1]) < 120 and all(
            word in _TYPE_WORDS or any(word in known for known in words) for word in found
        ):
            return f"there is no such operation for these types: {overload[1].strip()}"
        return "there is no such operation for these types"
    return next((told for piece, told in _SAID if piece in said), "it could not be evaluated")


def _findings(source: str, said: str) -> tuple[Wrong, ...]:
    found = []
    for line, column, message in _PLACED.findall(said):
        text = re.sub(r" \(in container '.*?'\)", "", message).partition(" expecting {")[0].strip()
        offset = Place(int(line), int(column) - 1).offset(source)
        if (unknown := _UNDECLARED.fullmatch(text)) is not None:
            # The compiler points at the dot or the bracket after a name: point at the name.
            offset = max(source.rfind(unknown[1], 0, offset + len(unknown[1])), 0)
            text = _unknown(unknown[1])
        found.append(Wrong(offset, text))
    return tuple(found) or (Wrong(0, said.split("\n", 1)[0][:200]),)


def _unknown(name: str) -> str:
    head = name.partition(".")[0]
    known = sorted(each.partition(".")[2] for each in VARIABLES if each.startswith(f"{head}."))
    return f"unknown name `{name}`" + (f": of `{head}` a rule sees {', '.join(known)}" if known else "")
