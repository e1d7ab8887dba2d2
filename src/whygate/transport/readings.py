"""Headers that would make the upstream read something else than what was evaluated. Both edges refuse them.

Rules of this file:

1. A header that puts another method or another path in the place of the request's own is refused, whatever it says.
2. A change of protocol is refused: what comes after it, nobody could decide on. Of ``h2c``, which clients offer with every
   request, no notice is taken (RFC 9110 section 7.8).
3. A body is JSON or a form in UTF-8 as it stands: an encoding, another charset, or two types give it a second reading.
4. ``_`` counts as ``-``: CGI and WSGI make one name of both.
"""

import re
from typing import Final

from whygate.core.calls import Fault
from whygate.core.reasons import Code
from whygate.transport.asgi import Exchange

_OVERRIDES: Final = frozenset(
    (b"x-http-method-override", b"x-method-override", b"x-http-method", b"x-original-method",
     b"x-original-url", b"x-original-uri", b"x-rewrite-url", b"x-forwarded-uri", b"x-forwarded-path",
     b"x-forwarded-prefix", b"x-override-url")
)  # fmt: skip
_PLAIN: Final = frozenset(
    (b"host", b"authorization", b"accept", b"user-agent", b"content-length", b"connection", b"mcp-session-id",
     b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"accept-encoding", b"traceparent")
)  # fmt: skip
"""What most requests have, and what is none of these."""
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)
_READ_AS_SENT: Final = frozenset(("utf-8", "utf8", "us-ascii"))


def second_reading(exchange: Exchange, *, json_only: bool = False) -> Fault | None:
    """What in the headers gives the request a second reading; ``None`` where nothing does.

    ``json_only``: the body is read as JSON whatever its type, so a type that says otherwise, or none, is refused.
    """
    types, encodings = [], []
    for name, value in exchange.headers:
        if name in _PLAIN:
            continue
        plain = name.replace(b"_", b"-")
        if plain in _OVERRIDES:
            return Fault(code=Code.REQUEST_PATH_AMBIGUOUS, note="a header overrides the method or the path")
        if plain == b"upgrade" and value.strip().lower() != b"h2c":
            return Fault(code=Code.REQUEST_MALFORMED, note="a change of protocol is asked for")
        if plain == b"content-type":
            types.append(value.decode("latin-1"))
        elif plain == b"content-encoding":
            encodings.append(value.strip().lower())
    if types == ["application/json"] and not encodings:
        return None
    if any(encoding != b"identity" for encoding in encodings):
        return Fault(code=Code.REQUEST_MALFORMED, note="an encoded body can't be decided on")
    if len(types) > 1:
        return Fault(code=Code.REQUEST_MALFORMED, note="the body's type is said twice")
    if types and any(charset.lower() not in _READ_AS_SENT for charset in _CHARSET.findall(types[0])):
        return Fault(code=Code.REQUEST_MALFORMED, note="the body's charset is not UTF-8")
    if json_only and (not types or types[0].partition(";")[0].strip().lower() != "application/json"):
        return Fault(code=Code.REQUEST_MALFORMED, note="the body's type is not application/json")
    return None
