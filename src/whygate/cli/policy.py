"""``whygate policy``: check policies, run their tests, and explain a decision before anybody depends on it."""

import datetime
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whygate.core import strict_json
from whygate.core.calls import Tier, Tool, ToolCall, ToolClass
from whygate.core.decide import Explanation, RuleLine, decide, explain
from whygate.core.decision import Decision, Mode, Result
from whygate.core.facts import Facts, TaskFacts
from whygate.core.identity import IdentityType, Principal, Proof
from whygate.core.pins import Pin, PinSet
from whygate.core.pins import load as load_pins
from whygate.core.policy.cases import CaseResult, run
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.fitting import Fitting
from whygate.core.policy.match import split_target
from whygate.core.policy.model import PolicySet
from whygate.core.policy.parse import load
from whygate.core.things import PROMPT, QUESTION, RESOURCE, doubt_about_uri
from whygate.flow.catalogue import NO_PINS
from whygate.policy_files import PinFolder, read_folder

app = typer.Typer(name="policy", help="Check, test and explain policies.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="A folder of policies, or one file.", metavar="PATH")]
PinsOption = Annotated[
    Path | None,
    typer.Option(
        "--pins",
        help="The pinned definitions that rules and tests are held to. Default: `pins` beside PATH, where there is one.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NO, MISUSE = 1, 2
_COLOURS = {"permitted": "green", "elevated": "green", "exception": "yellow", "challenged": "yellow"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@app.callback()
def policy() -> None:
    """Check, test and explain policies."""


@app.command()
def check(path: Source, pins: PinsOption = None, as_json: AsJson = False) -> None:
    """Say whether a set of policies can be loaded, and everything that is wrong with it, by itself and for the tools that
    are pinned.
    """
    pinned = _pinned(path, pins)
    policies = _load(path, as_json, pinned)
    warnings = Fitting(_tools(pinned)).look_at(policies).warnings
    if as_json:
        _print_json(
            {
                "ok": True,
                "digest": policies.digest,
                "policies": [_summary(policies, p.id) for p in policies.policies],
                "warnings": _places(warnings),
            }
        )
        return
    console = _console()
    if not policies.policies:
        console.print("[yellow]There is no policy here[/]: nothing would be permitted.")
        return
    table = Table("policy", "version", "mode", "rules", "tests", "file", box=None, pad_edge=False)
    for one in policies.policies:
        rules, tests = str(len(one.rules)), str(len(one.tests))
        table.add_row(shown(one.id), str(one.version), one.mode.value, rules, tests, shown(one.file))
    console.print(table)
    for warning in warnings:
        console.print(f"[yellow]warning[/] {shown(str(warning))}")
    if pinned.by_tool:
        console.print(f"\nHeld to {len(pinned.by_tool)} pinned tools.")
    console.print(f"\n[green]Fine.[/] {len(policies.rules)} rules, {policies.digest}")


@app.command(name="test")
def run_tests(path: Source, pins: PinsOption = None, as_json: AsJson = False) -> None:
    """Run the tests that the policies carry, each against the whole set. Arguments must be what the pinned tools take."""
    pinned = _pinned(path, pins)
    policies = _load(path, as_json, pinned)
    results = run(policies, pinned)
    failed = [result for result in results if not result.passed]
    if as_json:
        _print_json(
            {"ok": not failed, "passed": len(results) - len(failed), "tests": [_case(each) for each in results]}
        )
    else:
        _show_tests(results, failed)
    if failed:
        raise typer.Exit(NO)


@app.command(name="explain")
def explain_command(
    path: Source,
    *,
    agent: Annotated[str, typer.Option("--agent", "-a", help="The id of who calls.")],
    tool: Annotated[
        str,
        typer.Option(
            "--tool",
            "-t",
            help="The tool, as server/name; or resource:server/uri, prompt:server/name, question:server/kind.",
        ),
    ],
    args: Annotated[str, typer.Option("--args", help="The arguments, as a JSON object.")] = "{}",
    role: Annotated[list[str] | None, typer.Option("--role", "-r", help="A role of the caller (repeatable).")] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="A scope of its token (repeatable).")] = None,
    tool_class: Annotated[ToolClass | None, typer.Option("--class", help="What the tool does to the world.")] = None,
    tier: Annotated[Tier, typer.Option("--tier", help="How much harm a wrong call can do.")] = Tier.HIGH,
    label: Annotated[list[str] | None, typer.Option("--label", help="A label of its results (repeatable).")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show also the rules that are not about this call.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decide a made-up call and tell why: each rule, what it answered, and which one decided. Exit code 1: refused."""
    try:
        kind, server, name = split_target(tool)
    except ValueError:
        _misuse("--tool is written as server/name, resource:server/uri, prompt:server/name or question:server/kind")
    try:
        given = strict_json.loads(args.encode(errors="surrogateescape"))
    except strict_json.Unreadable as wrong:
        _misuse(f"--args can't be read: {wrong.note}")
    if not isinstance(given, dict):
        _misuse("--args is a JSON object")
    policies = _load(path, as_json)
    labels = tuple(label) if label else ("untrusted",)
    principal = Principal(
        id=agent,
        type=IdentityType.AI_AGENT,
        proof=Proof.JWT,
        roles=tuple(role or ()),
        scopes=tuple(scope or ()),
    )
    call = ToolCall(
        protocol="mcp",
        method={RESOURCE: "resources/read", PROMPT: "prompts/get", QUESTION: "elicitation/create"}.get(
            kind, "tools/call"
        ),
        tool=Tool(server=server, name=name, type=kind, tool_class=tool_class, tier=tier, labels=labels),
        args={"uri": name, **given} if kind == RESOURCE else given,
        principal=principal,
        faults=tuple(filter(None, (doubt_about_uri(name),))) if kind == RESOURCE else (),
    )
    now = datetime.datetime.now(datetime.UTC)
    task = TaskFacts(id="explain", trace_id="0" * 31 + "1", root_span_id="0" * 15 + "1", opened_at=now)
    facts = Facts(now=now, task=task)
    decide(call, facts, policies)  # warms up, or the first rule's time would be that of the engine's start
    told = explain(call, facts, policies, time.perf_counter_ns)
    if as_json:
        _print_json(_explanation(told))
    else:
        _show_explanation(told, call, every=every)
    if not told.decision.allows:
        raise typer.Exit(NO)


# --- in and out ---


def shown(text: str) -> str:
    """Text of any origin, safe in a terminal: no markup, no control or direction characters."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True))


def _misuse(message: str) -> NoReturn:
    _console(stderr=True).print(f"[red]{shown(message)}[/]")
    raise typer.Exit(MISUSE)


def _pinned(path: Path, pins: Path | None) -> PinSet:
    """The pins to hold policies to; none where there are none. Ends with misuse where they can't be read."""
    folder = pins if pins is not None else path.absolute().parent / "pins"
    if pins is not None and not folder.exists():
        _misuse(f"there is no {pins}")
    try:
        return load_pins(PinFolder(folder).read())
    except PolicyErrors as wrong:
        _misuse(f"the pins can't be used: {wrong}")


def _tools(pinned: PinSet) -> list[tuple[Tool, Pin]]:
    """Unclassified: the configuration, which alone knows classes and labels, is not asked for here."""
    return [(Tool(server=pin.server, name=pin.name, type="mcp"), pin) for pin in pinned.by_tool.values()]


def _places(found: Iterable[PolicyError]) -> list[dict[str, Any]]:
    return [{"file": e.file, "line": e.line, "column": e.column, "message": e.message} for e in found]


def _load(path: Path, as_json: bool, pinned: PinSet = NO_PINS) -> PolicySet:
    if not path.exists():
        _misuse(f"there is no {path}")
    try:
        loaded = load(read_folder(path))
        errors = Fitting(_tools(pinned)).look_at(loaded).errors
        if not errors:
            return loaded
    except PolicyErrors as wrong:
        errors = wrong.errors
    if as_json:
        _print_json({"ok": False, "errors": _places(errors)})
    else:
        console = _console(stderr=True)
        for error in errors:
            console.print(f"[bold]{shown(error.file)}:{error.line}:{error.column}[/]: {shown(error.message)}")
        console.print(f"[red]{len(errors)} error{'s' * (len(errors) != 1)}[/]: the whole set would be refused.")
    raise typer.Exit(NO)


def _coloured(decision: Decision) -> str:
    return f"[bold {_COLOURS.get(decision.outcome.value, 'red')}]{decision.outcome.value}[/] ({decision.code.value})"


def _rule_name(decision: Decision) -> str:
    by = decision.determined_by
    return "" if by is None else f"{by.policy}/{by.rule}"


def _summary(policies: PolicySet, policy_id: str) -> dict[str, Any]:
    one = next(each for each in policies.policies if each.id == policy_id)
    return {
        "policy": one.id,
        "version": one.version,
        "owner": one.owner,
        "mode": one.mode.value,
        "file": one.file,
        "digest": one.digest,
        "rules": len(one.rules),
        "tests": len(one.tests),
    }


# --- tests ---


def _case(result: CaseResult) -> dict[str, Any]:
    case, decision = result.case, result.decision
    return {
        "policy": case.policy,
        "file": case.file,
        "line": case.line,
        "tool": "" if case.call.tool is None else case.call.tool.id,
        "passed": result.passed,
        "problems": list(result.problems),
        "outcome": decision.outcome.value,
        "code": decision.code.value,
        "rule": _rule_name(decision),
        "why": decision.admin,
    }


def _show_tests(results: tuple[CaseResult, ...], failed: list[CaseResult]) -> None:
    console = _console()
    for each in failed:
        case = each.case
        tool = "" if case.call.tool is None else case.call.tool.id
        console.print(f"[red]failed[/] [bold]{shown(case.file)}:{case.line}[/] {shown(case.policy)}: {shown(tool)}")
        console.print(f"  arguments {shown(json.dumps(case.call.args)[:300])}")
        for problem in each.problems:
            console.print(f"  {shown(problem)}")
        console.print(f"  why: {shown(each.decision.admin)}\n")
    if failed:
        console.print(f"[red]{len(failed)} of {len(results)} tests failed.[/]")
    elif results:
        console.print(f"[green]All {len(results)} tests passed.[/]")
    else:
        console.print("[yellow]There are no tests here.[/] Add `tests:` to a policy.")


# --- explanations ---


def _explanation(told: Explanation) -> dict[str, Any]:
    decision = told.decision
    return {
        "outcome": decision.outcome.value,
        "code": decision.code.value,
        "rule": _rule_name(decision),
        "admin": decision.admin,
        "user": decision.user,
        "next": decision.next.value,
        "requires": [
            {"kind": each.kind, "params": each.params, "policy": each.policy, "rule": each.rule}
            for each in decision.requires
        ],
        "policy_digest": decision.policy_digest,
        "rules": [
            {
                "policy": line.policy,
                "version": line.version,
                "rule": line.rule,
                "file": line.file,
                "line": line.line,
                "mode": line.mode.value,
                "effect": line.effect,
                "agents": line.agent,
                "tools": line.tool,
                "asked": line.asked,
                "result": None if line.result is None else line.result.value,
                "code": line.code,
                "note": line.note,
                "when": line.when,
                "why": line.why,
                "duration_us": round(line.duration_ns / 1000, 1),
                "decided": line.decided,
            }
            for line in told.rules
        ],
    }


_ANSWERS = {
    Result.MATCH: "holds",
    Result.NO_MATCH: "[dim]does not hold[/]",
    Result.UNMET: "[yellow]holds, wants more[/]",
    Result.ERROR: "[red]could not be read[/]",
}


def _show_explanation(told: Explanation, call: ToolCall, *, every: bool) -> None:
    console, decision = _console(), told.decision
    tool = "" if call.tool is None else call.tool.id
    console.print(f"{_coloured(decision)}  {shown(call.principal.id)} calls {shown(tool)}")
    console.print(f"[bold]why[/]  {shown(decision.admin)}")
    if decision.determined_by is not None:
        console.print(f"[bold]by[/]   {shown(_rule_name(decision))}")
    for each in decision.requires:
        console.print(
            f"[bold]wants[/] {shown(each.kind)} {shown(json.dumps(each.params))} ({shown(each.policy)}/{shown(each.rule)})"
        )
    asked = [line for line in told.rules if line.asked]
    width = max((len(f"{line.policy}/{line.rule}") for line in asked), default=0)
    for line in asked:
        mark = "[bold]>[/]" if line.decided else " "
        name = shown(f"{line.policy}/{line.rule}".ljust(width))
        spent = f"[dim]{line.duration_ns / 1000:.0f} us[/]"
        console.print(f"\n{mark} [bold]{name}[/]  {_effect(line)}  {_answer(line)}  {spent}")
        if line.when:
            console.print(f"    when {shown(' '.join(line.when.split()))}")
        if line.note:
            console.print(f"    {shown(line.note)}")
    _show_rest(console, [line for line in told.rules if not line.asked], every=every)


def _effect(line: RuleLine) -> str:
    return line.effect if line.mode is Mode.ENFORCE else f"{line.effect} (shadow: changes nothing)"


def _answer(line: RuleLine) -> str:
    if line.result is Result.MATCH and not line.when:
        return "always"
    return "" if line.result is None else _ANSWERS[line.result]


def _show_rest(console: Console, rest: list[RuleLine], *, every: bool) -> None:
    if not rest:
        return
    if not every:
        console.print(f"\n[dim]{len(rest)} rules were not asked (--all shows them).[/]")
        return
    console.print("\n[bold]Not asked[/]")
    table = Table("rule", "because", box=None, pad_edge=False)
    for line in rest:
        if line.agent and line.tool:
            because = "the call was refused before any rule"
        else:
            because = " and ".join(
                [*(["not for this agent"] if not line.agent else []), *(["not for this tool"] if not line.tool else [])]
            )
        table.add_row(shown(f"{line.policy}/{line.rule}"), because)
    console.print(table)
