"""From records to stories: whatever was decided, there is a story, and it says what the record says."""

import datetime

import msgspec
import pytest
from rich.console import Console
from tests.edges import cli_world as world

from whygate.cli import chains, events, printing, printing_chains, rule_text, stories, words
from whygate.core import ids
from whygate.core.decision import Result
from whygate.core.reasons import Code, Outcome
from whygate.core.records import (
    KINDS,
    Action,
    AnyRecord,
    Claimed,
    Context,
    DecisionRecord,
    LifeRecord,
    Link,
    PolicyFile,
    PolicyInForce,
    PolicyRecord,
    Reason,
    Resource,
    Subject,
    ToolRecord,
)

NOW = datetime.datetime(2026, 11, 23, 21, 0, tzinfo=datetime.UTC)
DECIDING = [code for code in Code if code.entry.outcome is not None]
COMPLETING = [code for code in Code if code.entry.outcome is None]


def printed(story: stories.Story, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open_nothing(), highlight=False, markup=False)
    printing.story(console, story, NOW)
    return console.export_text()


def printed_chain(chain: chains.Chain, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open_nothing(), highlight=False, markup=False)
    printing_chains.chain(console, chain)
    return console.export_text()


def open_nothing() -> "Nothing":
    return Nothing()


class Nothing:
    """A file that keeps nothing: the console records."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def one_line(text: str) -> str:
    return " ".join(text.split())


# --- decisions ---


@pytest.mark.parametrize("code", DECIDING)
def test_every_code_has_a_story(code: Code) -> None:
    """Whatever the reason: the first line is the answer, and the meaning, the agent's note and the remedy are there."""
    record = world.decision(code)
    text = printed(stories.tell(record))
    first = text.split("\n", 1)[0]
    assert first == f"{code.outcome.upper()} tools/call billing/refund — {code}"
    flat = one_line(text)
    assert one_line(code.entry.meaning) in flat
    assert one_line(code.entry.user) in flat
    assert one_line(code.entry.remedy) in flat
    assert record.id in flat
    assert ("Not sent to the tool." in flat) is not code.outcome.allows


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_outcome_is_a_word_and_a_mark(outcome: Outcome) -> None:
    """Who sees no colours misses nothing."""
    text = printing.outcome_words(outcome).plain
    assert text == f"{words.MARKS[outcome]} {outcome.value}"


def test_a_refusal_by_a_rule_shows_the_rule() -> None:
    """File, line and text of the rule that decided, as the set in force had them; every rule asked, and its answer."""
    story = stories.tell(world.refund_denied(), None, world.TEXTS)
    assert story.rule is not None
    assert story.rule.source is not None
    line = world.TEXTS["support-agent.yaml"].split("\n")[story.rule.source.line - 1]
    assert line.strip() == "- id: refund-cap"
    flat = one_line(printed(story, 200))
    assert (
        f"rule refund-cap of policy support-agent, version 1, support-agent.yaml line {story.rule.source.line}" in flat
    )
    assert "when: args.amount_cents > 500000" in flat
    assert "“Nobody refunds more than 5,000.00 in one call; split payments are for the finance team.”" in flat
    assert "* support-agent/refund-cap would deny: matches — this decided" in flat
    assert "- support-agent/refund-small would permit: does not match" in flat


def test_a_policy_that_is_not_kept_is_said_to_be_missing() -> None:
    """Without the text there are still rule, policy, version and the recorded why."""
    flat = one_line(printed(stories.tell(world.refund_denied()), 200))
    assert "rule refund-cap of policy support-agent, version 1; the ledger does not hold its text" in flat
    assert "“Nobody refunds more than 5,000.00" in flat


