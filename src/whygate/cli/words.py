"""How values become words on a terminal.

Rules of this file:

1. All text of a record may have been written by an attacker: tool names, ids, labels. ``plain`` takes out what a terminal
   would obey or what would make text read otherwise than it is; nothing is printed without it.
2. Colour repeats what a word says already, and never says anything alone.
"""

import datetime
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from whygate.core.reasons import Code, Entry, Next, Outcome
from whygate.core.records import ListedServer
from whygate.core.things import QUESTION

LONGEST: Final = 400
"""Characters of one value that are shown: beyond that nobody reads, and a flood would push the answer off the screen."""

_ASCII: Final = re.compile(r"[ -~]*")
# Categories that print nothing, turn the writing direction, move the cursor, or have no agreed meaning.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

STYLES: Final[dict[str, str]] = {
    Outcome.PERMITTED: "green",
    Outcome.ELEVATED: "green",
    Outcome.EXCEPTION: "magenta",
    Outcome.CHALLENGED: "yellow",
    Outcome.BLOCKED: "bold red",
    Outcome.ERROR: "bold red",
}

MARKS: Final[dict[str, str]] = {
    Outcome.PERMITTED: "+",
    Outcome.ELEVATED: "+",
    Outcome.EXCEPTION: "!",
    Outcome.CHALLENGED: "?",
    Outcome.BLOCKED: "x",
    Outcome.ERROR: "x",
}

NEXT: Final[dict[str, str]] = {
    # What the agent may or has to do.
    Next.NONE: "should not try this call again",
    Next.FIX_CALL: "may correct the call and send it again",
    Next.FIX_CREDENTIAL: "has to come with a valid credential",
    Next.REQUEST: "has to ask for it, or have a person asked",
    Next.RETRY: "may try the same call again later",
    Next.WAIT: "has to wait for an answer that is on its way",
}

IDENTITIES: Final[dict[str, str]] = {
    "ai_agent": "AI agent",
    "service_account": "service account",
    "workload": "workload",
    "human": "person",
    "anonymous": "nobody known",
}

PROOFS: Final[dict[str, str]] = {
    "jwt": "by a token (JWT)",
    "api_key": "by an API key",
    "mtls": "by a certificate (mTLS)",
    "passkey": "by a passkey",
    "oidc": "by a sign-in (OIDC)",
    "none": "not proven",
}

RESULTS: Final[dict[str, str]] = {
    "match": "matches",
    "no_match": "does not match",
    "unmet": "matches, but wants more",
    "error": "could not be evaluated",
}


def plain(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without anything that a terminal would obey or a reader be misled by.

    What is taken out leaves U+FFFD, so that two different names never look the same for it.
    """
    if _ASCII.fullmatch(text) is None:
        text = "".join("\ufffd" if unicodedata.category(char) in _HIDDEN else char for char in text)
        text = " ".join(text.split()) if any(char.isspace() and char != " " for char in text) else text
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def plain_lines(text: str) -> str:
    """The same for a text of our own files (a rule), which keeps its lines."""
    return "\n".join(plain(line.expandtabs(2)) for line in text.split("\n"))


def entry_of(code: str) -> Entry | None:
    """A code's row of the table; ``None`` for one of a later version."""
    try:
        return Code(code).entry
    except ValueError:
        return None


def duration(us: int) -> str:
    """Microseconds as a person says them."""
    if us < 1000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1000:.1f} ms" if us < 10_000 else f"{us // 1000} ms"
    if us < 60_000_000:
        return f"{us / 1e6:.1f} s"
    minutes, seconds = divmod(us // 1_000_000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def offset(us: int) -> str:
    """Time since the beginning of a task, of a constant width up to a quarter of an hour."""
    seconds = us / 1e6
    if seconds < 1000:
        return f"+{seconds:.3f}s".rjust(9)
    return f"+{us // 60_000_000}min".rjust(9)


def size(count: int) -> str:
    if count < 10_000:
        return f"{count:,} byte{'' if count == 1 else 's'}"
    if count < 10_000_000:
        return f"{count / 1000:,.0f} kB"
    return f"{count / 1e6:,.0f} MB"


def moment(when: datetime.datetime) -> str:
    """A time in UTC, with milliseconds."""
    when = when.astimezone(datetime.UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d} UTC"


def ago(when: datetime.datetime, now: datetime.datetime) -> str:
    """How long ago, in one unit; empty for what lies ahead (the reader's clock is not the gateway's)."""
    seconds = int((now - when).total_seconds())
    if seconds < 0:
        return ""
    for size_s, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count = seconds // size_s
        if count:
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 call``, ``2 calls``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def servers(listed: Sequence[ListedServer]) -> str:
    """What each of many servers gave for one list; empty where it was the list of one."""
    gave = [f"{each.name} ({counted(each.tools, 'tool')})" for each in listed if not each.code]
    left_out = [f"{each.name} ({each.code})" for each in listed if each.code]
    told = [f"From {', '.join(gave)}."] if gave else []
    if left_out:
        told.append(f"Left out, because they gave no list: {', '.join(left_out)}.")
    return " ".join(told)


def not_sent(kind: str) -> str:
    """What became of a call that was refused, by the ``type`` of its resource."""
    if kind == QUESTION:
        return "The client never saw it; the server was told that it may not ask."
    return "Not sent to the tool."
