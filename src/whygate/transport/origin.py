"""Host and Origin checks, against DNS rebinding: a web page must not reach a gateway on somebody's own machine."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from whygate.core.calls import Fault
from whygate.core.reasons import Code
from whygate.transport.asgi import Exchange

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))


class Origins:
    """Which hosts are us, and which origins may call us from a browser."""

    def __init__(self, public_url: str, listen: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        public = urlsplit(public_url)
        port = listen.rpartition(":")[2]
        own = {public.netloc.lower(), listen.lower(), *(host.lower() for host in hosts)}
        if (public.hostname or "") in _LOOPBACK or listen.rpartition(":")[0] in _LOOPBACK:
            own |= {f"{name}:{port}" for name in _LOOPBACK}
        self._hosts = frozenset(own)
        self._origins = frozenset({f"{public.scheme}://{public.netloc}".lower(), *(one.lower() for one in origins)})

    def check(self, exchange: Exchange) -> Fault | None:
        """What is wrong with the request's ``Host`` or ``Origin``; ``None`` where nothing is."""
        hosts = exchange.values(b"host") or [exchange.scope.get("server_host", "")]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return Fault(code=Code.REQUEST_ORIGIN_REFUSED, note="the Host header names a place that is not ours")
        origins = exchange.values(b"origin")
        if origins and (len(origins) > 1 or origins[0].lower() not in self._origins):
            return Fault(code=Code.REQUEST_ORIGIN_REFUSED, note="the Origin header names a page that may not call us")
        return None
