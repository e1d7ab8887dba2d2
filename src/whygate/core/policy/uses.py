"""Where an expression reads arguments: each place in its text, with the way there.

Reads the text and not the compiler's tree, because a type is put in the place of what is read, and errors point into the
text as it was written.
"""

import ast
import re
from collections.abc import Iterator
from typing import Final

import msgspec

_TOKEN: Final = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<text>(?:[bB]?[rR][bB]?)(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*')
        |[bB]?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*|`[^`\n]+`)
    |(?P<number>[0-9][0-9a-zA-Z_]*(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?)?)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One place that reads ``args.a.b``."""

    start: int
    end: int
    path: tuple[str, ...]
    """Empty: all arguments at once."""
    tests: bool = False
    """``has(args.a.b)``, which the place spans as a whole."""
    optional: bool = False
    """``args.?a``: absent is no error there."""


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    start: int
    end: int


_NONE: Final = _Token("", "", 0, 0)


def find(source: str, name: str = "args") -> list[Use]:
    """Every use of ``name`` in an expression that compiles, in order."""
    tokens = [
        _Token(match.lastgroup or "", match[0], match.start(), match.end())
        for match in _TOKEN.finditer(source)
        if match.lastgroup != "skip"
    ]
    return list(_uses(tokens, name))


def _uses(tokens: list[_Token], name: str) -> Iterator[Use]:
    at = 0
    while at < len(tokens):
        before = tokens[at - 1].text if at else ""
        field = before == "." or (before == "?" and at > 1 and tokens[at - 2].text == ".")
        if tokens[at].text != name or field:
            at += 1
            continue
        steps, optional, after = _steps(tokens, at + 1)
        start, end = tokens[at].start, tokens[after - 1].end
        tests = bool(steps) and not optional and _in_has(tokens, at, after)
        if tests:
            start, end = tokens[at - 2].start, tokens[after].end
        yield Use(start=start, end=end, path=tuple(steps), tests=tests, optional=optional)
        at = after


def _in_has(tokens: list[_Token], at: int, after: int) -> bool:
    return (
        at >= 2
        and tokens[at - 1].text == "("
        and tokens[at - 2].text == "has"
        and after < len(tokens)
        and tokens[after].text == ")"
    )


def _steps(tokens: list[_Token], at: int) -> tuple[list[str], bool, int]:
    """The members that are selected from ``at`` on, whether optionally, and where that ends."""
    steps: list[str] = []
    optional = False

    def token(number: int) -> _Token:
        return tokens[number] if number < len(tokens) else _NONE

    while True:
        asked = token(at + 1).text == "?"
        name = token(at + 1 + asked)
        if token(at).text == "." and name.kind == "word" and token(at + 2 + asked).text != "(":
            steps.append(name.text.strip("`"))
            at += 2 + asked
        elif token(at).text == "[" and name.kind == "text" and token(at + 2 + asked).text == "]":
            key = _key(name.text)
            if key is None:
                return steps, optional, at
            steps.append(key)
            at += 3 + asked
        else:
            return steps, optional, at
        optional = optional or asked


def _key(text: str) -> str | None:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # an escape that CEL has and Python has not
        return None
    return found if isinstance(found, str) else None
