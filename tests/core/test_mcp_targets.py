"""What a request asks for, and what a server's messages ask, whatever they hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.ids import keyed_digest
from whygate.mcp import asking
from whygate.mcp.asking import Question
from whygate.mcp.envelope import Heads, read
from whygate.mcp.handles import bound_to, seal, unseal
from whygate.mcp.methods import REQUESTS
from whygate.mcp.targets import Targets

AGENT = Principal(id="agent:a", type=IdentityType.AI_AGENT, proof=Proof.JWT)
NAMES = ("name", "uri", "arguments", "ref", "argument", "context", "notifications", "taskId", "inputResponses", "type")
NAMES += (
    "requestState",
    "resourceSubscriptions",
    "taskIds",
    "value",
    "mode",
    "url",
    "method",
    "params",
    "id",
    "elicitations",
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.text(max_size=6),
        st.sampled_from(
            ["ref/prompt", "ref/resource", "file:///a", "https://a.example/x", "url", "form", "roots/list"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=12,
)


def _digest(data: bytes) -> str:
    return keyed_digest(b"k" * 32, data)


@given(method=st.sampled_from(sorted(REQUESTS)), params=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_whatever_is_asked_is_refused_or_has_a_target(method: str, params: dict[str, Any]) -> None:
    """Nothing that a caller sends makes reading it fail; what is well-formed asks for at least one thing to decide."""
    targets = Targets(_digest)
    envelope = read(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode(), Heads([]))
    if envelope.wrong is None:
        found = targets.of("up", AGENT, envelope)
        assert found
        assert all(each.public or each.tool is not None or each.fault is not None for each in found)
        if "requestState" in params:
            assert targets.open_state("up", AGENT, envelope) is not None


@given(data=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())))
def test_whatever_a_server_says_is_a_question_or_passes_or_is_dropped(data: bytes) -> None:
    """Nothing that a server sends makes reading it fail, and what is no message never passes for one."""
    found = asking.read(data)
    if isinstance(found, Question):
        wanted = asking.wanted(found)
        assert wanted.kind or wanted.wrong
    else:
        assert found is False or json.loads(data)["method"]


@given(raw=VALUES)
def test_whatever_a_result_asks_is_read_or_refused(raw: Any) -> None:
    """The same for the questions in a result and in an error; there is none that is silently left out."""
    data = json.dumps(raw).encode()
    for found in (asking.in_result(data), asking.in_error(data)):  # type: ignore[arg-type]  # raw JSON is its bytes
        for each in found:
            wanted = asking.wanted(each)
            assert wanted.kind or wanted.wrong
    if isinstance(raw, dict):
        assert len(asking.in_result(data)) == len(raw)  # type: ignore[arg-type]  # as above


@given(state=st.text(max_size=40), junk=st.text(max_size=40))
def test_a_seal_opens_for_its_own_call_only(state: str, junk: str) -> None:
    """Any text comes back as it was; nothing else does."""
    envelope = read(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}', Heads([]))
    other = read(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b"}}', Heads([]))
    bound = bound_to("up", AGENT, envelope)
    sealed = seal(state, _digest, bound)
    assert unseal(sealed, _digest, bound) == state
    assert unseal(sealed, _digest, bound_to("up", AGENT, other)) is None
    assert unseal(sealed, _digest, bound_to("down", AGENT, envelope)) is None
    assert unseal(state, _digest, bound) is None
    assert unseal(sealed + "x", _digest, bound) is None
    if junk != state:
        assert unseal(sealed[: len(sealed) - len(state)] + junk, _digest, bound) is None


@pytest.mark.parametrize("extra", ["inputResponses", "_meta", "requestState"])
def test_what_may_differ_in_a_repetition_does_not_count(extra: str) -> None:
    """Answers, metadata and the state itself differ from round to round; the call stays the same."""
    params: dict[str, Any] = {"name": "a", "arguments": {"x": 1}}
    bodies = [json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": each}).encode()
              for each in (params, params | {extra: "s" if extra == "requestState" else {"y": 2}})]  # fmt: skip
    first, second = (bound_to("up", AGENT, read(body, Heads([]))) for body in bodies)
    assert first == second
