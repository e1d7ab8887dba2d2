"""What a POST says: read once, strictly, and forwarded as the bytes it came as."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.mcp_edge import call, routing

from whygate.core.reasons import Code
from whygate.mcp import splices
from whygate.mcp.envelope import Envelope, Heads, hints, read
from whygate.transport.asgi import Header

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def _heads(headers: dict[str, str] | None = None, *more: Header) -> Heads:
    return Heads([*((name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()), *more])


def _read(body: Any, headers: dict[str, str] | None = None, *more: Header) -> Envelope:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(data, _heads(headers, *more))


def test_a_well_formed_call_of_either_era_is_read() -> None:
    """The era is in the body: a protocol version in ``_meta`` makes it modern, nothing else does."""
    modern, legacy = _read(call(), routing()), _read(call(modern=False), {"mcp-protocol-version": "2025-11-25"})
    assert (modern.wrong, modern.modern, modern.version) == (None, True, "2026-07-28")
    assert (legacy.wrong, legacy.modern, legacy.version) == (None, False, "2025-11-25")


@pytest.mark.parametrize(
    ("body", "code", "rpc"),
    [
        (b"", "request.malformed", -32700),
        (b"\xff", "request.malformed", -32700),
        (b"{", "request.malformed", -32700),
        (b"[" * 100_000, "request.malformed", -32700),
        (b"[]", "request.batch", -32600),
        (b"7", "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', "request.duplicate_key", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}',
         "request.duplicate_key", -32600),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', "request.malformed", -32700),
        (b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}', "request.malformed", -32700),
        (b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', "request.malformed", -32700),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', "request.malformed", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', "request.malformed", -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":1}}', "request.malformed", -32602),
        (b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","method":"tools/list"}', "request.malformed", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', "request.malformed", -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":[]}}',
         "request.malformed", -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":null}}',
         "request.malformed", -32602),
    ],
)  # fmt: skip
def test_what_has_no_single_reading_is_wrong(body: bytes, code: str, rpc: int) -> None:
    """Each kind of it with its reason and the protocol's own error code."""
    wrong = _read(body).wrong
    assert wrong is not None
    assert (wrong.code, wrong.rpc) == (code, rpc)


@given(body=st.binary(max_size=200))
def test_reading_never_raises(body: bytes) -> None:
    """Whatever the bytes are, the answer is an envelope."""
    assert isinstance(read(body, _heads()), Envelope)


@pytest.mark.parametrize(
    "change",
    [
        {"mcp-name": "other"},
        {"mcp-method": "tools/list"},
        {"mcp-protocol-version": "2025-11-25"},
        {"mcp-name": "=?base64?ZWNobx==?="},
        {"mcp-name": "=?base64?!?="},
        {"mcp-name": None},
        {"mcp-method": None},
        {"mcp-protocol-version": None},
    ],
)
def test_a_header_that_disagrees_with_the_body_is_refused(change: dict[str, str | None]) -> None:
    """The modern era demands the headers, and that they say what the body says."""
    headers = {name: value for name, value in (routing() | change).items() if value is not None}
    wrong = _read(call(), headers).wrong
    assert wrong is not None
    assert (wrong.code, wrong.rpc) == (Code.REQUEST_HEADER_MISMATCH, -32020)


def test_a_legacy_call_whose_headers_disagree_is_refused_too() -> None:
    """Legacy clients need not send them; whoever does can't say one thing there and another in the body."""
    assert _read(call(modern=False)).wrong is None
    wrong = _read(call(modern=False), {"mcp-name": "other"}).wrong
    assert wrong is not None
    assert wrong.code is Code.REQUEST_HEADER_MISMATCH


def test_an_encoded_name_is_decoded_before_it_is_compared() -> None:
    """MCP 2026-07-28, "Value Encoding"."""
    encoded = f"=?base64?{base64.b64encode('größe'.encode()).decode()}?="
    assert _read(call("größe"), routing(name=encoded)).wrong is None


@pytest.mark.parametrize(
    "name", [b"mcp-name", b"mcp-method", b"mcp-protocol-version", b"mcp-session-id", b"mcp-param-x"]
)
def test_a_routing_header_that_is_there_twice_is_refused(name: bytes) -> None:
    """First-copy and last-copy readers would disagree, equal or not."""
    wrong = _read(call(modern=False), {}, (name, b"echo"), (name, b"echo")).wrong
    assert wrong is not None
    assert wrong.code is Code.REQUEST_HEADER_MISMATCH


