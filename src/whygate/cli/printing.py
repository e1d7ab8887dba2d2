"""Stories on a screen, for a tired person: the answer first, then who, what, why, and what can be done."""

import datetime
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from whygate.cli.events import Event
from whygate.cli.repeated import Repeated
from whygate.cli.screen import put, put_command
from whygate.cli.stories import Asked, End, Rule, Story, What, name_of_tool, subject_of_call
from whygate.cli.words import (
    IDENTITIES,
    MARKS,
    PROOFS,
    RESULTS,
    STYLES,
    ago,
    counted,
    duration,
    moment,
    plain,
    plain_lines,
)
from whygate.core.reasons import Outcome
from whygate.core.things import KINDS, QUESTION

LABEL: Final = 9
INDENT: Final = " " * LABEL
DIGEST: Final = 24
"""Characters of a digest that is there to be recognised; JSON has all of it."""
MAX_RULES: Final = 40
"""Rules listed; JSON has them all."""


def outcome_words(outcome: str) -> Text:
    """A mark and the word, coloured: ``x blocked``."""
    return Text(f"{MARKS.get(outcome, '?')} {plain(outcome)}", style=STYLES.get(outcome, ""))


def story(console: Console, told: Story, now: datetime.datetime, ledger: str = "") -> None:
    """Print one decision's story. ``ledger`` is what to add to commands so that they read the same ledger."""
    headline = Text.assemble(
        (plain(told.outcome.upper()), STYLES.get(told.outcome, "bold")),
        (f" {plain(subject_of_call(told.what))} — {plain(told.code)}", "bold"),
    )
    put(console, headline)
    put(console, Text(told.meaning))
    console.print()
    _row(console, "Who", _who(told))
    _row(console, "What", _what(told))
    _row(console, "When", _when(told, now))
    _row(console, "Task", _task(told))
    _row(console, "Why", _why(told))
    if told.rule is not None:
        _rule(console, told.rule)
    _rules(console, told)
    if told.requires:
        _row(console, "Wanted", [Text(line) for line in map(_requirement, told.requires)])
    _row(console, "People", [Text(plain(line)) for line in told.people])
    _row(console, "Told", [_told(told)])
    _row(console, "Became", _became(told.end))
    _row(console, "Now", [Text(plain(line)) for line in _now(told)])
    label = Text("Look".ljust(LABEL), "bold")
    if told.where.task:
        put_command(console, f"whygate task {plain(told.where.task)}{ledger}", label)
        label = Text(INDENT)
    put(console, Text("\n".join(_look(told))), INDENT, label)


def event(console: Console, told: Event, now: datetime.datetime) -> None:
    """Print a record that is no decision."""
    put(console, Text(plain(told.headline), style="bold"))
    console.print()
    _row(console, "When", [Text(_time(told.time, now))])
    width = max([LABEL, *(len(name) + 2 for name in told.details)])
    for name, value in told.details.items():
        put(console, Text(plain(value)), " " * width, Text(plain(name).ljust(width), style="dim"))
    _row(console, "Then", [Text(plain(line)) for line in told.followed])
    _row(console, "Look", [Text(f"record {told.seq}, id {told.id}")])


def _row(console: Console, label: str, paragraphs: Iterable[Text]) -> None:
    first: Text | None = Text(label.ljust(LABEL), style="bold")
    for paragraph in paragraphs:
        put(console, paragraph, INDENT, first)
        first = None


def _who(told: Story) -> list[Text]:
    who = told.who
    head = Text.assemble((plain(who.id), "bold"))
    proof = PROOFS.get(who.proof, plain(who.proof))
    head.append(f" ({IDENTITIES.get(who.type, plain(who.type))}), {'' if who.proof == 'none' else 'proven '}{proof}")
    if who.issuer:
        head.append(f" of {plain(who.issuer)}")
    behalf = (f"on behalf of {plain(actor.id)} ({IDENTITIES[actor.type]})" for actor in who.on_behalf_of)
    lines = [head, *map(Text, behalf)]
    facts = [f"owner {plain(who.owner)}"] if who.owner else []
    if who.roles:
        facts.append(f"roles {', '.join(map(plain, who.roles))}")
    if who.address:
        facts.append(f"from {plain(who.address)}")
    if who.credential:
        facts.append(f"credential {plain(who.credential)}")
    return [*lines, Text("; ".join(facts))] if facts else lines


