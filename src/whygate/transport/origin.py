"""Host and Origin checks, against DNS rebinding: a web page must not reach a gateway on somebody's own machine."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from whygate.core.calls import Fault
from whygate.core.reasons import Code
from whygate.flow.ports import Answer
from whygate.transport.asgi import Exchange, Header, Receive, Scope, Send
from whygate.transport.refusals import problem, status_of

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


class KnownHosts:
    """An application that answers only to names that are ours, and to pages of its own. For the operators' listener, where
    much can be read without a credential. What it refuses is no call, and leaves no record.

    An address needs no list: a page that was rebound comes with its own *name* in ``Host``, and that is how it is known.
    So probes and scrapers that ask by address, as Kubernetes' do, need nothing set.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], own: Iterable[str]) -> None:
        """``own``: names that are ours, with or without a port."""
        self._app = app
        self._own = frozenset({"localhost", *(_name(host) for host in own)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._ours(exchange := Exchange(scope, receive, send)):
            await exchange.respond(status_of(_REFUSED.code), [_PROBLEM], problem(_REFUSED))
            return
        await self._app(scope, receive, send)

    def _ours(self, exchange: Exchange) -> bool:
        hosts, origins = exchange.values(b"host"), exchange.values(b"origin")
        if len(hosts) != 1 or not (_is_address(hosts[0]) or _name(hosts[0]) in self._own):
            return False
        return not origins or (len(origins) == 1 and urlsplit(origins[0]).netloc.lower() == hosts[0].lower())


_CODE: Final = Code.REQUEST_ORIGIN_REFUSED
_REFUSED: Final = Answer(id="", outcome=_CODE.outcome, code=_CODE, note=_CODE.entry.user, next=_CODE.entry.next)
_PROBLEM: Final[Header] = (b"content-type", b"application/problem+json")


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(_name(host))
    except ValueError:
        return False
    return True
