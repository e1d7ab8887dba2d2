"""What a POST to an MCP address says, read once and strictly.

Rules of this file:

1. Pure and total: whatever the bytes and headers are, the answer is an ``Envelope``; what is wrong stands in ``wrong``.
2. The body decides. Headers are compared with it, never believed (MCP 2026-07-28, basic/transports, "Server
   Validation": a component that reads the body must refuse a mismatch).
3. The era is the request's own: ``_meta`` names a protocol version, or it does not. No session, no header makes it so.
4. What is evaluated is what is forwarded: the parts are kept as the bytes they came as.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from whygate.core.calls import NO_HINTS, Hints
from whygate.core.ids import parse_traceparent
from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable, loads
from whygate.mcp.methods import NOTIFICATIONS, REQUESTS, fits
from whygate.transport.asgi import Header
from whygate.transport.hints import label, task_label

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
OURS: Final = "dev.whygate/"
TASK_KEY: Final = f"{OURS}task"
WORKFLOW_KEY: Final = f"{OURS}workflow"
INCIDENT_KEY: Final = f"{OURS}incident"
MODERN: Final = ("2026-07-28",)
"""Revisions in which every request describes itself, newest last. A revision we have not read is refused."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
REFUSED: Final = 1403
"""Ours, outside of what JSON-RPC and MCP reserve."""

_NAMED: Final[Mapping[str, str]] = {name: row.needs for name, row in REQUESTS.items() if row.mirrored}
"""Methods whose ``Mcp-Name`` header mirrors one of their parameters."""
_MEMBERS: Final = {name.casefold(): name for name in ("jsonrpc", "id", "method", "params", "result", "error")}
_PARAMS: Final = {name.casefold(): name for name in (
    "name", "arguments", "_meta", "uri", "taskId", "ref", "argument", "context", "notifications", "inputResponses",
    "requestState", "task", "cursor",
)}  # fmt: skip
_BASE64: Final = re.compile(r"=\?base64\?(.*)\?=")
_REVISION: Final = re.compile(r"\d{4}-\d\d-\d\d")
_METHOD: Final = re.compile(r"[A-Za-z][\w/.$-]{0,63}")
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WANTED: Final = frozenset(
    (b"authorization", b"accept", b"mcp-protocol-version", b"mcp-method", b"mcp-name",
     b"mcp-session-id", b"prefer", b"traceparent", b"whygate-task", b"whygate-workflow", b"whygate-incident")
)  # fmt: skip
_HINTING: Final = frozenset(
    (b"mcp-session-id", b"traceparent", b"whygate-task", b"whygate-workflow", b"whygate-incident")
)
_SESSION: Final = frozenset((b"mcp-session-id",))
_HINTING_META: Final = frozenset(("traceparent", TASK_KEY, WORKFLOW_KEY, INCIDENT_KEY))
_NOTHING: Final[dict[str, Any]] = {}

Parts = dict[str, msgspec.Raw]


class Heads:
    """The headers that matter here, read in one pass."""

    __slots__ = ("found", "twice")

    def __init__(self, headers: Iterable[Header]) -> None:
        self.found: dict[bytes, bytes] = {}
        self.twice: list[bytes] = []
        """Names that came more than once. First-copy and last-copy readers would disagree about them."""
        found = self.found
        for name, value in headers:
            if name not in _WANTED and not name.startswith(b"mcp-param-"):
                continue
            if name not in found:
                found[name] = value
            elif name == b"accept":  # a list, which RFC 9110 section 5.3 allows to come in several lines
                found[name] += b"," + value
            elif name == b"traceparent":
                found[name] = b""  # two parents are none
            else:
                self.twice.append(name)

    def text(self, name: bytes) -> str:
        """The value, read as Latin-1; empty where the header is absent."""
        value = self.found.get(name)
        return "" if value is None else value.decode("latin-1")


class Wrong(msgspec.Struct, frozen=True):
    """What is wrong with a request, and how the protocol says it."""

    code: Code
    note: str
    """For operators: which header, which key."""
    rpc: int = INVALID_REQUEST
    extra: dict[str, Any] = {}
    """Further members of the error's ``data`` that the protocol demands."""


