"""Chains on a screen: a tree, one line for each call, and more for those that were refused."""

from typing import Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from whygate.cli.chains import Call, Chain, summary
from whygate.cli.printing import outcome_words
from whygate.cli.screen import NARROWEST, put, put_command
from whygate.cli.words import duration, moment, offset, plain

GUIDE: Final = 4
"""Columns that each level of the tree takes."""
HANGING: Final = 11
"""Under the outcome: the column of times stays clear."""


def chain(console: Console, told: Chain, ledger: str = "") -> None:
    """Print a task or a trace. ``ledger`` is what to add to commands so that they read the same ledger."""
    tree = Tree(_head(told), guide_style="dim")
    branches = {"": tree}
    before: tuple[str, tuple[str, ...]] | None = None
    for call in told.calls:
        who = (call.subject, call.on_behalf_of)
        width = console.width - GUIDE * (call.depth + 1)
        label = _wrapped(console, _line(call), width, HANGING)
        for detail in _details(call, changed=who != before):
            label.append("\n  ")
            label.append_text(_wrapped(console, detail, width - 2, 2))
        branches[call.id] = branches[call.parent].add(label)
        before = who
    console.print(tree)
    console.print()
    footer(console, told, ledger)


def _wrapped(console: Console, text: Text, width: int, hanging: int) -> Text:
    """``text`` in lines of at most ``width``, the second and later ones indented: a tree's own wrapping loses the indent."""
    if text.cell_len <= width:
        return text
    lines = text.wrap(console, max(NARROWEST, width - hanging))
    for line in lines:
        line.rstrip()
    return Text("\n" + " " * hanging).join(lines)


def footer(console: Console, told: Chain, ledger: str) -> None:
    """Counts, and how to ask on."""
    put(console, Text(summary(told), style="bold"))
    refused = told.refused
    example = refused[0].id if refused else told.calls[0].id if told.calls else ""
    if example:
        put_command(console, f"whygate why {plain(example)}{ledger}", "Why? ")
    if told.trace_id:
        put(console, Text(f"Trace {plain(told.trace_id)}"))


def _head(told: Chain) -> Text:
    text = Text.assemble((f"{told.kind.capitalize()} {plain(told.id)}", "bold"))
    facts = [
        f"{name} {plain(value)}" for name, value in (("workflow", told.workflow), ("incident", told.incident)) if value
    ]
    if told.closed:
        facts.append("closed")
    if facts:
        text.append(f"\n{'; '.join(facts)}")
    if told.opened_at is not None:
        by = f"opened by {plain(told.opened_by)}" if not told.derived else f"opened for {plain(told.opened_by)}"
        text.append(f"\n{by}, {moment(told.opened_at)}")
        if told.derived:
            text.append(" — its calls named no task")
    for each in told.people:
        text.append(f"\n{plain(each)}")
    if not told.calls:
        text.append("\nno calls yet")
    return text


def _line(call: Call) -> Text:
    text = Text.assemble((offset(call.offset_us), "dim"))
    text.append("  ")
    mark = outcome_words(call.outcome)
    mark.pad_right(max(0, 13 - len(mark)))
    text.append_text(mark)
    # The method says nothing more about an MCP tool; for everything else it is half of the name.
    method = "" if call.method == "tools/call" else f"{plain(call.method)} "
    text.append(f"{method}{plain(call.tool, 60)}", "bold")
    text.append(f"  {plain(call.code)}", "" if call.allowed else "bold")
    if call.end.state in {"answered", "failed", "unknown"}:
        text.append(f"  {duration(call.end.duration_us)}", "dim")
    return text


def _details(call: Call, *, changed: bool) -> list[Text]:
    lines = []
    if changed:
        behalf = f", on behalf of {', '.join(map(plain, call.on_behalf_of))}" if call.on_behalf_of else ""
        lines.append(Text(f"as {plain(call.subject)}{behalf}", "italic"))
    if not call.allowed:
        lines.append(Text(plain(call.note, 1000)))
        lines.append(Text(plain(call.id), "dim"))
    elif call.end.state in {"failed", "unknown", "open"} or call.end.is_error:
        lines.append(Text(plain(call.end.words)))
    lines += [Text(plain(each), "yellow") for each in call.people]
    return lines
