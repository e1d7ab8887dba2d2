"""Spans are a pure projection of records: complete, readable, and free of what people and agents wrote."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry_records import completion, decision, numbered, start, task, trace_of, uuid

from whygate.core import ids
from whygate.core.identity import Actor
from whygate.core.instants import to_us
from whygate.core.reasons import Code, Outcome
from whygate.core.records import (
    Arguments,
    Claimed,
    Client,
    CompletionRecord,
    DecisionRecord,
    Link,
    ListedServer,
    Resource,
    Subject,
)
from whygate.telemetry import names, shapes, spans
from whygate.telemetry.shapes import Kind
from whygate.telemetry.spans import Instance, Span

HERE = Instance("w-1", "gate-1", "10.0.0.7")
DECIDING = [code for code in Code if code.entry.outcome is not None]
COMPLETING = [code for code in Code if code.entry.outcome is None]
SECRET = "s3cr3t-hunter2"


def made(record: DecisionRecord, ended: CompletionRecord | None = None) -> list[Span]:
    """All spans of one call, as a projector would make them."""
    numbered(record)
    found = spans.of_decision(record, HERE)
    if spans.waits(record):
        found += spans.of_call(record, ended or completion(record), HERE)
    return found


def of_kind(found: list[Span], kind: Kind) -> list[Span]:
    return [span for span in found if span.kind is kind]


@pytest.mark.parametrize("protocol", ["mcp", "http"])
@pytest.mark.parametrize("code", DECIDING)
def test_every_code_gives_one_server_span(code: Code, protocol: str) -> None:
    """Each decision is exactly one SERVER span that carries its outcome, code and id; a CLIENT span only where it allowed."""
    record = decision(2, code, protocol=protocol, method="POST" if protocol == "http" else "tools/call")
    found = made(record)
    (server,) = of_kind(found, Kind.SERVER)
    assert server.span_id == ids.span_id("server", record.id) == record.context.span_id
    assert server.attributes[names.OUTCOME] == code.outcome.value
    assert server.attributes[names.REASON] == code.value
    assert server.attributes[names.DECISION] == record.id
    assert server.attributes[names.EFFECT] == ("allow" if code.outcome.allows else "deny")
    clients = of_kind(found, Kind.CLIENT)
    assert [span.span_id for span in clients] == ([ids.span_id("client", record.id)] if code.outcome.allows else [])
    assert all(span.parent_id == server.span_id for span in clients)


@pytest.mark.parametrize("code", DECIDING)
def test_outcome_and_code_are_read_off_a_name(code: Code) -> None:
    """Whatever is not a plain permit has a child whose name is outcome and code: a timeline shows only names."""
    found = made(decision(2, code))
    named = [span.name for span in of_kind(found, Kind.INTERNAL)]
    assert named == ([] if code.outcome is Outcome.PERMITTED else [f"authorize {code.outcome} {code}"])


@pytest.mark.parametrize(
    ("code", "protocol", "server", "authorize"),
    [
        (Code.STEP_UP_REQUIRED, "mcp", "", ""),
        (Code.POLICY_NO_MATCH, "mcp", "policy.no_match", ""),
        (Code.POLICY_EVAL_ERROR, "mcp", "policy.eval_error", "policy.eval_error"),
        (Code.STEP_UP_REQUIRED, "http", "", ""),
        (Code.POLICY_NO_MATCH, "http", "", ""),
        (Code.POLICY_EVAL_ERROR, "http", "policy.eval_error", "policy.eval_error"),
    ],
)
def test_status_of_refusals(code: Code, protocol: str, server: str, authorize: str) -> None:
    """A challenge is no error; a refusal is one for MCP and none for HTTP; a broken evaluation is one everywhere."""
    found = made(decision(2, code, protocol=protocol, method="POST" if protocol == "http" else "tools/call"))
    assert [span.error for span in found] == [server, authorize]
    assert [span.attributes.get(names.ERROR_TYPE, "") for span in found] == [server, authorize]


@pytest.mark.parametrize(
    ("ended", "protocol", "server", "client"),
    [
        ({}, "mcp", "", ""),
        ({"is_error": True, "error": "tool_error"}, "mcp", "tool_error", "tool_error"),
        ({"is_error": True, "error": "-32602"}, "mcp", "", "-32602"),
        ({"is_error": True, "error": "-32603"}, "mcp", "-32603", "-32603"),
        ({"code": "upstream.timeout", "is_error": True}, "mcp", "upstream.timeout", "upstream.timeout"),
        ({"code": "outcome.unknown", "duration_us": 0}, "mcp", "outcome.unknown", "outcome.unknown"),
        ({"code": "result.masked"}, "mcp", "", ""),
        ({"is_error": True, "error": "Traceback: no!"}, "mcp", "_OTHER", "_OTHER"),
        ({"status": 404, "is_error": True, "error": "404"}, "http", "", "404"),
        ({"status": 503, "is_error": True, "error": "503"}, "http", "503", "503"),
        ({"code": "upstream.failed", "error": "upstream.failed"}, "http", "upstream.failed", "upstream.failed"),
    ],
)
def test_status_of_allowed_calls(ended: dict[str, object], protocol: str, server: str, client: str) -> None:
    """An allowed call is an error by what became of it, and by the rules of its protocol; the decision stays permitted."""
    record = decision(2, protocol=protocol, method="POST" if protocol == "http" else "tools/call")
    found = made(record, completion(record, **ended))
    assert [(span.kind, span.error) for span in found] == [(Kind.SERVER, server), (Kind.CLIENT, client)]
    assert found[0].attributes[names.OUTCOME] == "permitted"


@pytest.mark.parametrize("code", COMPLETING)
def test_completion_codes_are_told(code: Code) -> None:
    """What became of an allowed call stands on its spans."""
    record = decision(2)
    assert {span.attributes[names.COMPLETION] for span in made(record, completion(record, code=code.value))} == {code}


def test_a_call_that_was_not_forwarded_has_no_client_span() -> None:
    """The CLIENT span says that bytes went upstream; where they did not, there is none."""
    record = decision(2)
    assert [span.kind for span in made(record, completion(record, error="not_forwarded"))] == [Kind.SERVER]


def test_a_shadow_refusal_is_no_error() -> None:
    """What was recorded only, and not enforced, has no red mark; it is one SERVER span all the same."""
    found = made(decision(2, Code.POLICY_NO_MATCH, mode="shadow"))
    assert [(span.kind, span.error) for span in found] == [(Kind.SERVER, ""), (Kind.INTERNAL, "")]
    assert found[0].attributes[names.MODE] == "shadow"


def test_a_decision_that_others_enforce_waits_for_nothing() -> None:
    """Where another enforcement point acts, no completion comes: the span is there with the decision."""
    found = made(decision(2, enforcement="external"))
    assert [span.kind for span in found] == [Kind.SERVER]
    assert found[0].attributes[names.ENFORCEMENT] == "external"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "tools/call billing/refund"),
        ({"tool": ""}, "tools/call _unknown"),
        ({"method": "tools/list", "tool": ""}, "tools/list"),
        ({"method": SECRET, "tool": ""}, "_OTHER"),
        ({"protocol": "http", "method": "POST", "tool": "shop/order_create"}, "POST shop/order_create"),
        ({"protocol": "http", "method": "_other", "tool": ""}, "HTTP _unknown"),
        ({"protocol": "whygate", "method": "tasks/open", "tool": ""}, "tasks/open"),
        ({"tool": "billing/re\x1bfund\u202e"}, "tools/call billing/refund"),
        ({"tool": "b/" + "x" * 500}, "tools/call b/" + "x" * 126),
    ],
)
def test_names_are_bounded(fields: dict[str, str], name: str) -> None:
    """A span's name is a method and a catalogued tool: no caller writes it."""
    assert made(decision(2, Code.POLICY_NO_MATCH, **fields))[0].name == name