def test_a_rule_that_failed_says_on_what() -> None:
    """An error shows what could not be evaluated first: what the rule is for is not why it failed."""
    code = Code.POLICY_EVAL_ERROR
    why = "Refunds up to 100.00 are routine."
    admin = f"{why} This rule could not be evaluated: `amount_cents` is absent (guard it with has())."
    record = world.decision(
        code,
        by="refund-small",
        reason=Reason(admin=admin, code=code.value, user=code.entry.user),
        evaluations=(world.answer("refund-small", Result.ERROR, code=code, note="`amount_cents` is absent"),),
    )
    flat = one_line(printed(stories.tell(record, None, world.TEXTS), 200))
    assert "Why This rule could not be evaluated: `amount_cents` is absent" in flat
    assert flat.count(why) > 0
    assert "refund-small would permit: could not be evaluated (`amount_cents` is absent)" in flat


def test_a_gate_says_that_no_rule_was_asked() -> None:
    """Where a check before all rules refused, nobody looks for a rule that does not exist."""
    flat = one_line(printed(stories.tell(world.decision(Code.AGENT_SUSPENDED))))
    assert "No rule was asked: a check that comes before all rules refused." in flat


def test_a_challenge_says_what_it_wants() -> None:
    """Who has to agree, how many, how fast, and who may not."""
    flat = one_line(printed(stories.tell(world.refund_challenged(), None, world.TEXTS), 200))
    assert "the agreement of 1 of group:finance-leads, within 10m; not by the requester or the owner" in flat


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        (
            "grant",
            {"entitlement": "ledger-writer", "approvers": ["group:x"], "max_ttl": "15m"},
            "a grant of ledger-writer",
        ),
        ("scope", {"scopes": ["refunds:write"]}, "a scope: scopes ['refunds:write']"),
        ("authn", {"max_age": "15m"}, "a fresher or stronger sign-in: max_age 15m"),
        ("break_glass", {"incident": True}, "an open break-glass: incident True"),
        ("of a later version", {}, "of a later version"),
        ("human", "not a map", "the agreement of 1 of"),
    ],
)
def test_every_requirement_has_words(kind: str, params: object, said: str) -> None:
    """Also one that this version does not know, or whose form is not what it was."""
    need = {"kind": kind, "params": params, "policy": "p", "rule": "r"}
    flat = one_line(printed(stories.tell(world.decision(Code.JIT_GRANT_REQUIRED, requires=(need,))), 200))
    assert said in flat
    assert "(rule p/r)" in flat


def test_what_a_client_claims_is_marked() -> None:
    """Workflow and incident that only the client said never stand beside those of the task."""
    record = world.decision(context=Context(task="t", claimed=Claimed(workflow="trust-me", incident="INC-1")))
    story = stories.tell(record)
    assert (story.where.workflow, story.where.claimed_workflow) == ("", "trust-me")
    flat = one_line(printed(story))
    assert "claimed by the client, verified by nobody: workflow “trust-me”, incident “INC-1”" in flat


def test_who_has_the_whole_chain() -> None:
    """Type, proof, owner, on whose behalf, and from where."""
    flat = one_line(printed(stories.tell(world.decision()), 300))
    assert "agent:support (AI agent), proven by a token (JWT) of https://idp.example" in flat
    assert "on behalf of ada@example.com (person)" in flat
    assert "owner support-team@example.com; roles support-agent; from 10.1.2.3" in flat


def test_nobody_is_said_to_be_nobody() -> None:
    """A call without a credential names no one, and no task."""
    nobody = Subject(id="anonymous", proof="none", type="anonymous")
    record = world.decision(Code.AGENT_UNAUTHENTICATED, subject=nobody, context=Context())
    flat = one_line(printed(stories.tell(record)))
    assert "anonymous (nobody known), not proven" in flat
    assert "none: the call never got as far as joining one" in flat
    assert "whygate task" not in flat


def test_a_shadow_rule_is_said_to_change_nothing() -> None:
    """What was only evaluated is not taken for a cause."""
    trial = world.answer("lax", Result.MATCH, policy="trial", mode="shadow")
    flat = one_line(printed(stories.tell(world.decision(Code.POLICY_NO_MATCH, evaluations=(trial,)))))
    assert "trial/lax would permit: matches; in shadow mode, recorded only" in flat


