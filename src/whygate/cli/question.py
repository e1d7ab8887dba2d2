"""A question to a person, on a terminal: the same document that the console lays out, and what agreeing allows.

Rules of this file:

1. Nothing that is shown is left out, arguments whole: what isn't seen isn't agreed to.
2. Words of the tool and of the caller are marked as theirs. Whatever a terminal would obey is made visible.
3. Nothing is agreed to here: an agent may own this terminal.
"""

import datetime
import json
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from whygate.cli.screen import put, put_command
from whygate.cli.words import counted, duration, plain
from whygate.core.approvals import ON_BEHALF_OF, OWNER

LABEL: Final = 13
WHOLE: Final = 300_000
"""Characters: more than a document may have, so nothing is cut."""


def show(console: Console, one: dict[str, Any], now: datetime.datetime) -> None:
    """Print a question as ``Held.approval`` gives it."""
    shown = one.get("shown") or {}
    what = one["tool"] or one["entitlement"]
    put(console, Text(plain(f"{one['principal']} asks for {what}"), "bold"))
    put(console, Text(standing(one, now), "yellow" if one["state"] == "pending" else ""))
    console.print()
    _row(
        console,
        "Who asks",
        f"{one['principal']} ({shown.get('requester_type', 'agent')}); owner {one['owner'] or 'unknown'}",
    )
    _row(console, "For whom", ", ".join(one["on_behalf_of"]) or "nobody but itself")
    if one["entitlement"]:
        _row(console, "Elevation", one["entitlement"])
    facts = [f"class {shown['tool_class']}"] if shown.get("tool_class") else []
    facts += [f"tier {shown['tier']}"] if shown.get("tier") else []
    _row(console, "Tool", "; ".join([one["tool"], *facts]))
    if shown.get("description"):
        _row(console, "It says", f"“{shown['description']}”")
        _row(console, "", "(the tool's own words, not ours: not to be believed)")
    if shown.get("reason"):
        _row(console, "The caller", f"“{shown['reason']}”")
        _row(console, "", "(the caller's own words: not to be believed either)")
    if one.get("shown") is None:
        _row(
            console,
            "Arguments",
            "can't be shown here: it is over, sealed, or not for you. $WHYGATE_TOKEN says who you are; the console shows it to those who are asked.",
        )
    else:
        _arguments(console, shown)
    why = f"“{shown['why']}” — " if shown.get("why") else ""
    _row(console, "Why", f"{why}rule {one['policy']}/{one['rule']}")
    if shown.get("when"):
        _row(console, "When", str(shown["when"]))
    work = [f"{name} {shown[name]}" for name in ("task", "workflow", "incident") if shown.get(name)]
    _row(console, "Task", "; ".join(work) or one["task"] or "none")
    _row(console, "Agreeing", allows(one))
    _row(console, "May answer", who_may(one))
    if one["agreed"]:
        _row(console, "Agreed", ", ".join(one["agreed"]))
    if one["shown_digest"]:
        _row(console, "Document", one["shown_digest"])


def standing(one: dict[str, Any], now: datetime.datetime) -> str:
    """How it stands, with the time that is left."""
    if one["state"] == "pending":
        left = _left_us(one["answer_by"], now)
        return f"Waits for an answer: {duration(left)} left; silence refuses." if left else "Nobody answered in time."
    if one["state"] == "approved":
        left = _left_us(one["usable_until"], now)
        return (
            f"Approved; {counted(one['uses_left'], 'use')} left for {duration(left)}."
            if left
            else "Approved; its time is over."
        )
    return f"{one['state'].capitalize()}."


def who_may(one: dict[str, Any]) -> str:
    """Who may answer, and who never."""
    behind = one["on_behalf_of"]
    named = [behind[-1] if each == ON_BEHALF_OF and behind else each for each in one["approvers"]]
    barred = [one["principal"], *(each for each in behind if ON_BEHALF_OF not in one["approvers"])]
    if OWNER in one["not"] and one["owner"]:
        barred.append(one["owner"])
    several = f"; {one['quorum']} of them" if one["quorum"] > 1 else ""
    return f"{', '.join(named)}{several}; never {' or '.join(barred)}"


def allows(one: dict[str, Any]) -> str:
    """What an agreement covers, and until when."""
    covers = (one.get("shown") or {}).get("covers", {})
    if one["entitlement"]:
        uses = covers.get("uses") or 0
        times = counted(int(uses), "use") if uses else "any number of uses"
        bound = " with these arguments" if covers.get("arguments") else ""
        until = duration(int(covers.get("ttl_s", 0)) * 1_000_000)
        return f"allows {one['tool']}{bound} for {until}, {times}"
    within = duration(one["use_within_s"] * 1_000_000)
    text = f"allows exactly this call, {counted(one['uses'], 'time')}, within {within} of your answer"
    if one["for_task_s"]:
        text += f"; or, if you choose so, every call of this tool in this task for {duration(one['for_task_s'] * 1_000_000)}"
    if one["narrow"]:
        text += f"; you may lower {', '.join(one['narrow'])}"
    return text


def link(console: Console, one: dict[str, Any], console_url: str) -> str:
    """Print where it is answered; returns it."""
    url = one.get("console") or f"{console_url.rstrip('/')}/console/approvals/{one['id']}"
    console.print()
    put(console, Text("Finish with your passkey, in a browser:", "bold"))
    put_command(console, plain(str(url), 2000), "  ")
    return str(url)


def _arguments(console: Console, shown: dict[str, Any]) -> None:
    looked = tuple(str(path) for path in shown.get("reads", ()))
    lines = list(laid_out(shown.get("arguments") or shown.get("covers", {}).get("arguments") or {}, looked))
    lines += [f"answers: {line}" for line in laid_out(shown.get("answers") or {}, ())]
    for number, line in enumerate(lines or ["none"]):
        _row(console, "" if number else "Arguments", line)
    if any(line.endswith(LOOKED) for line in lines):
        _row(console, "", f"({LOOKED.strip()} policy looked at it)")


LOOKED: Final = "  <-"


def laid_out(value: Any, looked: tuple[str, ...], path: str = "args") -> list[str]:
    """A value, one leaf on each line, with a mark where policy looked. Text stands in quotation marks, with all that a terminal
    would obey escaped.
    """
    if isinstance(value, dict) and value:
        return [line for name in value for line in laid_out(value[name], looked, f"{path}.{name}")]
    if isinstance(value, list) and value:
        return [line for at, each in enumerate(value) for line in laid_out(each, looked, f"{path}[{at}]")]
    bare = path.partition("[")[0]
    mark = (
        LOOKED if any(bare == one or bare.startswith(f"{one}.") or one.startswith(f"{bare}.") for one in looked) else ""
    )
    name = path.removeprefix("args").removeprefix(".") or "all"
    return [f"{json.dumps(name)[1:-1]} = {json.dumps(value)}{mark}"]


def _row(console: Console, label: str, text: str) -> None:
    put(console, Text(plain(text, WHOLE)), " " * LABEL, Text(label.ljust(LABEL), "bold"))


def _left_us(until: str | None, now: datetime.datetime) -> int:
    if until is None:
        return 0
    left = datetime.datetime.fromisoformat(until) - now
    return max(0, int(left.total_seconds() * 1e6))
