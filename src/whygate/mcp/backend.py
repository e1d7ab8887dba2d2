"""What stands behind one MCP server's name: an HTTP server, or processes that speak over stdio.

Both look alike to the edge: a request goes in, an HTTP-shaped answer comes out.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from whygate.core.calls import Tool
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.mcp.envelope import Envelope
from whygate.transport.upstream import READ_TIMEOUT_S, Upstreams


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes of one stdio server may run, and for how long with nothing to do."""

    processes: int = 128
    per_principal: int = 16
    idle_s: float = 1800.0
    """Longer than a person's lunch breaks an agent's work off for; a legacy session is lost with its process."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One MCP server as the operator configured it: ``url`` or ``command``, never both, never from a caller."""

    name: str
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """The gateway's own credential for it, resolved. Never shown."""
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    """Variables for the command, resolved. Never shown."""
    cwd: Path | str = ""
    read_timeout_s: float = READ_TIMEOUT_S
    """Between two messages, never in total."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.command):
            raise ValueError(f"server {self.name!r} needs either a url or a command")

    def __repr__(self) -> str:
        return f"Server(name={self.name!r}, url={self.url!r}, command={self.command!r})"


class Catalogue(Protocol):
    """The tools as the operator classified them."""

    def find(self, server: str, name: str) -> Tool | None:
        """The tool of this name; ``None`` where there can be none."""

    def schema(self, tool: Tool | None) -> Any:
        """The input schema as it is pinned; ``None`` where nothing is."""

    def listed(self, server: str, given: Sequence[bytes], cause: str = "list") -> list[bool]:
        """Take note of the definitions of a list; for each, whether it is as pinned."""

    def as_pinned(self, server: str, given: Sequence[bytes]) -> list[bool]:
        """The same for an earlier list: no note is taken."""

    def heard(self, server: str) -> None:
        """The server says that its list is another now."""


class Outgoing(msgspec.Struct, kw_only=True):
    """A request on its way to an upstream."""

    http_method: str
    headers: list[tuple[str, str]]
    body: bytes
    envelope: Envelope
    """Of the body; empty for GET and DELETE."""
    principal: Principal
    session: str
    """``Mcp-Session-Id`` as the client sent it; empty where it sent none."""
    takes_events: bool
    """The client accepts ``text/event-stream``."""


class Answered(Protocol):
    """An upstream's answer whose body has not been read yet."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[str, str]]: ...

    @property
    def media_type(self) -> str: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``UpstreamError`` where the upstream breaks off."""

    async def read(self, cap_bytes: int) -> bytes:
        """The whole body. Raises ``UpstreamError``, with ``result.too_large`` above the cap."""


class Refused(Exception):
    """The backend will not take the request. ``code`` is a reason, to be decided and recorded like any other."""

    def __init__(self, code: Code, note: str) -> None:
        super().__init__(note)
        self.code = code
        self.note = note


class Backend(Protocol):
    def send(self, out: Outgoing) -> AbstractAsyncContextManager[Answered]:
        """Send; leaving the block ends the answer. Raises ``UpstreamError``, and ``Refused`` before anything was sent."""

    async def dismiss(self, principal: Principal) -> None:
        """It turned out that this server speaks no modern revision: let go of what was started to find out."""

    async def close(self) -> None: ...


class HttpBackend:
    """An MCP server over streamable HTTP."""

    def __init__(self, server: Server, upstreams: Upstreams) -> None:
        self._url = server.url
        self._upstreams = upstreams

    def send(self, out: Outgoing) -> AbstractAsyncContextManager[Answered]:
        return self._upstreams.send(out.http_method, self._url, out.headers, out.body)

    async def dismiss(self, principal: Principal) -> None:
        """Nothing was started."""

    async def close(self) -> None:
        """Nothing of its own to close: the pool is shared."""