def test_a_code_of_a_later_version() -> None:
    """A reader that meets a code it does not know goes by the outcome, and says so."""
    record = world.decision(Code.POLICY_EXPLICIT_DENY, reason=Reason(admin="Later.", code="later.reason", user="No."))
    text = printed(stories.tell(record))
    assert text.startswith("BLOCKED tools/call billing/refund — later.reason")
    assert stories.UNKNOWN_CODE in one_line(text)


def test_a_foreign_trace_is_linked_only() -> None:
    """The trace that a call came with is shown apart from the one it is in."""
    context = Context(task="t", trace_id="a" * 32, link=Link(trace_id="f" * 32, span_id="1" * 16))
    flat = one_line(printed(stories.tell(world.decision(context=context))))
    assert f"came with the foreign trace {'f' * 32}, linked only" in flat


# --- what became of it ---


@pytest.mark.parametrize(
    ("made", "state", "said"),
    [
        ({}, "answered", "Answered: HTTP status 200, 1,234 bytes, after 12 ms."),
        ({"is_error": True, "error": "tool_error"}, "answered", "Answered with an error (tool_error): HTTP status 200"),
        ({"hidden": 1}, "answered", "1 entry that the caller may not see were left out."),
        (
            {"code": "upstream.failed", "status": 502, "error": "refused"},
            "failed",
            "could not be reached or broke off.",
        ),
        ({"code": "upstream.timeout", "status": 0}, "failed", "did not answer in time."),
        ({"code": "outcome.unknown"}, "unknown", "stopped before it knew what became of it."),
        ({"code": "result.too_large"}, "answered", "was above its cap and was cut off."),
        ({"code": "result.masked"}, "answered", "Parts of the result were masked"),
        ({"code": "result.blocked"}, "answered", "The result was withheld by rule."),
        ({"code": "later.code"}, "answered", "later.code"),
    ],
)
def test_every_end_is_told(made: dict[str, object], state: str, said: str) -> None:
    """Status, size and duration of an answer; what is known of a call that got none; never a guess."""
    record = world.decision()
    end = stories.tell(record, world.completion(record, **made)).end
    assert end.state == state
    assert said in end.words


def test_the_table_of_ends_is_complete() -> None:
    """Each code that only completions carry is told in words of its own."""
    record = world.decision()
    told = {stories.tell(record, world.completion(record, code.value)).end.words for code in COMPLETING}
    assert len(told) == len(COMPLETING)


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (world.decision(Code.POLICY_NO_MATCH), "not_sent"),
        (world.decision(), "open"),
        (world.decision(enforcement="external"), "elsewhere"),
    ],
)
def test_a_call_without_an_end(record: DecisionRecord, state: str) -> None:
    """Refused calls were not sent, allowed ones may still run, others' calls are theirs to know about."""
    assert stories.tell(record).end.state == state


# --- other records ---


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (world.opened(), "TASK opened 01997a3c-0000-7000-8000-00000000aaaa by ada@example.com"),
        (
            PolicyRecord(
                digest="sha256:1",
                event="in_force",
                files=(PolicyFile(digest="d", name="a.yaml"),),
                id="1",
                kind="policy",
                v=1,
            ),
            "POLICY in force (1 file)",
        ),
        (
            PolicyRecord(digest="", errors=("a.yaml:1:1: no",), event="refused", id="1", kind="policy", v=1),
            "POLICY refused",
        ),
        (
            ToolRecord(cause="command", digest="sha256:1", event="in_force", id="1", kind="tool", v=1),
            "PINS in force (0 files)",
        ),
        (
            ToolRecord(cause="look", event="changed", id="1", kind="tool", tool="git/git_log", v=1),
            "TOOL git/git_log differs from its pin: calls are refused",
        ),
        (world.completion(world.decision()), "COMPLETION of"),
        *(
            (LifeRecord(data={"version": "1"}, id="1", kind=kind, v=1), kind.upper().replace("_", " "))
            for kind in ("start", "stop", "gap", "clock_step", "config")
        ),
    ],
)
def test_every_kind_of_record_is_told(record: AnyRecord, said: str) -> None:
    """An id of any record gets an answer, not a stack trace."""
    assert record.kind in KINDS
    told = events.event(record)
    assert said in told.headline
    console = Console(width=60, record=True, file=open_nothing())
    printing.event(console, told, NOW)
    assert said[:20] in console.export_text()


