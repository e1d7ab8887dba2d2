"""Which headers cross the gateway, and which never do.

Rules of this file:

1. The caller's credential never goes upstream: ``authorization``, ``proxy-authorization``, ``cookie`` and every header
   that the operator injects are dropped from what the caller sent (MCP authorization: no token passthrough).
2. Hop-by-hop headers end here (RFC 9110 section 7.6.1), those named in ``connection`` included.
3. Trace context (W3C's, and that of other tracers), baggage and whygate's own headers are ours to write; what the caller
   sent of them is dropped.
4. Who the caller is, and where it comes from, is ours to say: headers by which a proxy says it (``x-forwarded-*``,
   ``x-auth-request-*``, ``cf-access-*`` …) are dropped from what the caller sent.
5. Names are compared with ``_`` for ``-``: CGI and WSGI make one of both, so ``X_Api_Key`` could take the injected
   credential's place.
6. ``connection`` can't name away what the body is read by: its type, and MCP's own headers.
7. What the upstream sends to its own client only (its cookies, its challenges for our credential) stays with us. So does
   where it would send that client on: the plain HTTP edge writes a ``location`` of its own (``http.redirects``).
"""

import functools
from collections.abc import Iterable
from typing import Final

from whygate.transport.asgi import Header

_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NEVER_UP: Final = _HOP_BY_HOP | frozenset(
    (
        b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"host", b"content-length", b"expect",
        b"forwarded", b"x-real-ip", b"via", b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"remote-user",
        b"x-remote-user", b"x-authenticated-user", b"x-user", b"x-client-cert", b"client-cert", b"x-ssl-cert",
        b"traceparent", b"tracestate", b"baggage", b"accept-encoding", b"origin", b"referer", b"prefer",
        b"b3", b"uber-trace-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"sentry-trace", b"grpc-trace-bin",
    )
)  # fmt: skip
_NEVER_DOWN: Final = _HOP_BY_HOP | frozenset(
    (b"content-length", b"set-cookie", b"www-authenticate", b"proxy-authenticate", b"proxy-authentication-info",
     b"authentication-info", b"traceparent", b"tracestate", b"baggage", b"alt-svc", b"server", b"date", b"location")
)  # fmt: skip
_NONE: Final[frozenset[bytes]] = frozenset()
_OURS: Final = b"whygate-"
_SAID_BY_PROXIES: Final = (
    _OURS, b"x-forwarded-", b"x-auth-request-", b"x-goog-iap-", b"x-goog-authenticated-", b"x-amzn-oidc-", b"cf-access-",
    b"cf-connecting-", b"x-ms-client-principal", b"ssl-client-", b"x-ssl-client-", b"tailscale-user-",
    b"x-b3-", b"uberctx-", b"x-datadog-", b"ot-tracer-",
)  # fmt: skip


def upward(headers: Iterable[Header], injected: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The request headers for the upstream: what of the caller's may cross, then what the operator injects."""
    injected = list(injected)
    taken = {name.lower().replace("_", "-") for name, _ in injected}
    headers = list(headers)
    named = _named_in_connection(headers)
    kept = []
    for name, value in headers:
        crossing = _crossing(name)
        if not crossing or crossing.replace("_", "-") in taken:
            continue
        if name in named and name.replace(b"_", b"-") != b"content-type" and not crossing.startswith(("mcp-", "mcp_")):
            continue
        kept.append((crossing, value.decode("latin-1")))
    return kept + injected


def downward(headers: Iterable[tuple[str, str]]) -> list[Header]:
    """The response headers for the agent."""
    kept, named = [], _NONE
    for name, value in headers:
        crossing = _crossing_down(name)
        if crossing:
            kept.append((crossing, value.encode("latin-1")))
        elif name.lower() == "connection":
            named |= _named_in_connection(((b"connection", value.encode("latin-1")),))
    return [header for header in kept if header[0] not in named] if named else kept


@functools.lru_cache(maxsize=1024)
def _crossing_down(name: str) -> bytes:
    """The name in lower case where the upstream's header may cross, as far as the name alone tells; else empty."""
    plain = name.lower().encode("latin-1")
    return b"" if plain in _NEVER_DOWN or plain.startswith(_OURS) else plain


@functools.lru_cache(maxsize=1024)
def _crossing(name: bytes) -> str:
    """The name as text where the caller's header may cross, as far as the name alone tells; empty where it never does."""
    plain = name.replace(b"_", b"-")
    return "" if plain in _NEVER_UP or plain.startswith(_SAID_BY_PROXIES) else name.decode("latin-1")


def _named_in_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    if b"connection" not in dict(headers):
        return _NONE
    return frozenset(
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    )
