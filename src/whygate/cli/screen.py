"""Where answers are printed: a terminal, or a pipe that wants neither colour nor line breaks of ours."""

import codecs
import datetime
import io
import json
import os
import sys
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

UNWRAPPED: Final = 100_000
"""Columns of what is no terminal: whoever reads it (grep, a ticket, a file) breaks lines better than we could."""
NARROWEST: Final = 20
"""Narrower screens get lines that stand out, rather than a column of single words."""

_ASCII: Final = {"—": "-", "…": "...", "·": "-", "µ": "u", "“": '"', "”": '"', "→": "->"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(char, "?") for char in error.object[error.start : error.end]), error.end


# A terminal in an old encoding gets the same words with plainer signs, not a stack trace.
codecs.register_error("whygate-ascii", _in_ascii)


def screen() -> Console:
    """For answers. Knows no markup: text is text, whoever wrote it."""
    if isinstance(sys.stdout, io.TextIOWrapper) and (sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}:
        sys.stdout.reconfigure(errors="whygate-ascii")
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNWRAPPED
    return console


def complain(what: str, advice: str = "") -> None:
    """Say on stderr what went wrong and what to do about it."""
    text = Text(what, style="red")
    if advice:
        text.append(f"\n{advice}", style="default")
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(text)


def put(console: Console, text: Text, indent: str = "", first: str | Text | None = None) -> None:
    """Print ``text``, wrapped at words, with every line indented; ``first`` stands in place of the first indent."""
    lead = Text(indent) if first is None else Text(first) if isinstance(first, str) else first
    for line in text.wrap(console, max(NARROWEST, console.width - len(indent))):
        line.rstrip()
        console.print(Text.assemble(lead, line), soft_wrap=True)
        lead = Text(indent)


def put_command(console: Console, command: str, lead: str | Text = "") -> None:
    """Print a command to type next. On one line, however long: a half of it would be pasted."""
    console.print(Text.assemble(lead, command), soft_wrap=True)


def put_json(value: Any, *, compact: bool = False) -> None:
    """Print as JSON, all of it ASCII: what could turn a terminal's head is escaped and still there.

    Straight to stdout: whoever wants JSON wants it as it is, at any width.
    """
    plain = msgspec.to_builtins(value, builtin_types=(datetime.datetime,))
    # At once: who follows through a pipe waits for each line.
    print(json.dumps(plain, indent=None if compact else 2, default=_time), flush=True)


def _time(value: object) -> str:
    """Times as the records write them."""
    return msgspec.json.encode(value).decode().strip('"')