def test_a_call_of_all_servers_is_told_with_its_address() -> None:
    """There is no server to name, and nothing is no answer to "of what?"."""
    about = {"action": Action(name="tools/list", protocol="mcp"), "resource": Resource()}
    told = stories.tell(world.decision(Code.POLICY_PUBLIC_TOOL, **about))
    assert stories.subject_of_call(told.what) == "tools/list /mcp"
    refused = stories.tell(world.decision(Code.REQUEST_SERVER_UNKNOWN, **about))
    assert stories.subject_of_call(refused.what) == "tools/list"


# --- hostile text ---

HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\nPERMITTED\u202egnp\u2066\u200b\x9b31m\ud800"


def test_text_of_a_record_commands_no_terminal() -> None:
    """Control and bidirectional characters never reach the screen, markup stays text, and a name stays on its line."""
    record = world.decision(
        Code.TOOL_UNKNOWN,
        resource=Resource(asked=HOSTILE, server=HOSTILE),
        subject=Subject(id=HOSTILE, proof=HOSTILE, type=HOSTILE, owner=HOSTILE, roles=(HOSTILE,)),
        context=Context(task=HOSTILE, trace_id=HOSTILE, claimed=Claimed(workflow=HOSTILE), session=HOSTILE),
        reason=Reason(admin=HOSTILE, code=HOSTILE, user=HOSTILE),
        policy=PolicyInForce(digest=HOSTILE),
        outcome=HOSTILE,
        next=HOSTILE,
        requires=({"kind": HOSTILE, "params": {HOSTILE: HOSTILE}, "policy": HOSTILE, "rule": HOSTILE},),
    )
    end = world.completion(record, HOSTILE, error=HOSTILE)
    chain = chains.build(HOSTILE, "task", [world.opened(), record, end])
    for text in (printed(stories.tell(record, end)), printed_chain(chain)):
        assert not set(text) & set("\x1b\x07\x9b\u202e\u2066\u200b\ud800")
        assert "[bold red]x[/]" in text
        assert not any(line.startswith("PERMITTED") for line in text.split("\n"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("größer 日本", "größer 日本"),
        ("a\tb\nc", "a\ufffdb\ufffdc"),
        ("a\u2003b", "a b"),
        ("x" * 500, "x" * 400 + "… (500 characters)"),
    ],
)
def test_plain(given: str, shown: str) -> None:
    """What is fine stays, what is not leaves a mark, what is endless ends."""
    assert words.plain(given) == shown


@pytest.mark.parametrize(
    ("us", "said"),
    [
        (0, "0 µs"),
        (999, "999 µs"),
        (1500, "1.5 ms"),
        (12_000, "12 ms"),
        (1_500_000, "1.5 s"),
        (61_000_000, "1 min 1 s"),
        (3_720_000_000, "1 h 2 min"),
    ],
)
def test_durations(us: int, said: str) -> None:
    """In the unit that a person would choose."""
    assert words.duration(us) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, ""), (0, "just now"), (1, "1 second ago"), (7300, "2 hours ago"), (200_000, "2 days ago")],
)
def test_ago(seconds: int, said: str) -> None:
    """In one unit; a time ahead of the reader's clock gets none."""
    assert words.ago(NOW - datetime.timedelta(seconds=seconds), NOW) == said


# --- rules ---


@pytest.mark.parametrize("name", ["read-invoices", "refund-large", "keep-work"])
def test_a_rule_is_found_whole(name: str) -> None:
    """From its dash to the line before the next rule, without what follows."""
    found = rule_text.find(world.TEXTS, world.rule(name))
    assert found is not None
    assert found.text.startswith(f"- id: {name}\n")
    assert found.text.count("- id:") == 1
    assert "tests:" not in found.text
    assert found.text.split("\n")[-1].startswith("  why: ")


def test_a_rule_in_a_second_document() -> None:
    """Several policies in one file have their own lines."""
    found = rule_text.find(world.TEXTS, world.rule("current-time", policy="researcher"))
    assert found is not None
    assert world.TEXTS["support-agent.yaml"].split("\n")[found.line - 1].strip() == "- id: current-time"