def test_the_root_starts_before_its_first_call() -> None:
    """Task and first decision are one commit with one time: the root still begins first, and is short."""
    opened, first = task(), decision(2)
    numbered(opened, first)
    first.time = opened.time
    root, call = spans.of_task(opened, HERE), spans.of_call(first, completion(first), HERE)[0]
    assert (root.name, root.parent_id) == ("invoke_workflow refund-claim", "")
    assert root.span_id == ids.span_id("root", opened.task.trace_id) == call.parent_id
    assert root.start_us < call.start_us
    assert root.end_us - root.start_us == spans.ROOT_US


def test_a_task_without_workflow_and_its_end() -> None:
    """A derived task has a root, too; closing adds a child of it."""
    opened, closed = task(workflow="", derived=True), task(event="closed")
    numbered(opened, closed)
    root, end = spans.of_task(opened, HERE), spans.of_task(closed, HERE)
    assert root.name == "invoke_workflow task"
    assert root.attributes[names.TASK_DERIVED] is True
    assert (end.name, end.parent_id, end.trace_id) == ("task completed", root.span_id, root.trace_id)


def test_times_of_a_call() -> None:
    """Deciding ends where the record's time is, forwarding begins there, and both end with the answer."""
    record = decision(2, Code.JIT_GRANT_ACTIVE, duration_us=300)
    server, authorize, client = made(record, completion(record, duration_us=5000))
    at = to_us(record.time)
    assert (server.start_us, server.end_us) == (at - 300, at + 5000)
    assert (authorize.start_us, authorize.end_us) == (at - 300, at)
    assert (client.start_us, client.end_us) == (at, at + 5000)
    assert server.attributes[names.PRIVILEGED] is True