class Envelope:
    """One JSON-RPC message. Empty (no method, no id) as far as it could not be read."""

    __slots__ = ("id", "meta", "method", "modern", "params", "parts", "version", "wrong")

    def __init__(self) -> None:
        self.method = ""
        """Empty for the client's responses."""
        self.id: int | str | None = None
        """``None`` for notifications and responses."""
        self.params: dict[str, Any] = _NOTHING
        self.meta: dict[str, Any] = _NOTHING
        self.parts: Parts = {}
        """The message's members as they came."""
        self.modern = False
        self.version = ""
        self.wrong: Wrong | None = None

    @property
    def id_text(self) -> str:
        return "" if self.id is None else str(self.id)[:128]

    @property
    def method_for_record(self) -> str:
        """The method where it has the shape of one: a record holds no free text of the caller."""
        return self.method if self.method in DECIDED or _METHOD.fullmatch(self.method) else ""


def read(body: bytes, heads: Heads) -> Envelope:
    """The message in ``body``, checked against the headers. Never raises."""
    made = Envelope()
    try:
        value = loads(body, forwarded=True)
    except Unreadable as error:
        rpc = INVALID_REQUEST if error.code is Code.REQUEST_DUPLICATE_KEY else PARSE_ERROR
        made.wrong = Wrong(error.code, error.note, rpc=rpc)
        return made
    made.wrong = _shape(value, body, made) or _era(made, heads) or _headers(made, heads) or _known(made)
    return made


def _malformed(note: str, rpc: int = INVALID_REQUEST) -> Wrong:
    return Wrong(Code.REQUEST_MALFORMED, note, rpc=rpc)


def _shape(value: Any, body: bytes, made: Envelope) -> Wrong | None:
    """JSON-RPC 2.0 section 4, as MCP narrows it: no batches, no null ids."""
    if isinstance(value, list):
        return Wrong(Code.REQUEST_BATCH, "a batch: this gateway decides one call at a time")
    if not isinstance(value, dict):
        return _malformed("the body is not an object")
    identity, method = value.get("id"), value.get("method")
    has_id = "id" in value
    if has_id and isinstance(identity, int | str) and not isinstance(identity, bool):
        made.id = identity
    elif has_id and method is not None:
        return _malformed("the id is neither a string nor an integer")
    if value.get("jsonrpc") != "2.0":
        return _malformed("not JSON-RPC 2.0")
    if not _spelt(value, _MEMBERS):
        return _malformed("a member's name is spelt in another case")
    answers = "result" in value or "error" in value
    if method is None and "method" not in value and answers:
        made.id = None  # the id of the server's question, not of one of the client's
        made.parts = _PARTS.decode(body)
        return None
    if not isinstance(method, str) or not method or answers:
        return _malformed("neither a request nor a notification nor a response")
    return _asked(method, value, body, made)


def _asked(method: str, value: dict[str, Any], body: bytes, made: Envelope) -> Wrong | None:
    """A request or a notification."""
    if method not in _KNOWN and method.strip().casefold() in _KNOWN_FOLDED:
        # Whoever compares loosely would act on it, undecided.
        return _malformed("the method's name is spelt in another way")
    made.method = method
    params = value.get("params", _NOTHING)
    if not isinstance(params, dict):
        return _malformed("params is not an object", INVALID_PARAMS)
    if not _spelt(params, _PARAMS):
        return _malformed("a parameter's name is spelt in another case", INVALID_PARAMS)
    made.params = params
    meta = params.get("_meta", _NOTHING)
    if not isinstance(meta, dict):
        return _malformed("_meta is not an object", INVALID_PARAMS)
    made.meta = meta
    try:
        made.parts = _PARTS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _malformed("the body is nested too deeply", PARSE_ERROR)
    if method in DECIDED and made.id is None:
        # A notification of this name would be acted on by some servers, and nobody could be told of a refusal.
        return _malformed(f"{method} without an id")
    return None


DECIDED: Final = frozenset(REQUESTS)
"""Methods that are requests: decided, and answered."""
_KNOWN: Final = DECIDED | NOTIFICATIONS
_KNOWN_FOLDED: Final = frozenset(name.casefold() for name in _KNOWN)


_UNUSUAL: Final = frozenset(("inputResponses", "requestState"))
_NO_OBJECT: Final = "arguments is not an object"


def _known(made: Envelope) -> Wrong | None:
    """Whether the method is one that we know how to decide about, and what it needs for that is there."""
    method, params = made.method, made.params
    if method == "tools/call" and type(params.get("name")) is str and _UNUSUAL.isdisjoint(params):
        # Nine of ten calls: the same as below, without the way there.
        return None if type(params.get("arguments", _NOTHING)) is dict else _malformed(_NO_OBJECT, INVALID_PARAMS)
    if not method:
        return None
    if made.id is None:
        known = made.method in NOTIFICATIONS
    else:
        row = REQUESTS.get(made.method)
        known = row is not None and not (row.legacy and made.modern)
    if known:
        problem = fits(made.method, made.params)
        return _malformed(problem, INVALID_PARAMS) if problem else None
    return Wrong(Code.REQUEST_METHOD_UNKNOWN, "not a method that is decided on here", rpc=METHOD_NOT_FOUND)


