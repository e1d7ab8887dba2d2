"""Which headers cross the gateway, and which never do.

Rules of this file:

1. The caller's credential never goes upstream: ``authorization``, ``proxy-authorization``, ``cookie`` and every header
   that the operator injects are dropped from what the caller sent (MCP authorization: no token passthrough).
2. Hop-by-hop headers end here (RFC 9110 section 7.6.1), those named in ``connection`` included.
3. Trace context, baggage and whygate's own headers are ours to write; what the caller sent of them is dropped.
4. What the upstream sends to its own client only (its cookies, its challenges for our credential) stays with us.
"""

from collections.abc import Iterable
from typing import Final

from whygate.transport.asgi import Header

_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NEVER_UP: Final = _HOP_BY_HOP | frozenset(
    (
        b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"host", b"content-length", b"expect",
        b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via",
        b"traceparent", b"tracestate", b"baggage", b"accept-encoding", b"origin", b"referer", b"prefer",
    )
)  # fmt: skip
_NEVER_DOWN: Final = _HOP_BY_HOP | frozenset(
    (b"content-length", b"set-cookie", b"www-authenticate", b"proxy-authenticate", b"proxy-authentication-info",
     b"authentication-info", b"traceparent", b"tracestate", b"baggage", b"alt-svc", b"server", b"date")
)  # fmt: skip
_OURS: Final = b"whygate-"


def upward(headers: Iterable[Header], injected: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The request headers for the upstream: what of the caller's may cross, then what the operator injects."""
    injected = list(injected)
    taken = {name.lower().encode("latin-1") for name, _ in injected}
    headers = list(headers)
    named = _named_in_connection(headers)
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name not in _NEVER_UP and name not in taken and name not in named and not name.startswith(_OURS)
    ]
    return kept + injected


def downward(headers: Iterable[tuple[str, str]]) -> list[Header]:
    """The response headers for the agent."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    named = _named_in_connection(raw)
    return [
        (name, value)
        for name, value in raw
        if name not in _NEVER_DOWN and name not in named and not name.startswith(_OURS)
    ]


def _named_in_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    )