def test_no_span_is_without_duration() -> None:
    """Where nothing was measured a span is still a microsecond long: Jaeger puts a warning on shorter ones."""
    refused, lost, closed = (
        decision(2, Code.POLICY_EVAL_ERROR, duration_us=0),
        decision(3, duration_us=0),
        task(event="closed"),
    )
    found = [*made(refused), *made(lost, completion(lost, code="outcome.unknown", duration_us=0))]
    numbered(closed)
    assert all(span.end_us > span.start_us for span in [*found, spans.of_task(closed, HERE)])


def test_a_call_without_a_task_hangs_on_nothing() -> None:
    """An unauthenticated call has a trace of its own and no root that it could name as parent."""
    record = decision(2, Code.AGENT_UNAUTHENTICATED, task_id="")
    assert made(record)[0].parent_id == ""


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_foreign_trace_is_linked_and_never_joined(trace_id: str, span_id: str) -> None:
    """Whatever trace a refused call came with, its span is in its task's trace, under the root, and links there."""
    server = made(decision(2, Code.POLICY_NO_MATCH, link=Link(span_id=span_id, trace_id=trace_id)))[0]
    assert server.trace_id == trace_of(uuid(1))
    assert server.parent_id == ids.span_id("root", server.trace_id)
    assert server.link == Link(span_id=span_id, trace_id=trace_id)
    assert server.attributes[names.LINKED] == trace_id


@pytest.mark.parametrize("code", [Code.ROLE_PERMITTED, Code.POLICY_NO_MATCH, Code.TOOL_UNKNOWN])
def test_nothing_that_a_call_says_is_in_a_span(code: Code) -> None:
    """A secret in any field that a caller, an owner or a person fills never shows in a span."""
    whole = decision(2, code)
    context = msgspec.structs.replace(
        whole.context,
        claimed=Claimed(incident=SECRET, workflow=SECRET),
        request=SECRET,
        revision=SECRET,
        session=SECRET,
    )
    record = decision(
        2,
        code,
        method=SECRET,
        arguments=Arguments(digest=SECRET),
        client=Client(address=SECRET),
        context=context,
        reason=msgspec.structs.replace(whole.reason, admin=SECRET, user=SECRET),
        requires=({"kind": "human", "params": {"approvers": [SECRET]}},),
        resource=Resource(asked=SECRET),
        subject=Subject(
            id=SECRET,
            type="human",
            proof="oidc",
            owner=SECRET,
            credential=SECRET,
            issuer=SECRET,
            roles=(SECRET,),
            on_behalf_of=(Actor(id=SECRET, type="human"),),  # type: ignore[arg-type]  # as a record decodes it
        ),
    )
    ended = completion(record, is_error=True, error=f"{SECRET} failed", code=code if code.outcome.allows else "")
    assert SECRET not in repr(made(record, ended))


def test_only_ids_of_closed_shapes_pass() -> None:
    """A JSON-RPC id that is a number or a UUID is shown, and a revision that is a date."""
    shown = made(decision(2))[0].attributes
    assert (shown[names.RPC_REQUEST_ID], shown[names.MCP_VERSION]) == ("7", "2025-11-25")


def test_ids_that_no_span_can_have_are_refused() -> None:
    """A record with a broken trace id is no span, rather than a request that a collector refuses whole."""
    record = decision(2, Code.POLICY_NO_MATCH)
    record.context = msgspec.structs.replace(record.context, trace_id="nothing")
    with pytest.raises(spans.Unspannable):
        made(record)