def test_a_modern_request_describes_itself_whole() -> None:
    """Missing keys of ``_meta`` are invalid parameters; an unknown revision is told which are known."""
    body = call()
    del body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert (wrong := _read(body, routing()).wrong) is not None
    assert wrong.rpc == -32602
    assert (wrong := _read(call(modern=False), routing()).wrong) is not None
    assert wrong.rpc == -32602
    body = call()
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2031-01-01"
    assert (wrong := _read(body, routing() | {"mcp-protocol-version": "2031-01-01"}).wrong) is not None
    assert (wrong.code, wrong.rpc) == (Code.REQUEST_VERSION_UNSUPPORTED, -32022)
    assert wrong.extra == {"supported": ["2026-07-28"], "requested": "2031-01-01"}


def test_hints_come_from_meta_first_and_from_headers_second() -> None:
    """And a parent that is not valid, or is there twice, is none."""
    headers = {"whygate-task": "h", "whygate-workflow": "w", "mcp-session-id": "s", "traceparent": TRACE}
    both = call(modern=False, **{"dev.whygate/task": "m"})
    found = hints(_read(both, headers), _heads(headers))
    assert (found.task, found.workflow, found.session, str(found.parent)) == ("m", "w", "s", TRACE)
    meta = call(modern=False, traceparent="nonsense")
    assert hints(_read(meta, headers), _heads(headers)).parent is None
    twice = _heads({}, (b"traceparent", TRACE.encode()), (b"traceparent", TRACE.encode()))
    assert hints(_read(call(modern=False)), twice).parent is None


ODD = b'{ "n" :1.00, "e":1E2,"u":"\\u00fc\xc3\xbc\\/","z":[ ],"a":{"b" : -0}}'


@pytest.mark.parametrize("meta", [b"", b',"_meta":{}', b', "_meta" : {"progressToken": 7.0 ,"baggage":"b"}'])
def test_arguments_arrive_with_the_bytes_they_were_sent_with(meta: bytes) -> None:
    """Numbers, escapes, spaces and order within them are what was evaluated; only the named splices differ."""
    body = b'{"jsonrpc":"2.0", "id":1,"method":"tools/call","params":{"name":"echo","arguments":' + ODD + meta + b"}}"
    sent = splices.upward(_read(body), TRACE)
    assert ODD in sent
    assert json.loads(sent)["params"]["_meta"]["traceparent"] == TRACE
    assert b"baggage" not in sent
    if b"progress" in meta:
        assert b'"progressToken":7.0' in sent


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(args=st.dictionaries(st.text(), JSON, max_size=5), meta=st.dictionaries(st.text(), JSON, max_size=3))
def test_nothing_but_the_named_splices_changes(args: dict[str, Any], meta: dict[str, Any]) -> None:
    """For every call: the upstream reads the same request, but for trace keys and whygate's own."""
    body = call(args=args, modern=False)
    body["params"]["_meta"] = meta | {"dev.whygate/task": "t", "tracestate": "x=y"}
    try:
        data = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # lone surrogates are refused elsewhere
    envelope = read(data, _heads())
    assert envelope.wrong is None
    sent = json.loads(splices.upward(envelope, TRACE))
    assert sent["params"]["arguments"] == args
    expected = {key: value for key, value in meta.items() if key not in {"baggage", "traceparent", "tracestate"}}
    assert sent["params"]["_meta"] == expected | {"traceparent": TRACE}


def test_a_result_keeps_its_bytes_and_gets_the_decision() -> None:
    """Also where the upstream claims to have a decision of its own."""
    raw = (
        b'{"id":1, "jsonrpc":"2.0","result":{"content":[ {"n":1.00} ],"_meta":{"x":1E2,"dev.whygate/decision":"fake"}}}'
    )
    opened = splices.opened(raw)
    assert opened is not None
    made = splices.downward(raw, dict(splices.members(opened.result) or {}), b'{"id":"d"}')
    assert b'[ {"n":1.00} ]' in made
    assert json.loads(made)["result"]["_meta"] == {"x": 100.0, "dev.whygate/decision": {"id": "d"}}
    assert b"1E2" in made
