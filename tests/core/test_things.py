"""Resources, prompts and questions: how their names are read, shown, and selected."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.policy_bench import AGENT, FACTS, made, rule

from whygate.core.calls import Tool, ToolCall
from whygate.core.decide import decide
from whygate.core.policy import match
from whygate.core.policy.cases import run
from whygate.core.policy.parse import load
from whygate.core.reasons import Code
from whygate.core.things import MAX_SHOWN, MAX_URI, doubt_about_name, doubt_about_uri, shown_uri

PLAIN = (
    "file:///srv/docs/a.md",
    "file:///srv/docs/Übung (1).md".replace(" ", "%20"),
    "test://static-text",
    "test://template/{id}/data",
    "memo://Insights",
    "repo://owner/name/contents/src/main.py?ref=..%2fmain",
    "proxy://https://example.com/x",
    "urn:uuid:01a20a43-0a03-7905-8000-000000000000",
    "ui://app/view.html#a/../b",
    "db://main/table%20one",
)
DOUBTED = (
    ("file:///srv/docs/../secret", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs/..", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/./docs", Code.REQUEST_PATH_AMBIGUOUS),
    ("memo://..", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs/..;x/secret", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs/%2e%2e/secret", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/%64ocs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs%2Fa", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs%5c..", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs/%252e%252e/secret", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs/a%00.md", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv//docs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:////srv/docs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("file://localhost/srv/docs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:/srv/docs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("FILE:///srv/docs/a", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/\uff0e\uff0e/secret", Code.REQUEST_PATH_AMBIGUOUS),
    ("file:///srv/docs\\a", Code.REQUEST_MALFORMED),
    ("file:///srv/docs/a b", Code.REQUEST_MALFORMED),
    ("file:///srv/docs/a\n", Code.REQUEST_MALFORMED),
    ("file:///srv/100%", Code.REQUEST_MALFORMED),
    ("/srv/docs/a", Code.REQUEST_MALFORMED),
    ("", Code.REQUEST_MALFORMED),
    ("x:" + "a" * MAX_URI, Code.ARGS_TOO_LARGE),
)


@pytest.mark.parametrize("uri", PLAIN)
def test_a_plain_uri_is_read_in_one_way(uri: str) -> None:
    """What honest servers use is asked about as it is."""
    assert doubt_about_uri(uri) is None


@pytest.mark.parametrize(("uri", "code"), DOUBTED)
def test_a_uri_that_can_be_read_in_two_ways_reaches_no_rule(uri: str, code: Code) -> None:
    """A rule's pattern would see one thing and the server open another."""
    found = doubt_about_uri(uri)
    assert found is not None
    assert found.code is code
    assert found.note


@given(st.text(max_size=80))
def test_no_text_makes_reading_a_uri_fail(text: str) -> None:
    """Whatever is sent, there is an answer."""
    for uri in (text, f"file:///{text}"):
        found = doubt_about_uri(uri)
        assert found is None or found.note
        assert len(shown_uri(uri)) <= MAX_SHOWN


def test_prompts_have_names() -> None:
    """Not nothing, nothing that no screen shows, nothing endless."""
    assert doubt_about_name("Write a summary") is None
    assert all(doubt_about_name(name) is not None for name in ("", "a\nb", "x" * 200, "\u202eabc"))


def test_a_record_shows_no_secret_of_a_uri() -> None:
    """User, query and fragment stay out, and of a long one the end."""
    assert shown_uri("https://ada:pw@example.com/a?token=s#f") == "https://example.com/a"
    assert shown_uri("https://a@b@example.com/a@c") == "https://example.com/a@c"
    assert shown_uri("db://main/x") == "db://main/x"
    assert len(shown_uri("x:" + "y" * 1000)) == MAX_SHOWN


# --- selectors ---

DOCS = Tool(server="docs", name="file:///srv/docs/a.md", type="resource")
GREET = Tool(server="docs", name="greet", type="prompt")
FORM = Tool(server="docs", name="elicitation", type="question")
TOOL = Tool(server="docs", name="file:///srv/docs/a.md", type="mcp")
SELECTED = (
    ("resource:docs/file:///srv/docs/a.md", DOCS),
    ("resource:docs/file:///srv/docs/*", DOCS),
    ("resource:docs/file:///srv/*.md", DOCS),
    ("resource:docs/*", DOCS),
    ("resource:*/*", DOCS),
    ("resource:d*s/file:*", DOCS),
    ("prompt:docs/greet", GREET),
    ("prompt:*/gr*", GREET),
    ("question:docs/elicitation", FORM),
    ("question:*/*", FORM),
    ("docs/file:///srv/docs/a.md", TOOL),
    ("docs/*", TOOL),
    ("*", TOOL),
    ("label:untrusted", TOOL),
)