def test_a_rule_comes_with_the_words_it_uses() -> None:
    """The policy's `let` that a condition names is shown with it, and no other."""
    found = rule_text.find(world.TEXTS, world.rule("refund-small"))
    assert found is not None
    assert found.lets == {"large": "args.amount_cents > 10000"}
    other = rule_text.find(world.TEXTS, world.rule("refund-cap"))
    assert other is not None
    assert other.lets == {}


@pytest.mark.parametrize(
    "texts",
    [{}, {"a.yaml": "]["}, {"a.yaml": "- 1"}, {"a.yaml": "policy: support-agent\nversion: 1\nrules: 3"}, world.TEXTS],
)
def test_a_rule_that_is_not_there(texts: dict[str, str]) -> None:
    """Whatever the ledger holds instead, the answer is "not there"."""
    assert rule_text.find(texts, world.rule("never-written")) is None


# --- chains ---


def test_calls_made_from_a_call_stand_below_it() -> None:
    """By the span that was named as parent, be it the call's own or the one towards the tool; across agents."""
    story = world.Story()
    deeper = world.decision(parent=ids.span_id("server", story.helper.id))
    chain = chains.build(world.TASK, "task", [*story.records, deeper])
    depths = {call.id: call.depth for call in chain.calls}
    assert [call.id for call in chain.calls[:3]] == [story.read.id, story.helper.id, deeper.id]
    assert (depths[story.read.id], depths[story.helper.id], depths[deeper.id]) == (0, 1, 2)
    assert depths[story.denied.id] == 0


def test_a_forged_parent_makes_no_circle() -> None:
    """Calls that name each other, or themselves, as parents are all shown, once."""
    first, second = world.decision(), world.decision()
    first = msgspec.structs.replace(first, context=world.context(first.id, parent=ids.span_id("server", second.id)))
    second = msgspec.structs.replace(second, context=world.context(second.id, parent=ids.span_id("server", first.id)))
    third = world.decision()
    third = msgspec.structs.replace(third, context=world.context(third.id, parent=ids.span_id("server", third.id)))
    chain = chains.build(world.TASK, "task", [first, second, third])
    assert [call.id for call in chain.calls] == [first.id, second.id, third.id]


def test_a_chain_counts_and_tells() -> None:
    """Counts by outcome, the subject where it changes, the note of what was refused, and how to ask on."""
    story = world.Story()
    text = printed_chain(chains.build(world.TASK, "task", story.records))
    flat = one_line(text)
    assert "4 calls" in flat
    assert "2 permitted, 1 challenged, 1 blocked" in flat
    assert flat.count("as agent:support, on behalf of ada@example.com") == 2
    assert flat.count("as agent:researcher") == 1
    assert "x blocked billing/refund args.limit_exceeded" in flat
    assert "the tool did not answer in time" in flat
    assert f"Why? whygate why {story.denied.id}" in flat


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_a_chain_fits_the_screen(width: int) -> None:
    """No line is longer than the screen is wide, and none ends in blanks."""
    story = world.Story()
    chain = chains.build(world.TASK, "task", story.records)
    lines = printed_chain(chain, max(width, 60)).split("\n")
    assert [line for line in lines if len(line) > max(width, 60) or line != line.rstrip()] == []


def test_a_task_without_calls() -> None:
    """Somebody opened it and nothing came: that is said, too."""
    text = printed_chain(chains.build(world.TASK, "task", [world.opened()]))
    assert "no calls yet" in text
    assert "0 calls" in text


def test_stories_are_json() -> None:
    """Every field is there, whatever the record left out."""
    bare = world.decision(Code.POLICY_NO_MATCH, context=Context(), client=world.Client(), arguments=world.Arguments())
    full = world.refund_challenged()
    plain = [msgspec.to_builtins(stories.tell(each, None, world.TEXTS)) for each in (bare, full)]
    assert set(plain[0]) == set(plain[1])
    assert set(plain[0]["what"]) == set(plain[1]["what"])
