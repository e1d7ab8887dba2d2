"""A request's head: what an application is told of it, and what is unusual about it. The latter is looked into only where
something is, so that an ordinary call pays nothing for it.
"""

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from whygate.transport.asgi import Header

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and its headers; a token of 8 KiB and a cookie jar fit in."""
UNFINISHED_BYTES: Final = 6 * MAX_HEAD_BYTES
"""Of a head, or of what frames a body, while no end is in sight: more than is ever read at once, since part of that may
belong to the request before. A head that ends is held to ``MAX_HEAD_BYTES`` exactly.
"""
MAX_HEADERS: Final = 128
UNREADABLE: Final = "whygate.unreadable"
"""In the scope of a request that can't be read: the HTTP status that says best what is wrong."""
_SCHEMES: Final = (b"http://", b"https://")


class Unreadable(Exception):
    """The request can't be read, as ``status`` says; nor can anything that follows it on its connection."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


def scope_of(
    method: bytes, url: bytes, version: str, headers: list[Header], client: tuple[str, int] | None
) -> dict[str, Any]:
    """ASGI's scope of a request (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
    path, _, query = url.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": version,
        "scheme": "http",
        "method": method.decode("ascii"),
        "path": (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": None,
    }


def settled(url: bytes, headers: list[Header], version: str) -> bytes:
    """The target in origin form, where it has one; ``headers`` then name the host that the target did (RFC 9112 section
    3.2.2). ``*`` and an authority stay as they are: no path of ours.

    Raises ``Unreadable``: 431 for a head that is too large, 505 for another version than 1.0 and 1.1, 400 for a fragment
    and for chunks in HTTP/1.0, which does not know them (RFC 9112 section 6.1).
    """
    if len(url) + sum([len(name) + len(value) for name, value in headers]) > MAX_HEAD_BYTES:
        raise Unreadable(431)
    if version not in ("1.0", "1.1"):
        raise Unreadable(505)
    if b"#" in url or (version == "1.0" and any(name == b"transfer-encoding" for name, _ in headers)):
        raise Unreadable(400)
    if url[:8].lower().startswith(_SCHEMES):
        authority, slash, path = url.partition(b"://")[2].partition(b"/")
        authority, query, asked = authority.partition(b"?")
        if query:
            slash, path = b"/", query + asked + slash + path
        headers[:] = [(b"host", authority), *[header for header in headers if header[0] != b"host"]]
        return b"/" + path
    return url


def overlooked(headers: list[Header]) -> bool:
    """Whether the protocol that is offered may be ignored: HTTP/2 in clear text, which some clients offer with each first
    request and do without. Who asks for a websocket would take our answer for something else: that is for the
    application to refuse (``readings``).
    """
    return all(value.lower() == b"h2c" for name, value in headers if name == b"upgrade")


def without_upgrade(request_line: tuple[bytes, bytes, str], headers: list[Header]) -> bytes:
    """The head again, without the protocol that its sender would rather speak: it may be ignored, and then the request is
    one like any other, with its body (RFC 9110 section 7.8). Java's own client offers HTTP/2 with each of its first requests.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"])
    method, url, version = request_line
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), lines)
