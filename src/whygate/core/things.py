"""What is decided besides tools, and how it is named: resources, prompts, and the questions that a server asks.

Rules of this file:

1. A URI that two readers could take for two different things is refused before any rule is asked about it: a rule's
   pattern would see one of them, and the server open the other (RFC 3986 section 6 lists what readers may make equal).
2. What a record shows of a URI has neither user nor query nor fragment: those are where secrets are put. The whole of it
   stands behind a keyed digest.
"""

import re
import unicodedata
from typing import Final

from whygate.core.calls import Fault
from whygate.core.reasons import Code

RESOURCE: Final = "resource"
PROMPT: Final = "prompt"
QUESTION: Final = "question"
KINDS: Final = (RESOURCE, PROMPT, QUESTION)
"""As a selector's prefix and as ``Tool.type``. Everything else is a tool."""
ELICITATION: Final = "elicitation"
PAGE: Final = "page"
SAMPLING: Final = "sampling"
ROOTS: Final = "roots"
TASKS: Final = "tasks"
QUESTIONS: Final = (ELICITATION, PAGE, SAMPLING, ROOTS, TASKS)
"""What a server may ask of a client: its user in a form, its user on a page, its model, where it works; and about the tasks
that one of these became."""
MAX_URI: Final = 2048
"""Characters. Longer ones are data in disguise, and each is a key of the policies' cache."""
MAX_SHOWN: Final = 256
MAX_NAME: Final = 128

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}:")
_PERCENT: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Unreserved (RFC 3986 section 2.3): encoded or not, the same URI."""
_SEPARATING: Final = frozenset(b"/\\")
_TWICE: Final = re.compile(r"%25(?:2[ef]|5c)", re.IGNORECASE)
_TAIL: Final = re.compile(r"[?#].*", re.DOTALL)
_FILE: Final = re.compile(r"file:(?://localhost/|/(?!/))")
"""Other spellings of ``file:///`` (RFC 8089 section 2)."""
_USER: Final = re.compile(r"(://)[^/]*@")


def doubt_about_uri(uri: str) -> Fault | None:
    """Why no rule may be asked about this URI; ``None`` where it can be read in one way only.

    Does not know what the server makes of it: one that folds case, or follows links, reads more into it than stands there.
    """
    if len(uri) > MAX_URI:
        return Fault(code=Code.ARGS_TOO_LARGE, note=f"a URI above {MAX_URI} characters")
    if not uri.isprintable() or " " in uri or "\\" in uri:
        return Fault(code=Code.REQUEST_MALFORMED, note="the URI holds a character that no URI has")
    if _SCHEME.match(uri) is None:
        found = _SCHEME.match(uri.lower())
        what = "the URI's scheme is not in lower case" if found else "the URI has no scheme"
        return Fault(code=Code.REQUEST_PATH_AMBIGUOUS if found else Code.REQUEST_MALFORMED, note=what)
    if not uri.isascii() and unicodedata.normalize("NFKC", uri) != uri:
        return _ambiguous("letters that have another form")
    path = _TAIL.sub("", uri)
    if (wrong := _encoding(uri, path)) is not None:
        return wrong
    if any(segment.partition(";")[0] in {".", ".."} for segment in path.partition(":")[2].split("/")):
        return _ambiguous("a dot segment")
    # `proxy://https://example.com` has a second pair for a reason; `file:///srv//docs` has not.
    if "//" in re.sub(r":/{2,3}", ":/", path):
        return _ambiguous("an empty segment")
    if _FILE.match(path):
        return _ambiguous("a file that has a plainer name")
    return None


def _encoding(uri: str, path: str) -> Fault | None:
    for match in _PERCENT.finditer(uri):
        if match[1] is None:
            return Fault(code=Code.REQUEST_MALFORMED, note="the URI holds a % that begins no encoding")
    for match in _PERCENT.finditer(path):
        byte = int(match[1], 16)
        if byte in _PLAIN or byte in _SEPARATING or byte < 0x20 or byte == 0x7F:
            return _ambiguous("an encoded character that has a plain form, or separates")
    return _ambiguous("an encoding within an encoding") if _TWICE.search(path) else None


def _ambiguous(what: str) -> Fault:
    return Fault(code=Code.REQUEST_PATH_AMBIGUOUS, note=f"the URI holds {what}")


def doubt_about_name(name: str) -> Fault | None:
    """Why there can be no prompt of this name; ``None`` where there can."""
    if 0 < len(name) <= MAX_NAME and name.isprintable():
        return None
    return Fault(code=Code.TOOL_UNKNOWN, note="no prompt can have this name")


def shown_uri(uri: str) -> str:
    """What a record shows of a URI: without user, query and fragment, and not all of a long one."""
    bare = _USER.sub(r"\1", _TAIL.sub("", uri), count=1)
    return bare if len(bare) <= MAX_SHOWN else f"{bare[: MAX_SHOWN - 1]}…"