def _what(told: Story) -> list[Text]:
    what = told.what
    text = Text.assemble((plain(name_of_tool(what)) or plain(what.method), "bold"))
    if what.asked and what.kind == QUESTION:
        text.append(f" — on {plain(what.asked)}")
    elif what.asked and not what.tool:
        text.append(_only_asked(what))
    facts = [f"{what.method} over {what.protocol} {what.revision}".strip()]
    if what.tool and what.kind in KINDS:
        facts.append("asked by the server" if what.kind == QUESTION else f"a {what.kind}")
    elif what.tool:
        facts.append(f"class {what.tool_class}" if what.tool_class else "not classified")
        facts.append(f"tier {what.tier}")
    lines = [text, Text(plain("; ".join(facts)))]
    if what.arguments:
        lines.append(Text(f"arguments {plain(what.arguments)[:DIGEST]}… (keyed digest)"))
    return lines


def _only_asked(what: What) -> str:
    """What a name is that stands in quotation marks."""
    if what.kind in KINDS:
        return f" — a {what.kind} that its server has not listed"
    return " — no tool of this name is in the catalogue"


def _time(when: datetime.datetime, now: datetime.datetime) -> str:
    past = ago(when, now)
    return f"{moment(when)}, {past}" if past else moment(when)


def _when(told: Story, now: datetime.datetime) -> list[Text]:
    lines = [Text(f"{_time(told.time, now)}; deciding took {duration(told.duration_us)}")]
    if told.repeats is not None:
        many = told.repeats
        lines.append(Text(f"{counted(many.count, 'refusal')} of this kind, counted {_between(many)}", "bold"))
        lines.append(Text(f"the call shown is the first of them; all were answered with decision {plain(many.of)}"))
    if told.repeated is not None:
        many = told.repeated
        lines.append(Text(f"{many.count:,} more from the same source followed, counted {_between(many)}"))
    return lines


def _between(many: Repeated) -> str:
    return f"from {moment(many.since)} to {moment(many.until)}"


def _task(told: Story) -> list[Text]:
    where = told.where
    lines = [Text(plain(where.task) if where.task else "none: the call never got as far as joining one")]
    facts = [
        f"{name} {plain(value)}"
        for name, value in (("workflow", where.workflow), ("incident", where.incident))
        if value
    ]
    if where.session:
        facts.append(f"session {plain(where.session)}")
    if facts:
        lines.append(Text("; ".join(facts)))
    claims = (("workflow", where.claimed_workflow), ("incident", where.claimed_incident))
    claimed = [f"{name} “{plain(value)}”" for name, value in claims if value]
    if claimed:
        lines.append(Text(f"claimed by the client, verified by nobody: {', '.join(claimed)}", style="italic"))
    return lines


def _why(told: Story) -> list[Text]:
    rule = told.rule
    if rule is None:
        lines = [Text(plain(told.explanation, 2000))]
        if not told.evaluations and told.effect != "allow":
            lines.append(Text("No rule was asked: a check that comes before all rules refused."))
        return lines
    name = Text.assemble(
        "rule ", (plain(rule.rule), "bold"), f" of policy {plain(rule.policy)}, version {rule.version}"
    )
    if rule.source is not None:
        name.append(f", {plain(rule.source.file)} line {rule.source.line}")
        if rule.source.owner:
            name.append(f"; the policy's owner is {plain(rule.source.owner)}")
    else:
        name.append("; the ledger does not hold its text")
    why = Text(f"“{plain(rule.why, 600)}”")
    # What a rule is for is no reason where the rule could not be read: then what went wrong comes first.
    more = plain(told.explanation.removeprefix(rule.why), 2000).strip()
    if told.outcome == Outcome.ERROR and more:
        return [Text(more), name, why]
    return [why, name, Text(more)] if more else [why, name]


