"""Records are the same bytes for everybody: sorted ASCII keys, no floats, and back again."""

import datetime
import json
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core import records
from whygate.core.decision import Claim, Evaluation, Result, RuleRef
from whygate.core.identity import Actor, IdentityType
from whygate.core.records import AnyRecord

ID = "01997a3c-6f52-7340-a197-0049ab4fdb38"
ENDED = "01997a3c-6f52-7340-a197-0049ab4fdb39"
TIME = datetime.datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=datetime.UTC)
SUBJECT = records.Subject(
    credential="sha256:0123456789abcdef",
    id="spiffe://example.com/agent/payments",
    on_behalf_of=(Actor(id="ann", issuer="https://id.example.com", type=IdentityType.HUMAN),),
    proof="jwt",
    roles=("payments-agent",),
    type="ai_agent",
)
EVERY: list[AnyRecord] = [
    records.DecisionRecord(
        action=records.Action(class_="read", name="tools/call", protocol="mcp"),
        arguments=records.Arguments(digest="blake2b:00"),
        claims=(Claim(key="", kind="policy", value="sha256:11"),),
        client=records.Client(address="192.0.2.7"),
        context=records.Context(
            claimed=records.Claimed(incident="INC-1"),
            link=records.Link(span_id="1" * 16, trace_id="2" * 32),
            task="t",
            trace_id="3" * 32,
        ),
        determined_by=RuleRef(digest="sha256:22", policy="payments", rule="read", version=3),
        duration_us=12,
        effect="allow",
        evaluations=(
            Evaluation(
                code="role.permitted",
                digest="sha256:22",
                effect="permit",
                policy="payments",
                result=Result.MATCH,
                rule="read",
                version=3,
            ),
        ),
        id=ID,
        kind="decision",
        mode="enforce",
        next="none",
        outcome="permitted",
        policy=records.PolicyInForce(digest="sha256:11"),
        reason=records.Reason(admin="Agents may read.", code="role.permitted", user="Permitted."),
        requires=({"zeta": 1, "alpha": {"within": "10m", "approvers": ["group:leads"]}},),
        resource=records.Resource(id="billing/invoice_get", server="billing", type="tool"),
        seq=7,
        subject=SUBJECT,
        time=TIME,
        v=1,
        writer="w",
    ),
    records.CompletionRecord(decision=ID, id=ENDED, kind="completion", status=200, time=TIME, v=1),
    records.TaskRecord(
        event="opened",
        id=ID,
        kind="task",
        subject=SUBJECT,
        task=records.TaskInfo(agents=("role:x",), expires_at=TIME, id="t", trace_id="3" * 32),
        v=1,
    ),
    records.PolicyRecord(
        digest="sha256:11",
        event="in_force",
        files=(records.PolicyFile(digest="sha256:22", name="payments.yaml"),),
        id=ID,
        kind="policy",
        v=1,
    ),
    *(records.LifeRecord(data={"b": 1, "a": "é"}, id=ID, kind=kind, v=1) for kind in ("start", "stop", "config")),
]


def structs(found: Any, seen: dict[type, None]) -> dict[type, None]:
    """Every struct that a type is made of."""
    if isinstance(found, type) and issubclass(found, msgspec.Struct):
        if found not in seen:
            seen[found] = None
            for hint in typing.get_type_hints(found).values():
                structs(hint, seen)
    else:
        for inner in typing.get_args(found):
            structs(inner, seen)
    return seen


ALL = list(structs(AnyRecord, {}))


def leaves(hint: Any) -> set[Any]:
    args = typing.get_args(hint)
    if isinstance(hint, types.UnionType) or args:
        return set().union(*(leaves(inner) for inner in args))
    return {hint}


def test_every_part_is_looked_at() -> None:
    """The laws below hold for nested parts, too: the walk over the types finds them."""
    assert {records.DecisionRecord, records.Link, Evaluation, Actor, records.PolicyFile} <= set(ALL)


@pytest.mark.parametrize("struct", ALL, ids=lambda struct: struct.__name__)
def test_fields_are_declared_in_the_order_of_their_names(struct: type[msgspec.Struct]) -> None:
    """The encoder writes fields as declared, so declaring them sorted is what sorts the bytes."""
    names = list(struct.__struct_encode_fields__)
    assert names == sorted(names)
    assert all(name.isascii() for name in names)


@pytest.mark.parametrize("struct", ALL, ids=lambda struct: struct.__name__)
def test_no_field_is_a_float(struct: type[msgspec.Struct]) -> None:
    """A float's text differs between implementations, so no field can be one."""
    for hint in typing.get_type_hints(struct).values():
        assert float not in leaves(hint)


@pytest.mark.parametrize("record", EVERY, ids=lambda record: record.kind)
def test_a_record_comes_back_as_it_went(record: AnyRecord) -> None:
    """Decoding the bytes gives the same record, and encoding that gives the same bytes."""
    data = records.encode(record)
    assert records.decode(data) == record
    assert records.encode(records.decode(data)) == data


@pytest.mark.parametrize("record", EVERY, ids=lambda record: record.kind)
def test_the_bytes_are_what_any_json_library_with_sorted_keys_writes(record: AnyRecord) -> None:
    """Nobody needs our encoder to write the same bytes."""
    data = records.encode(record)
    again = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert again == data


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcXYZ_09", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcXYZ_09", min_size=1), PLAIN, max_size=4))
def test_data_of_any_shape_is_sorted_to_its_depths(data: dict[str, Any]) -> None:
    """Where a record holds somebody's own keys they are sorted as well, at every depth."""
    encoded = records.encode(records.LifeRecord(data=data, id=ID, kind="config", v=1))
    again = json.dumps(json.loads(encoded), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    # Control characters may be escaped in two ways; what is compared is order and shape.
    assert json.loads(again, object_pairs_hook=list) == json.loads(encoded, object_pairs_hook=list)


def test_times_are_utc_with_a_z() -> None:
    """A time in a record reads the same everywhere."""
    assert json.loads(records.encode(EVERY[1]))["time"] == "2026-11-23T12:00:00.000005Z"


def test_an_unknown_kind_is_said_to_be_unknown() -> None:
    """A record of a later version is never taken for one of this version."""
    with pytest.raises(LookupError, match="'tomorrow'"):
        records.decode(b'{"id":"x","kind":"tomorrow"}')


def test_every_kind_with_a_decoder_is_on_the_list() -> None:
    """The list of kinds is complete for what this version writes."""
    assert {record.kind for record in EVERY} | {"gap", "clock_step"} <= set(records.KINDS)