@given(st.text(max_size=300))
def test_cleaned_text_is_one_short_printable_line(text: str) -> None:
    """Text that others chose is capped and has no control characters, and plain text passes as it is."""
    cleaned = shapes.clean(text)
    assert len(cleaned) <= 128
    assert cleaned.isprintable()
    assert cleaned == text or len(text) > 128 or not text.isprintable()


def test_a_start_record_tells_where_a_writer_runs() -> None:
    """Host and address come from the record, and only in their shape."""
    record = start(host="gate\x00-1", ip="10.0.0.7")
    record.writer = "w-1"
    assert spans.instance_of(record) == HERE
    record.data = {"host": 7, "ip": SECRET}
    assert spans.instance_of(record) == Instance("w-1")


def test_every_attribute_is_in_the_reference() -> None:
    """No span carries a name that the reference does not explain."""
    listed = {row.name for row in (*names.ATTRIBUTES, *names.RESOURCE)}
    constants = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    assert constants - listed == {names.SCOPE, names.UNKNOWN_TOOL, names.OTHER}
    record = decision(2, Code.JIT_GRANT_ACTIVE)
    assert {name for span in made(record) for name in span.attributes} <= listed


def test_the_page_lists_every_attribute() -> None:
    """docs/telemetry.md holds the reference as it is made from the names."""
    page = Path(__file__).resolve().parents[2] / "docs" / "telemetry.md"
    assert f"\n{names.reference()}\n" in page.read_text(encoding="utf-8")


VARIED: tuple[dict[str, object], ...] = (
    {},
    {"tool": "billing/other"},
    {"method": "tools/list", "tool": ""},
    {"protocol": "http", "method": "POST"},
    {"subject": Subject(id="agent:b", proof="jwt", type="ai_agent")},
    {"subject": Subject(id="ada@example.com", proof="oidc", type="human")},
    {"client": Client(address="10.0.0.9")},
    {"determined_by": None},
    {"enforcement": "external"},
    {"mode": "shadow"},
    {"link": Link(span_id="ab" * 8, trace_id="cd" * 16)},
    {"task_id": ""},
    {"number": 3},
    {"method": "resources/read", "resource": Resource(id="docs/file:///a", server="docs", type="resource")},
    {"method": "resources/read", "resource": Resource(id="docs/file:///b", server="docs", type="resource")},
    {"method": "prompts/get", "resource": Resource(id="docs/greet", server="docs", type="prompt")},
)
ENDED: tuple[dict[str, object], ...] = (
    {},
    {"status": 500, "is_error": True, "error": "500"},
    {"is_error": True, "error": "-32602"},
    {"code": "upstream.timeout", "is_error": True},
    {"hidden": 3},
    {"servers": (ListedServer(name="a", tools=1), ListedServer(name="b", code="upstream.failed"))},
    {"error": "not_forwarded", "is_error": True},
)


@given(
    first=st.tuples(st.sampled_from(DECIDING), st.sampled_from(VARIED), st.sampled_from(ENDED)),
    then=st.tuples(st.sampled_from(DECIDING), st.sampled_from(VARIED), st.sampled_from(ENDED)),
)
def test_spans_do_not_depend_on_what_was_drawn_before(
    first: tuple[Code, dict[str, object], dict[str, object]], then: tuple[Code, dict[str, object], dict[str, object]]
) -> None:
    """What spans have in common is kept, and never passes for what another one has."""

    def drawn(code: Code, varied: dict[str, object], ended: dict[str, object]) -> list[tuple[object, ...]]:
        record = decision(**{"number": 2, "code": code, **varied})  # type: ignore[arg-type]  # by name, each of its type
        found = made(record, completion(record, **ended))
        return [(*span[:4], span.name, span.kind, span.error, span.attributes, *span[5:]) for span in found]

    shapes._known.clear()
    alone = drawn(*then)
    shapes._known.clear()
    drawn(*first)
    assert drawn(*then) == alone


def test_who_was_left_out_of_a_list_is_counted_for_this_list_alone() -> None:
    """Two lists that differ in nothing else do not share the number."""
    record = decision(2, Code.POLICY_PUBLIC_TOOL, tool="", method="tools/list", determined_by=None)
    ill = (ListedServer(name="a", tools=1), ListedServer(name="b", code="upstream.failed"))
    told = [
        dict(made(record, completion(record, servers=servers))[0].attributes).get(names.LEFT_OUT)
        for servers in (ill, (), ill)
    ]
    assert told == [1, None, 1]