@pytest.mark.parametrize(("selector", "thing"), SELECTED)
def test_a_selector_names_one_kind_of_thing(selector: str, thing: Tool) -> None:
    """A rule about tools is none about resources, prompts or questions, though their names be the same; nor the other way."""
    policies = made(rule("r", "permit: {}", tools=f"['{selector}']"))
    for each in (DOCS, GREET, FORM, TOOL):
        call = ToolCall(protocol="mcp", method="x", tool=each, args={}, principal=AGENT)
        expected = each is thing
        assert match.parse_tool(selector).matches(each) is expected
        assert decide(call, FACTS, policies).allows is expected
        assert policies.visible(AGENT, each) is expected


@pytest.mark.parametrize(
    "selector",
    [
        *("resource:docs", "resource:/x", "resource:docs/", "resource:docs/a b", "resource:DOCS!/x:y", "prompt:docs"),
        *(
            "resource:docs/FILE:*",
            "resource:docs/%2e*",
            "question:docs/password",
            "question:docs/x*",
            "sampling:docs/x",
        ),
    ],
)
def test_a_selector_that_could_never_match_is_refused(selector: str) -> None:
    """A typing error in a deny must not pass for a deny."""
    with pytest.raises(ValueError, match=r"\w+"):
        match.parse_tool(selector)


@given(
    st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=5),
    st.text(alphabet="ab", max_size=12),
)
def test_a_glob_means_what_a_regular_expression_would(pieces: list[str], name: str) -> None:
    """The quick way gives the same answer as the plain one."""
    plain = re.fullmatch(".*".join(map(re.escape, pieces)), name, re.DOTALL) is not None
    assert match._fits(tuple(pieces), name) is plain


def test_no_uri_makes_a_glob_slow() -> None:
    """The caller chooses the URI, and conditions run while others wait: as a regular expression this takes minutes."""
    selector = match.parse_tool("resource:docs/*" + "a*" * 30 + "b")
    thing = Tool(server="docs", name="x:" + "a" * (MAX_URI - 2), type="resource")
    before = time.process_time()
    assert not selector.matches(thing)
    assert time.process_time() - before < 0.05


def test_policies_test_resources_prompts_and_questions() -> None:
    """A test names them as a rule does; a resource's URI is an argument, an answer is seen by its own name."""
    text = """
policy: docs
version: 1
owner: docs@example.com
agents: ["role:clerk"]
rules:
  - {id: read, tools: ["resource:docs/file:///srv/*"], when: 'args.uri.endsWith(".md")', permit: {}, why: Texts.}
  - {id: greet, tools: ["prompt:docs/greet"], when: 'args.name != "root"', permit: {}, why: Greetings.}
  - {id: page, tools: ["question:docs/page"], when: 'args.host == "pay.example"', permit: {}, why: Our pages.}
  - {id: sure, tools: [docs/drop], when: 'has(answers.sure) && answers.sure.action == "accept"', permit: {}, why: Asked.}
tests:
  - {given: {tool: "resource:docs/file:///srv/a.md"}, expect: {outcome: permitted, rule: read}}
  - {given: {tool: "resource:docs/file:///srv/a.key"}, expect: {outcome: blocked}}
  - {given: {tool: "prompt:docs/greet", args: {name: ada}}, expect: {outcome: permitted, rule: greet}}
  - {given: {tool: "prompt:docs/greet"}, expect: {outcome: error}}
  - {given: {tool: "question:docs/page", args: {host: pay.example}}, expect: {outcome: permitted}}
  - {given: {tool: "question:docs/elicitation"}, expect: {outcome: blocked, code: policy.no_match}}
  - {given: {tool: docs/drop}, expect: {outcome: blocked}}
  - {given: {tool: docs/drop, answers: {sure: {action: accept}}}, expect: {outcome: permitted, rule: sure}}
"""
    results = run(load({"docs.yaml": text}))
    assert len(results) == 8
    assert [each.problems for each in results if not each.passed] == []


def test_an_answer_that_is_too_large_to_look_at_is_no_answer() -> None:
    """A rule that reads it can't be evaluated, so the call is refused; one that does not is not bothered."""
    large = {"sure": {"content": "x" * 100_000}}
    reading = made(rule("r", "permit: {}", "has(answers.sure)", tools="[docs/drop]"))
    careless = made(rule("r", "permit: {}", tools="[docs/drop]"))
    call = ToolCall(
        protocol="mcp", method="tools/call", tool=Tool(server="docs", name="drop", type="mcp"), principal=AGENT
    )
    for policies, code in ((reading, Code.POLICY_EVAL_ERROR), (careless, Code.ROLE_PERMITTED)):
        answered = ToolCall(protocol="mcp", method="tools/call", tool=call.tool, principal=AGENT, answers=large)
        assert decide(answered, FACTS, policies).code is code