def _rule(console: Console, rule: Rule) -> None:
    if rule.source is None:
        return
    console.print()
    for name, expression in rule.source.lets.items():
        put(console, Text(f"let {plain(name)}: {plain(expression)}", "dim"), f"{INDENT}  ")
    for line in plain_lines(rule.source.text).split("\n"):
        inset = INDENT + " " * (2 + len(line) - len(line.lstrip()))
        put(console, Text(line.lstrip(), "cyan"), f"{inset}  ", inset)
    console.print()


def _rules(console: Console, told: Story) -> None:
    asked = sorted(told.evaluations, key=lambda each: not each.decided)
    if not asked:
        return
    count = counted(len(asked), "rule applies", "rules apply")
    lines = [Text(f"{count} to this agent and tool:")]
    lines += [_answer(each) for each in asked[:MAX_RULES]]
    if len(asked) > MAX_RULES:
        lines.append(Text(f"and {len(asked) - MAX_RULES} more (--json has them all)"))
    _row(console, "Rules", lines)


def _answer(each: Asked) -> Text:
    name = f"{'*' if each.decided else '-'} {plain(each.policy)}/{plain(each.rule)}"
    text = Text.assemble((name, "bold" if each.decided else ""))
    text.append(f" would {plain(each.effect)}: {RESULTS.get(each.result, plain(each.result))}")
    if each.note:
        text.append(f" ({plain(each.note)})")
    if each.mode == "shadow":
        text.append("; in shadow mode, recorded only", "italic")
    if each.decided:
        text.append(" — this decided", "bold")
    return text


def _requirement(need: dict[str, Any]) -> str:
    """What a permit still wants, in words where the form is known."""
    kind, params = str(need.get("kind", "")), need.get("params", {})
    params = params if isinstance(params, dict) else {}
    approvers = ", ".join(map(str, params.get("approvers", ())))
    if kind == "human":
        text = f"the agreement of {params.get('quorum', 1)} of {approvers}, within {params.get('within', 'the time allowed')}"
        if barred := ", ".join(map(str, params.get("not", ()))):
            text += f"; not by the {barred.replace(', ', ' or the ')}"
    elif kind == "grant":
        text = f"a grant of {params.get('entitlement', '?')}, given by {approvers}, for at most {params.get('max_ttl', '?')}"
    else:
        named = {"authn": "a fresher or stronger sign-in", "scope": "a scope", "break_glass": "an open break-glass"}
        facts = ", ".join(f"{name} {value}" for name, value in sorted(params.items()))
        text = named.get(kind, kind) + (f": {facts}" if facts else "")
    return plain(f"{text} (rule {need.get('policy', '')}/{need.get('rule', '')})")


def _told(told: Story) -> Text:
    said = told.told
    after = f" — it {plain(said.next_words)} (next: {plain(said.next)})." if said.next_words else ""
    return Text(f"“{plain(said.note)}”{after}")


def _became(end: End) -> list[Text]:
    style = {"failed": "red", "unknown": "red"}.get(end.state, "red" if end.is_error else "")
    return [Text(plain(end.words), style)]


def _now(told: Story) -> list[str]:
    """What can be done, by whoever reads this."""
    remedies = [remedy for remedy in (told.remedy, told.end.remedy) if remedy]
    if remedies:
        return remedies
    if told.effect == "allow":
        return ["Nothing has to be done."]
    return [f"Nothing here. The agent {told.told.next_words}."]


def _look(told: Story) -> list[str]:
    lines = []
    if told.where.trace_id:
        lines.append(f"trace {plain(told.where.trace_id)}, span {plain(told.where.span_id)}")
    if told.where.foreign_trace:
        lines.append(f"came with the foreign trace {plain(told.where.foreign_trace)}, linked only")
    lines.append(f"record {told.seq}, decision {plain(told.id)}")
    if told.policy_digest:
        lines.append(f"policy set {plain(told.policy_digest)}")
    return lines
