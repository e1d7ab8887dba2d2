"""Which operation a request is, and which requests have two readings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whygate.core.reasons import Code
from whygate.core.strict_json import Unreadable
from whygate.http.routes import Route, Router, query_of, segments_of

ROUTER = Router(
    (
        Route(name="invoice_get", method="GET", template="/invoices/{invoice_id}"),
        Route(name="invoice_latest", method="GET", template="/invoices/latest"),
        Route(name="line_get", method="GET", template="/invoices/{invoice_id}/lines/{line}"),
        Route(name="root", method="GET", template="/"),
        Route(name="refund", method="POST", template="/refunds"),
    )
)


@pytest.mark.parametrize(
    ("method", "path", "name", "args"),
    [
        ("GET", b"/invoices/1042", "invoice_get", {"invoice_id": "1042"}),
        ("GET", b"/invoices/latest", "invoice_latest", {}),
        ("GET", b"/invoices/a%20b", "invoice_get", {"invoice_id": "a b"}),
        ("GET", b"/invoices/7/lines/2", "line_get", {"invoice_id": "7", "line": "2"}),
        ("GET", b"/", "root", {}),
        ("POST", b"/refunds", "refund", {}),
    ],
)
def test_a_request_is_the_operation_whose_template_it_fits(method: str, path: bytes, name: str, args: object) -> None:
    """Literal segments win over parameters; parameters come decoded."""
    found = ROUTER.match(method, path)
    assert found is not None
    assert (found[0].name, found[1]) == (name, args)


@pytest.mark.parametrize(("method", "path"), [("POST", b"/invoices/1042"), ("GET", b"/refunds"), ("GET", b"/invoices")])
def test_what_fits_no_template_is_no_operation(method: str, path: bytes) -> None:
    """Neither another method nor a shorter path is taken for an operation."""
    assert ROUTER.match(method, path) is None


@pytest.mark.parametrize(
    "path",
    [
        b"/invoices/..%2f..%2fadmin",
        b"/invoices/%2e%2e",
        b"/invoices/../admin",
        b"/invoices/./1",
        b"/invoices//1",
        b"/invoices/1/",
        b"/invoices/a%5cb",
        b"/invoices/a\\b",
        b"/invoices/%00",
        b"/invoices/1;admin=1",
        b"/invoices/%252e%252e",
        b"/invoices/%zz",
        b"/invoices/%ff",
        b"/invoices/\xc3\xa9",
        b"/invoices/a b",
        b"invoices/1",
        b"",
    ],
)
def test_a_path_with_two_readings_is_refused(path: bytes) -> None:
    """What two servers could read differently is refused, never normalised."""
    with pytest.raises(Unreadable) as refused:
        ROUTER.match("GET", path)
    assert refused.value.code is Code.REQUEST_PATH_AMBIGUOUS


@given(st.binary(max_size=60))
def test_any_path_has_one_reading_or_is_refused(path: bytes) -> None:
    """Whatever the bytes: decoded segments without separators, or a refusal; never another error."""
    try:
        segments = segments_of(path)
    except Unreadable as refused:
        code: Code | None = refused.code
    else:
        code = None
        assert all(part not in ("", ".", "..") and not set(part) & set("/\\\0") for part in segments)
    assert code in (None, Code.REQUEST_PATH_AMBIGUOUS)


def test_a_query_is_a_map_or_refused() -> None:
    """A field that is there twice has two readings."""
    assert query_of(b"a=1&b=x%20y&c=") == {"a": "1", "b": "x y", "c": ""}
    with pytest.raises(Unreadable) as twice:
        query_of(b"a=1&a=2")
    assert twice.value.code is Code.REQUEST_DUPLICATE_KEY
    with pytest.raises(Unreadable) as broken:
        query_of(b"a=%ff")
    assert broken.value.code is Code.REQUEST_MALFORMED


def test_operations_that_answer_the_same_requests_are_refused() -> None:
    """Two templates that can't be told apart are an error of the configuration."""
    with pytest.raises(ValueError, match="told apart"):
        Router(
            (
                Route(name="one", method="GET", template="/a/{x}"),
                Route(name="two", method="GET", template="/a/{y}"),
            )
        )
    with pytest.raises(ValueError, match="whole segment"):
        Router((Route(name="one", method="GET", template="/a/x-{y}"),))