def _spelt(value: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """Whether those of ``names`` that are there are spelt as they should be. Servers that match members without regard to
    case (Go's encoding/json) would take ``Method`` for the method that was not decided on.
    """
    others = [key for key in value if names.get(key) != key]
    return not others or all(names.get(key.casefold(), key) == key for key in others)


def _era(made: Envelope, heads: Heads) -> Wrong | None:
    version = made.meta.get(VERSION_KEY)
    header = heads.text(b"mcp-protocol-version")
    if version is None and VERSION_KEY not in made.meta:
        made.version = header if _REVISION.fullmatch(header) else ""
        made.modern = header in MODERN
        if made.modern and made.id is not None:
            return _malformed(f"the header says {header}, but _meta names no protocol version", INVALID_PARAMS)
        return None
    made.modern = True
    if not isinstance(version, str):
        return _malformed("the protocol version in _meta is not a string", INVALID_PARAMS)
    made.version = version if _REVISION.fullmatch(version) else ""
    if made.id is not None and not isinstance(made.meta.get(CAPABILITIES_KEY), dict):
        return _malformed("_meta names no client capabilities", INVALID_PARAMS)
    return None


def _headers(made: Envelope, heads: Heads) -> Wrong | None:
    if (wrong := duplicated(heads)) is not None:
        return wrong
    if not made.method:
        return None
    required = made.modern and made.id is not None
    version = made.meta.get(VERSION_KEY)
    if version is not None and (wrong := _compare(heads, b"mcp-protocol-version", version, required=required)):
        return wrong
    if wrong := _compare(heads, b"mcp-method", made.method, required=required):
        return wrong
    named = _NAMED.get(made.method)
    if named is not None and (wrong := _compare(heads, b"mcp-name", made.params.get(named), required=required)):
        return wrong
    if version is not None and version not in MODERN:
        extra = {"supported": list(MODERN), "requested": str(version)[:64]}
        return Wrong(
            Code.REQUEST_VERSION_UNSUPPORTED, "an unknown protocol revision", rpc=UNSUPPORTED_VERSION, extra=extra
        )
    return None


def duplicated(heads: Heads) -> Wrong | None:
    """A routing header that is there twice: two readers could each take another."""
    if not heads.twice:
        return None
    note = f"a header is there twice: {heads.twice[0].decode('latin-1')[:64]}"
    return Wrong(Code.REQUEST_HEADER_MISMATCH, note, rpc=HEADER_MISMATCH)


def _compare(heads: Heads, name: bytes, expected: object, *, required: bool) -> Wrong | None:
    raw = heads.found.get(name)
    if raw is None:
        problem = "is missing" if required else ""
    else:
        problem = "" if decoded(raw.decode("latin-1")) == expected else "differs from the body"
    if not problem:
        return None
    return Wrong(Code.REQUEST_HEADER_MISMATCH, f"header {name.decode()} {problem}", rpc=HEADER_MISMATCH)


def decoded(value: str) -> str | None:
    """A header's value, ``=?base64?…?=`` decoded; ``None`` where that is not canonical base64 of UTF-8, so that a
    broken header never equals anything (MCP 2026-07-28, basic/transports, "Value Encoding").
    """
    match = _BASE64.fullmatch(value) if value.startswith("=?") else None
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode("utf-8") if base64.b64encode(data).decode("ascii") == match[1] else None
    except (binascii.Error, ValueError):
        return None


def hints(made: Envelope, heads: Heads) -> Hints:
    """Correlation as the client sent it: ``_meta`` first, headers second."""
    meta, found = made.meta, heads.found
    if meta.keys().isdisjoint(_HINTING_META):
        headed = found.keys() & _HINTING
        if not headed:
            return NO_HINTS
        if headed == _SESSION:  # most calls of the legacy era
            return Hints(session=label(heads.text(b"mcp-session-id")))
    parent = meta.get("traceparent")
    if not isinstance(parent, str):
        parent = heads.text(b"traceparent")
    return Hints(
        task=task_label(str(meta.get(TASK_KEY) or heads.text(b"whygate-task"))),
        workflow=label(str(meta.get(WORKFLOW_KEY) or heads.text(b"whygate-workflow"))),
        incident=label(str(meta.get(INCIDENT_KEY) or heads.text(b"whygate-incident"))),
        session=label(heads.text(b"mcp-session-id")),
        parent=parse_traceparent(parent) if parent else None,
    )
