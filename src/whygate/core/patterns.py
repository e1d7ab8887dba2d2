"""Values in arguments, by path: what an elevation is bound to, and what an approver may change."""

import fnmatch
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_ABSENT: Final = object()
_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode


def at(args: Any, path: str) -> Any:
    """The value at a dotted path (``args.`` before it may be left out); ``_ABSENT``'s kind is told by ``has``."""
    found = args
    for name in path.removeprefix("args.").split("."):
        if not isinstance(found, dict) or name not in found:
            return _ABSENT
        found = found[name]
    return found


def has(args: Any, path: str) -> bool:
    return at(args, path) is not _ABSENT


def fits(pattern: Mapping[str, Any], args: Mapping[str, Any]) -> bool:
    """Whether every path of the pattern has its value in ``args``: texts may use ``*`` and ``?``, all else is equal in type and
    value. An absent argument fits nothing.
    """
    return all(_fits(wanted, at(args, path)) for path, wanted in pattern.items())


def _fits(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(found, str) and fnmatch.fnmatchcase(found, wanted.replace("[", "[[]"))
    return _same(wanted, found)


def _same(one: Any, other: Any) -> bool:
    """Equal in type and value, at every depth: ``1``, ``1.0`` and ``true`` are three."""
    return _sorted_json(one) == _sorted_json(other)


def changed(args: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``args`` with other values at these paths. Raises ``LookupError`` where there is nothing to change."""
    made: dict[str, Any] = dict(args)
    for path, value in changes.items():
        *parents, last = path.removeprefix("args.").split(".")
        inner = made
        for name in parents:
            below = inner.get(name)
            if not isinstance(below, dict):
                raise LookupError(path)  # noqa: TRY004  the place is wrong, not the type
            inner[name] = inner = dict(below)
        if last not in inner:
            raise LookupError(path)
        inner[last] = value
    return made


def narrower(before: Any, after: Any) -> bool:
    """Whether ``after`` is no more than ``before``: a number of the same sign no further from zero, a list of some of the
    members, a text that is unchanged or empty, never another type.
    """
    if isinstance(before, bool) or isinstance(after, bool) or type(before) is not type(after):
        return type(before) is type(after) and (before == after or after is False)
    if isinstance(before, int | float):
        return bool(0 <= after <= before or before <= after <= 0)
    if isinstance(before, list):
        left = [_sorted_json(each) for each in before]
        for each in map(_sorted_json, after):
            if each not in left:
                return False
            left.remove(each)
        return True
    return after in {before, ""} if isinstance(before, str) else _same(before, after)
