"""Calls to upstream tools over HTTP/1.1: a pool of connections on the event loop.

On the loop's own sockets, because an answer that has to change threads costs half of what a call may
(docs/decisions/0008-http-on-the-event-loop.md). Redirects are not followed, nothing is asked to be compressed, no proxy is
used, no cookie kept: a tool gets the request that was decided on, and what it answers is what the agent gets.
"""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from whygate.core.reasons import Code
from whygate.transport.link import Link, UpstreamError

CONNECT_TIMEOUT_S: Final = 5.0
"""A tool on the same network answers a SYN in milliseconds; five seconds leave room for one that is just starting."""
READ_TIMEOUT_S: Final = 120.0
"""Between two reads, never in total: event streams stay open for hours."""
IDLE_S: Final = 30.0
"""For a connection that carries nothing. A tool that closes it earlier is heard closing it."""
MAX_IDLE: Final = 256
"""Of one origin."""
_BODIED: Final = frozenset(("POST", "PUT", "PATCH"))

__all__ = ["CONNECT_TIMEOUT_S", "READ_TIMEOUT_S", "UpstreamError", "UpstreamResponse", "Upstreams"]


class Origin(NamedTuple):
    """Where a URL leads."""

    secure: bool
    host: str
    port: int


class UpstreamResponse:
    """An answer whose body has not been read yet."""

    __slots__ = ("_link", "raw_headers", "status")

    def __init__(self, link: Link, headers: list[tuple[bytes, bytes]]) -> None:
        self._link = link
        self.status = link.status
        """Never below 200: what switches protocols is no answer."""
        self.raw_headers = headers
        """Names in lower case."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case; bytes read as Latin-1 (RFC 9110 section 5.5)."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]

    @property
    def media_type(self) -> str:
        """``type/subtype`` in lower case, without parameters; empty where there is no content type."""
        for name, value in self.raw_headers:
            if name == b"content-type":
                return value.partition(b";")[0].strip().lower().decode("latin-1")
        return ""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``UpstreamError`` where the upstream breaks off."""
        while chunk := await self._link.take():
            yield chunk

    async def read(self, cap_bytes: int) -> bytes:
        """The whole body. Raises ``UpstreamError`` with ``result.too_large`` above the cap."""
        link = self._link
        if link.length > cap_bytes:
            raise _too_large(cap_bytes)
        body = await link.take()
        if link.whole and len(body) <= cap_bytes:
            return body + await link.take()
        parts, size = [body], len(body)
        while size <= cap_bytes and (chunk := await link.take()):
            parts.append(chunk)
            size += len(chunk)
        if size > cap_bytes:
            raise _too_large(cap_bytes)
        return b"".join(parts)


def _too_large(cap_bytes: int) -> UpstreamError:
    return UpstreamError(Code.RESULT_TOO_LARGE, f"the answer is above {cap_bytes} bytes")


class Upstreams:
    """One pool of connections to all HTTP upstreams. Belongs to one event loop."""

    def __init__(self, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._read_timeout_s = read_timeout_s
        self._idle: dict[Origin, list[Link]] = {}
        self._links: set[Link] = set()
        self._tick_s = min(1.0, read_timeout_s / 4)
        self._sweeping: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> "Sending":
        """A request to be sent by ``async with``; leaving the block closes the upstream's response, read to its end or not.

        Entering raises ``UpstreamError``. Redirects are not followed: a 3xx is an answer like any other. Raises
        ``ValueError`` for a header or URL with a line break, or one that is no Latin-1.
        """
        origin, host, target = _split(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("a request header holds a line break")
        length = f"content-length: {len(body)}\r\n" if body or method in _BODIED else ""
        head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{lines}{length}\r\n".encode("latin-1")
        return Sending(self, origin, head + body, headless=method == "HEAD")

    async def link(self, origin: Origin) -> Link:
        """A connection, kept alive or new. Raises ``UpstreamError``."""
        idle = self._idle.get(origin)
        while idle:
            link = idle.pop()
            if link.usable and not link.transport.is_closing():
                return link
        return await self._connect(origin)

    def give_back(self, link: Link) -> None:
        """The request on it is over."""
        if link.done():
            idle = self._idle.setdefault(link.key, [])  # type: ignore[arg-type]  # we made it with an Origin
            if len(idle) < MAX_IDLE:
                idle.append(link)
            else:
                link.transport.close()

    async def close(self) -> None:
        """End every connection; answers that are still read break off."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for link in list(self._links):
            link.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _connect(self, origin: Origin) -> Link:
        loop = asyncio.get_running_loop()
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._tick_s, self._sweep)
        if origin.secure and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        tls = self._tls if origin.secure else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await loop.create_connection(
                    lambda: Link(loop, origin, self._links.discard), origin.host, origin.port, ssl=tls
                )
        except TimeoutError:
            raise UpstreamError(Code.UPSTREAM_TIMEOUT, "no connection to the tool in time", sent=False) from None
        except (OSError, ValueError) as error:
            # The error's own text can name addresses; its kind says enough, and the log of the tool the rest.
            told = f"the tool could not be reached ({type(error).__name__})"
            raise UpstreamError(Code.UPSTREAM_FAILED, told, sent=False) from error
        if not link.usable:
            raise UpstreamError(Code.UPSTREAM_FAILED, "the tool closed the connection before it was asked", sent=False)
        self._links.add(link)
        return link

    def _sweep(self) -> None:
        """Time out what is waited for too long, and close what nobody uses."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for link in list(self._links):
            since = link.waits_since()
            if since is not None and now - since >= self._read_timeout_s:
                link.fail(Code.UPSTREAM_TIMEOUT, "the tool did not answer in time")
            elif not link.asked and now - link.heard > IDLE_S:
                link.usable = False
                link.transport.close()
        for origin in list(self._idle):
            self._idle[origin] = [link for link in self._idle[origin] if link.usable]
            if not self._idle[origin]:
                del self._idle[origin]
        self._sweeping = loop.call_later(self._tick_s, self._sweep)


class Sending:
    """A request that is being sent. A class, because a generator would cost each call some microseconds more."""

    __slots__ = ("_headless", "_link", "_origin", "_pool", "_request")

    def __init__(self, pool: Upstreams, origin: Origin, request: bytes, *, headless: bool) -> None:
        self._pool = pool
        self._origin = origin
        self._request = request
        self._headless = headless
        self._link: Link | None = None

    async def __aenter__(self) -> UpstreamResponse:
        self._link = link = await self._pool.link(self._origin)
        try:
            link.ask(self._request, headless=self._headless)
            return UpstreamResponse(link, await link.head())
        except BaseException:
            # Entering failed, so nobody will leave; a tool that works for nobody sees its connection close.
            self._pool.give_back(link)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is not None:
            self._pool.give_back(self._link)


@functools.lru_cache(maxsize=1024)
def _split(url: str) -> tuple[Origin, str, str]:
    """Origin, ``Host`` and target of a URL. Raises ``ValueError`` for one that can't be sent."""
    if any(char <= " " or char == "\x7f" for char in url):
        raise ValueError("a URL holds a space or a control character")
    scheme, rest = url.partition("#")[0].split("://", 1)
    end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    authority, target = rest[:end], rest[end:]
    parts = urlsplit(f"{scheme}://{authority}")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    # The target's bytes are those that were decided on: nothing is normalised.
    if not target.startswith("/"):
        target = f"/{target}"
    return Origin(secure, parts.hostname or "", port), authority.rpartition("@")[2], target
