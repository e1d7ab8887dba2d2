"""What a server says of itself and of its tools, read.

Pure. What can't be read is ``None`` or an ``UpstreamError`` of ours: no server's text gets into it.
"""

import msgspec

from whygate.core.reasons import Code
from whygate.transport.upstream import UpstreamError


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A server's whole list of tools."""

    tools: list[bytes]
    """Definitions, as their bytes came, in the server's order."""
    ttl_ms: int = 0
    """For how long the server says that it holds; 0 where it says nothing."""
    public: bool = False
    """The server says that it is the same for everybody."""
    kept: bool = False
    """The server said so some time ago, and was not asked again."""


class Hello(msgspec.Struct):
    """Of the answer to ``server/discover`` or ``initialize``."""

    version: str = msgspec.field(default="", name="protocolVersion")
    versions: list[str] = msgspec.field(default_factory=list, name="supportedVersions")
    capabilities: dict[str, msgspec.Raw] = {}


class Page(msgspec.Struct):
    tools: list[msgspec.Raw]
    cursor: str | None = msgspec.field(default=None, name="nextCursor")
    ttl_ms: int | float = msgspec.field(default=0, name="ttlMs")
    kind: str = msgspec.field(default="complete", name="resultType")
    scope: str = msgspec.field(default="private", name="cacheScope")


def failed(what: str) -> UpstreamError:
    return UpstreamError(Code.UPSTREAM_FAILED, f"the server {what}")


def hello(raw: msgspec.Raw) -> Hello | None:
    """The result of ``server/discover`` or ``initialize``."""
    try:
        return msgspec.json.decode(raw, type=Hello)
    except (msgspec.DecodeError, RecursionError):
        return None


def page(raw: msgspec.Raw) -> Page:
    """One page of ``tools/list``. Raises ``UpstreamError``."""
    try:
        made = msgspec.json.decode(raw, type=Page)
    except (msgspec.DecodeError, RecursionError):
        raise failed("gave a list of tools that can't be read") from None
    if made.kind != "complete":
        raise failed("asks something before it lists its tools")
    return made
