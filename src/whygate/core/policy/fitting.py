"""Whether rules can be right for the tools that are pinned: their conditions, checked with the types of the arguments.

Rules of this file:

1. Each condition is compiled a second time, with a type in the place of every argument that it reads, and thrown away:
   what runs never knows these types (see ``argument_types``).
2. A rule that names its tools, or the tools of a server (``billing/*``), must fit every one of them that is pinned. One
   about tools wherever they are (``*``, ``class:send``, ``label:x``, ``*/refund``) is about tools that nobody thought of
   when it was written: not to fit one is a warning (such calls are refused when they come), to fit none is an error.
3. An argument that one of the tools does not have may be read where ``has()`` or ``.?`` asks for it first. One that none
   of the named tools has is a typing error, whatever asks for it.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import Tool
from whygate.core.pins import Pin
from whygate.core.policy import uses
from whygate.core.policy.argument_types import DYN, Shape, Types
from whygate.core.policy.cel import VARIABLES, Checked, Condition, Env, Wrong
from whygate.core.policy.document import Document, Loc, read
from whygate.core.policy.errors import PolicyError
from whygate.core.policy.match import ToolSelector, keys_of
from whygate.core.policy.model import CompiledRule, PolicySet
from whygate.core.policy.uses import Use

MAX_TOLD: Final = 3
"""Tools named in one finding."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    errors: tuple[PolicyError, ...] = ()
    warnings: tuple[PolicyError, ...] = ()


class _Finding(msgspec.Struct, frozen=True):
    let: str
    """The name whose expression it is in; empty for the condition itself."""
    offset: int
    message: str


class Fitting:
    """Looks at policies beside a set of pinned tools. For threads."""

    def __init__(self, pinned: Iterable[tuple[Tool, Pin]]) -> None:
        self._tools = [(tool, pin, Shape(pin.schema)) for tool, pin in pinned]
        self._compiled: dict[tuple[str, tuple[str, ...]], tuple[Wrong, ...]] = {}

    def look_at(self, policies: PolicySet) -> Found:
        """Everything that does not fit, with its place."""
        if not self._tools:
            return Found()
        by_key: dict[str, list[tuple[CompiledRule, ToolSelector]]] = {}
        for rule in policies.rules:
            if rule.condition is not None and "args" in rule.condition.reads:
                for selector in rule.tools:
                    by_key.setdefault(selector.key, []).append((rule, selector))
        about: dict[int, tuple[CompiledRule, list[tuple[Tool, Shape, bool]]]] = {}
        for tool, _, shape in self._tools:
            named: dict[int, tuple[CompiledRule, bool]] = {}
            for key in keys_of(tool):
                for rule, selector in by_key.get(key, ()):
                    if selector.matches(tool):
                        before = named.get(id(rule), (rule, False))[1]
                        named[id(rule)] = rule, before or _names(selector, tool)
            for number, (rule, by_name) in named.items():
                about.setdefault(number, (rule, []))[1].append((tool, shape, by_name))
        errors: list[PolicyError] = []
        warnings: list[PolicyError] = []
        for rule, tools in about.values():
            self._judge(policies, rule, tools, errors, warnings)
        return Found(errors=tuple(sorted(set(errors))), warnings=tuple(sorted(set(warnings))))

    def _judge(
        self,
        policies: PolicySet,
        rule: CompiledRule,
        tools: list[tuple[Tool, Shape, bool]],
        errors: list[PolicyError],
        warnings: list[PolicyError],
    ) -> None:
        condition = rule.condition
        if condition is None:
            return
        # Of tools that are named one by one and all pinned, everything is known.
        exact = {selector.key for selector in rule.tools}
        complete = exact == {f"={tool.id}" for tool, _, _ in tools}
        everywhere = [shape for _, shape, _ in tools] if complete else []
        found = [(tool, by_name, list(self._wrong(condition, shape, everywhere))) for tool, shape, by_name in tools]
        none_fits = all(wrong for _, _, wrong in found)
        grouped: dict[tuple[bool, _Finding], list[str]] = {}
        for tool, by_name, wrong in found:
            for each in wrong:
                grouped.setdefault((by_name or none_fits, each), []).append(tool.id)
        for (is_error, each), ids in grouped.items():
            names = ", ".join(ids[:MAX_TOLD]) + (f" and {len(ids) - MAX_TOLD} more" if len(ids) > MAX_TOLD else "")
            told = _placed(policies, rule, each, f"{each.message} (as {names} is pinned)")
            (errors if is_error else warnings).append(told)

    def _wrong(self, condition: Condition, shape: Shape, everywhere: list[Shape]) -> Iterator[_Finding]:
        texts = {**condition.lets, "": condition.source}
        found = {name: uses.find(text) for name, text in texts.items()}
        asked = {use.path for each in found.values() for use in each if use.tests or use.optional}
        types: dict[Use, Types] = {}
        missing = False
        for name, each in found.items():
            for use in each:
                known = shape.of(use.path)
                guarded = any(use.path[: len(path)] == path for path in asked)
                nowhere = bool(everywhere) and all(other.of(use.path) is None for other in everywhere)
                if known is None and (not guarded or nowhere):
                    missing = True
                    yield _Finding(name, use.start, _no_such(use.path, shape))
                types[use] = known or (DYN,)
        if missing:
            return
        yield from self._mistyped(texts, found, types)

    def _mistyped(
        self, texts: Mapping[str, str], found: Mapping[str, list[Use]], types: Mapping[Use, Types]
    ) -> Iterator[_Finding]:
        """First everything as declared; only where that does not compile, each argument by itself in each of its types, so
        that only what is wrong in all of them is told.
        """
        every = [(name, use) for name, each in found.items() for use in each]
        simple = all(len({_family(one) for one in types[use]}) == 1 for _, use in every)
        if simple and not self._compile(texts, found, [types[use][0] for _, use in every]):
            return
        told: set[_Finding] = set()
        for number, (_, use) in enumerate(every):
            tried = []
            for one in types[use]:
                tried.append(self._compile(texts, found, [one if n == number else DYN for n in range(len(every))]))
                if not tried[-1]:
                    break
            else:
                told.update(tried[0])
        yield from sorted(told, key=lambda each: (each.let, each.offset))

    def _compile(
        self, texts: Mapping[str, str], found: Mapping[str, list[Use]], chosen: list[Any]
    ) -> tuple[_Finding, ...]:
        text, places = _typed(texts, found)
        names = {f"_arg{number}": one for number, one in enumerate(chosen)}
        key = text, tuple(one.name() + str(one) for one in chosen)
        wrong = self._compiled.get(key)
        if wrong is None:
            checked = Env(names).check(text)
            wrong = self._compiled[key] = () if isinstance(checked, Checked) else checked
        return tuple(_Finding(*_origin(places, each.offset), each.message) for each in wrong)


