"""What was decided: search, one decision with everything about it, a task's chain, tools, policies, codes."""

import difflib
from collections import Counter
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from whygate.console.desk import EVERYBODY, Console, NotForYou, Web
from whygate.core.events import ApprovalRecord, BreakGlassRecord, GrantRecord
from whygate.core.policy.model import CompiledRule
from whygate.core.reasons import TABLE, Code, Outcome
from whygate.core.records import DecisionRecord, PolicyRecord, TaskRecord
from whygate.flow.figures import figures
from whygate.stores.reader import Ambiguous, NotFound, Reader, Wanted

PAGE: Final = 50
COUNTED: Final = 2000
"""Newest decisions by which rules are counted."""


def handlers(console: Console) -> list[HTTPRouteHandler]:
    """The handlers, for the application."""
    return [*_decisions(console), *_catalogue(console)]


def _decisions(console: Console) -> list[HTTPRouteHandler]:
    signed = console.guard(*EVERYBODY)

    @get("/console/decisions", include_in_schema=False, guards=[signed])
    async def decisions(request: Web) -> Response[str]:
        asked = {
            name: request.query_params.get(name, "").strip() for name in ("outcome", "code", "agent", "tool", "task")
        }
        before = request.query_params.get("before", "")
        last = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else 2**63 - 1
        wanted = Wanted(**asked, before=last, limit=PAGE)
        found = await console.read(lambda reader: [stored.record for stored in reader.search(wanted)])
        more = "&".join(f"{name}={value}" for name, value in asked.items() if value)
        return console.page(
            request,
            "decisions.html",
            asked=asked,
            outcomes=list(Outcome),
            found=found,
            older=f"?{more}&before={found[-1].seq}" if len(found) == PAGE else "",
        )

    @get("/console/decisions/{identity:str}", include_in_schema=False, guards=[signed])
    async def decision(request: Web, identity: FromPath[str]) -> Response[str]:
        try:
            known, around = await console.read(lambda reader: _explained(reader, identity))
        except (NotFound, Ambiguous, ValueError) as wrong:
            raise NotForYou(Code.REQUEST_MALFORMED, str(wrong)) from None
        record: DecisionRecord = known.decision.record
        rule = _rule(console, record)
        return console.page(
            request,
            "decision.html",
            record=record,
            completion=None if known.completion is None else known.completion.record,
            rule=rule,
            policy=known.policy,
            around=around,
            code=TABLE[Code(record.reason.code)],
            jaeger=f"{console.jaeger}/trace/{record.context.trace_id}" if console.jaeger else "",
        )

    @get("/console/tasks/{identity:str}", include_in_schema=False, guards=[signed])
    async def task(request: Web, identity: FromPath[str]) -> Response[str]:
        records = await console.read(lambda reader: [stored.record for stored in reader.task(identity)])
        if not records:
            raise NotForYou(Code.REQUEST_MALFORMED, "There is no such task.")
        ended = {record.decision: record for record in records if record.kind == "completion"}
        steps = [
            each for each in records if isinstance(each, DecisionRecord | ApprovalRecord | GrantRecord | TaskRecord)
        ]
        return console.page(request, "task.html", task=identity, steps=steps, ended=ended)

    return [decisions, decision, task]


def _explained(reader: Reader, identity: str) -> tuple[Any, list[Any]]:
    """The decision, and the records of what permitted it or was asked by it."""
    known = reader.why(identity)
    record: DecisionRecord = known.decision.record  # type: ignore[assignment]  # `why` gives decisions
    around: list[Any] = []
    if record.approval is not None:
        around += [reader.find(record.approval.id).record, *(each.record for each in reader.about(record.approval.id))]
    if record.grant:
        around.append(reader.find(record.grant).record)
    if record.exception is not None:
        around.append(reader.find(record.exception.id).record)
    return known, [each for each in around if not isinstance(each, BreakGlassRecord) or each.event == "opened"]


def _rule(console: Console, record: DecisionRecord) -> CompiledRule | None:
    """The rule that decided, while its policy is in force."""
    by, current = record.determined_by, console.policies.current
    if by is None or current is None:
        return None
    return next(
        (each for each in current.rules if (each.policy, each.id, each.digest) == (by.policy, by.rule, by.digest)), None
    )


def _catalogue(console: Console) -> list[HTTPRouteHandler]:
    signed = console.guard("operator", "auditor", "breakglass", "approver")

    @get("/console/tools", include_in_schema=False, guards=[signed])
    async def tools(request: Web) -> Response[str]:
        catalogue = console.catalogue
        pins = {pin.server + "/" + pin.name: pin for _, pin in catalogue.pinned()}
        return console.page(request, "tools.html", tools=catalogue.known(), pins=pins, new=catalogue.new())

    @get("/console/policies", include_in_schema=False, guards=[signed])
    async def policies(request: Web) -> Response[str]:
        held = console.policies
        hits, history = await console.read(_used)
        return console.page(
            request,
            "policies.html",
            current=held.current,
            refusal=held.refusal,
            hits=hits,
            history=history,
            counted=COUNTED,
        )

    @get("/console/codes", include_in_schema=False, guards=[signed])
    async def codes(request: Web) -> Response[str]:
        return console.page(request, "codes.html", table=sorted(TABLE.items()))

    @get("/console/figures", include_in_schema=False, guards=[console.guard("operator", "auditor")])
    async def shown(request: Web) -> Response[str]:
        records = await console.read(lambda reader: [each.record for each in reader.of_kind("approval", COUNTED)])
        found = figures(each for each in records if isinstance(each, ApprovalRecord))
        return console.page(request, "figures.html", found=found, counted=COUNTED)

    return [tools, policies, codes, shown]


def _used(reader: Reader) -> tuple[Counter[str], list[tuple[PolicyRecord, str]]]:
    """How often each rule decided, of the newest decisions; and the sets that were in force, each with what it changed."""
    hits: Counter[str] = Counter()
    newest = [stored.record for stored in reader.search(Wanted(limit=COUNTED))]
    for record in newest:
        if isinstance(record, DecisionRecord) and record.determined_by is not None:
            hits[f"{record.determined_by.policy}/{record.determined_by.rule}"] += 1
    records = [stored.record for stored in reader.of_kind("policy", 20)]
    made: list[tuple[PolicyRecord, str]] = []
    for number, record in enumerate(records):
        if not isinstance(record, PolicyRecord):
            continue
        before = next((each for each in records[number + 1 :] if getattr(each, "event", "") == "in_force"), None)
        old = reader.policy(before.digest) if isinstance(before, PolicyRecord) else {}
        made.append((record, _difference(old, reader.policy(record.digest)) if before is not None else ""))
    return hits, made


def _difference(old: dict[str, str], new: dict[str, str]) -> str:
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "").splitlines(), new.get(name, "").splitlines()
        lines += difflib.unified_diff(before, after, name, name, lineterm="", n=2)
    return "\n".join(lines[:400])