def _names(selector: ToolSelector, tool: Tool) -> bool:
    """Whether a selector names this tool, or its server: rule 2."""
    return selector.key in (f"={tool.id}", f"/{tool.server}")


def _family(one: Any) -> str:
    name = str(one.name())
    return "number" if name in ("INT", "DOUBLE") else str(one)


def _no_such(path: tuple[str, ...], shape: Shape) -> str:
    for length in range(1, len(path) + 1):
        if shape.of(path[:length]) is None:
            name = path[length - 1]
            near = difflib.get_close_matches(name, shape.names(path[: length - 1]), n=1)
            below = f" of `args.{'.'.join(path[: length - 1])}`" if length > 1 else ""
            hint = f": did you mean `{near[0]}`?" if near else ""
            return f"there is no argument `{name}`{below}{hint}"
    return "there is no such argument"


_Places = list[tuple[int, str, int, bool]]
"""Where a piece of the made text begins, whose it is, where it begins there, and whether it stands for something else."""


def _typed(texts: Mapping[str, str], found: Mapping[str, list[Use]]) -> tuple[str, _Places]:
    """The whole condition with a name in the place of each argument, and where each piece of it came from."""
    made, places = "", _Places()
    number = 0
    *lets, _ = texts

    def put(text: str, name: str, offset: int, *, instead: bool) -> None:
        nonlocal made
        places.append((len(made), name, offset, instead))
        made += text

    for name, text in texts.items():
        if name:
            put(f"cel.bind({name}, (", name, 0, instead=True)
        at = 0
        for use in found[name]:
            put(text[at : use.start], name, at, instead=False)
            put(_instead(use, number), name, use.start, instead=True)
            number, at = number + 1, use.end
        put(text[at:], name, at, instead=False)
        put("\n), " if name else "\n", name, max(len(text) - 1, 0), instead=True)
    return made + ")" * len(lets), places


def _instead(use: Use, number: int) -> str:
    if use.tests:
        return f"(_arg{number} == _arg{number})"  # a bool, whatever it is
    return f"optional.of(_arg{number})" if use.optional else f"_arg{number}"


def _origin(places: _Places, offset: int) -> tuple[str, int]:
    begin, name, source, instead = max((place for place in places if place[0] <= offset), key=lambda place: place[0])
    return name, source if instead else source + offset - begin


def _placed(policies: PolicySet, rule: CompiledRule, found: _Finding, message: str) -> PolicyError:
    documents, _ = read(rule.file, policies.texts[rule.file])
    for document in documents:
        if isinstance(document.value, dict) and document.value.get("policy") == rule.policy:
            return _inside(document, rule, found, message)
    return PolicyError(file=rule.file, line=rule.line, column=1, message=message)


def _inside(document: Document, rule: CompiledRule, found: _Finding, message: str) -> PolicyError:
    numbers = (n for n, each in enumerate(document.value["rules"]) if each.get("id") == rule.id)
    loc: Loc = ("let", found.let) if found.let else ("rules", next(numbers, 0), "when")
    return document.error_inside(loc, found.offset, message)


if any(name.startswith("_arg") for name in VARIABLES):
    raise AssertionError("what stands for an argument is no name of a variable")
