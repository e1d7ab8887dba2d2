"""The one function that decides.

1. Pure and total: the same call, facts and policy give the same decision, and nothing raises. What was not foreseen is
   ``internal.error``, refused.
2. Everybody who asks "may it?" asks here: the proxy, ``policy test``, ``policy explain``, and whoever comes later.
3. Gates come before rules, in one fixed order. No rule sees a call that a gate refuses.
4. All applicable rules are evaluated; there is no first match. What can't be read refuses, before any rule that could
   be read is listened to: error, hard deny, overridable deny, satisfied permit, permit that still wants something,
   nothing.
5. Shadow policies are evaluated and recorded and change nothing.
6. No text of a decision holds a value from the call.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from whygate.core.calls import Fault, Standing, Tool, ToolCall
from whygate.core.decision import Claim, Decision, Evaluation, Mode, Result
from whygate.core.facts import Facts
from whygate.core.identity import Status
from whygate.core.policy import arguments, cel, sight
from whygate.core.policy.model import UNMET, Applicable, CompiledRule, PolicySet
from whygate.core.reasons import Code, Outcome
from whygate.core.satisfying import Met, met, overridden, unmet
from whygate.core.schemas import UNDECLARED

# The most fundamental first: who, by whose authority, what was sent, for which work, which tool, which arguments.
# A domain that is not listed comes after these.
GATES: Final = ("agent", "delegation", "request", "quota", "task", "handle", "tool", "args")
_COST: Final = {kind: number for number, kind in enumerate(UNMET)}


def decide(call: ToolCall, facts: Facts, policy: PolicySet) -> Decision:
    """What becomes of ``call``. Never raises.

    Checks neither the policy's freshness nor whether the claims still hold: whoever commits the decision does.
    """
    return _decide(call, facts, policy, Trace())


class Trace:
    """What was done on the way, for an explanation and for a decision that broke off."""

    __slots__ = ("clock", "durations_ns", "evaluations")

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        """``clock`` counts nanoseconds; without one no time is taken."""
        self.evaluations: list[Evaluation] = []
        self.durations_ns: list[int] = []
        self.clock = clock


def _decide(call: ToolCall, facts: Facts, policy: PolicySet, trace: Trace) -> Decision:
    try:
        refused = _gates(call, facts)
        if refused is not None:
            return refused
        if call.public:
            return _made(Code.POLICY_PUBLIC_TOOL, "", policy, claims=_claims(facts, policy))
        if call.tool is None:  # the gates refuse it; said again for whoever reads only this function
            return _made(Code.TOOL_UNKNOWN, "no tool", policy)
        return _by_rules(call, call.tool, facts, policy, trace)
    except Exception as wrong:  # noqa: BLE001  total by rule 1; only the kind is told, a message could hold a value
        return _made(
            Code.INTERNAL_ERROR,
            f"{Code.INTERNAL_ERROR.entry.meaning} ({type(wrong).__name__})",
            policy,
            evaluations=tuple(trace.evaluations),
        )


# --- gates ---


def _gates(call: ToolCall, facts: Facts) -> Decision | None:
    found = list(call.faults)
    principal = call.principal
    if not principal.authenticated and not found:
        # Whoever read the credential says more exactly what is wrong with it; this is for a call that nobody looked at.
        found.append(Fault(code=Code.AGENT_UNAUTHENTICATED, note="nobody signed in"))
    if facts.suspended:
        found.append(Fault(code=Code.AGENT_SUSPENDED, note="switched off"))
    if principal.status is not Status.ACTIVE:
        found.append(Fault(code=Code.AGENT_RETIRED if principal.status is Status.RETIRED else Code.AGENT_SUSPENDED))
    if not call.public:
        if call.tool is None:
            found.append(Fault(code=Code.TOOL_UNKNOWN))
        if type(call.args) is not dict:
            found.append(Fault(code=Code.REQUEST_MALFORMED, note="the arguments are no object"))
    return _refused(found) if found else None


def _refused(found: list[Fault]) -> Decision:
    found.sort(key=_gate)
    code = found[0].code
    told = dict.fromkeys(f"{fault.code.value} ({fault.note})" if fault.note else fault.code.value for fault in found)
    if code.entry.outcome is None or code.entry.outcome.allows:
        # A fault can only refuse: one that names a permission is our own mistake.
        return _made(Code.INTERNAL_ERROR, "a fault came with a code that refuses nothing: " + "; ".join(told), None)
    return _made(code, f"{code.entry.meaning} Found: {'; '.join(told)}.", None)


_STANDING: Final = {Standing.UNPINNED: Code.TOOL_UNPINNED, Standing.CHANGED: Code.TOOL_SCHEMA_CHANGED}


def _pinned(call: ToolCall, tool: Tool) -> Decision | None:
    """The gates that a tool's definition makes: it is accepted, and the arguments are what it takes."""
    if tool.standing is not Standing.ACCEPTED:
        return _refused([Fault(code=_STANDING[tool.standing])])
    wrong = None if tool.accepts is None else tool.accepts.wrong(call.args)
    if wrong is None:
        return None
    place, keyword = wrong
    note = f"{place or 'the arguments'}: {'not declared' if keyword in UNDECLARED else keyword}"
    made = _refused([Fault(code=Code.ARGS_SCHEMA_INVALID, note=note)])
    # Only names of the definition, which this caller can see, and no value.
    return msgspec.structs.replace(made, user=f"{made.user} Wrong: {note}.")


def _gate(fault: Fault) -> int:
    """A fault's place in the order; sorting is stable, so among equals the first found stays first."""
    domain = fault.code.value.partition(".")[0]
    return GATES.index(domain) if domain in GATES else len(GATES)


# --- rules ---


def _by_rules(call: ToolCall, tool: Tool, facts: Facts, policy: PolicySet, trace: Trace) -> Decision:
    applicable = policy.look_up(call.principal, tool)
    # Of a tool that this caller can't see, nothing shows but what rules say of its name: neither whether it is pinned, nor
    # what it takes. No rule can permit it either.
    if applicable.visible:
        refused = _pinned(call, tool)
        if refused is not None:
            return refused
    activation: Any = None
    if applicable.reads:
        given = _given(call, facts, tool, applicable)
        if isinstance(given, Decision):
            return given
        activation = cel.activation(given)
    failed, denied, permitted, wanting = _weighed(call, tool, facts, (applicable, activation), trace)
    evaluations = tuple(trace.evaluations)
    if failed:
        return _failed(failed, policy, evaluations)
    over = [overridden(rule, call, tool, facts) for rule in denied]
    if None in over:
        # min keeps the first of equals: hard before overridable, then the order of the set.
        left = [rule for rule, exception in zip(denied, over, strict=True) if exception is None]
        rule = min(left, key=lambda rule: rule.overridable)
        return _made(rule.code, rule.why, policy, evaluations=evaluations, rule=rule)
    if permitted:
        best = min(permitted, key=lambda pair: pair[1].rank)  # the first of equals, in the order of the set
        return _permitted(best, [each for each in over if each is not None], facts, policy, evaluations)
    if wanting:
        return _challenge(wanting, facts, policy, evaluations)
    return _made(Code.POLICY_NO_MATCH, Code.POLICY_NO_MATCH.entry.meaning, policy, evaluations=evaluations)


class _Weighed(NamedTuple):
    """What the rules in force say, by kind of answer."""

    failed: list[CompiledRule]
    denied: list[CompiledRule]
    permitted: list[tuple[CompiledRule, Met]]
    wanting: list[CompiledRule]


def _weighed(call: ToolCall, tool: Tool, facts: Facts, asked: tuple[Applicable, Any], trace: Trace) -> _Weighed:
    """Every applicable rule's answer, into ``trace``; shadow ones change nothing else. ``asked``: the rules, and what they
    see.
    """
    applicable, activation = asked
    found = _Weighed([], [], [], [])
    evaluated = trace.evaluations
    for rule, answer in zip(applicable.rules, _answers(applicable, activation, trace), strict=True):
        how = met(rule, call, tool, facts) if answer is True and rule.permits else None
        evaluation = _answered(answer, rule, how)
        evaluated.append(evaluation)
        if evaluation is rule.unmatched or not rule.enforced:
            continue
        if how is not None:
            found.permitted.append((rule, how))
        elif evaluation is rule.matched:
            found.denied.append(rule)
        else:
            (found.wanting if evaluation is rule.unmet else found.failed).append(rule)
    return found


def _permitted(
    best: tuple[CompiledRule, Met],
    over: list[Met],
    facts: Facts,
    policy: PolicySet,
    evaluations: tuple[Evaluation, ...],
) -> Decision:
    """A permit that is satisfied, and what had to be overridden for it. Only what is used is claimed."""
    rule, how = best
    claims = _claims(facts, policy)
    if how.rank == 0 and not over:
        return _made(Code.ROLE_PERMITTED, rule.why, policy, evaluations=evaluations, rule=rule, claims=claims)
    code, exception, why = how.code, how.exception, rule.why
    if over:
        code, exception = over[0].code, over[0].exception
        told = (each.exception.over for each in over if each.exception is not None)
        why = f"{why} {code.entry.meaning} Overridden: {', '.join(told)}."
    claims += tuple(dict.fromkeys(claim for each in (how, *over) for claim in each.claims))
    made = _made(code, why, policy, evaluations=evaluations, rule=rule, claims=claims)
    return msgspec.structs.replace(made, approval=how.approval, grant=how.grant, exception=exception)


def _given(call: ToolCall, facts: Facts, tool: Tool, applicable: Applicable) -> dict[str, Any] | Decision:
    """What the rules see, or the refusal of arguments that are too large for them."""
    given = sight.values(call, facts, tool, applicable.reads)
    if "args" in given:
        try:
            given["args"] = arguments.view(call.args, applicable.args)
        except arguments.Unseen as unseen:
            return _refused([Fault(code=unseen.code, note=unseen.note)])
    return given


def _answers(applicable: Applicable, activation: Any, trace: Trace) -> list[bool | str]:
    """What each rule's condition says: all in one go, or, where one of them fails, and for an explanation, which takes the
    time of each, one after the other. The answers are the same.
    """
    clock = trace.clock
    if applicable.joint is not None and clock is None:
        found = applicable.joint.holds(activation)
        if found is not None:
            return found
    answers: list[bool | str] = []
    for rule in applicable.rules:
        since = 0 if clock is None else clock()
        answers.append(True if rule.condition is None else rule.condition.holds(activation))
        trace.durations_ns.append(0 if clock is None else clock() - since)
    return answers


def _answered(answer: object, rule: CompiledRule, how: Met | None) -> Evaluation:
    """What one rule says, given what its condition answered, and how it is satisfied where it is a permit that holds."""
    if answer is True:
        if how is None:
            return rule.unmet if rule.permits else rule.matched
        return rule.matched if how.code is Code.ROLE_PERMITTED else rule.evaluation(Result.MATCH, how.code)
    if answer is False:
        return rule.unmatched
    return rule.evaluation(Result.ERROR, Code.POLICY_EVAL_ERROR, str(answer))


def _failed(rules: list[CompiledRule], policy: PolicySet, evaluations: tuple[Evaluation, ...]) -> Decision:
    told = [
        f"rule {each.rule} of policy {each.policy}: {each.note}"
        for each in evaluations
        if each.result is Result.ERROR and each.mode is Mode.ENFORCE
    ]
    admin = f"{rules[0].why} This rule could not be evaluated: {'; '.join(told)}."
    return _made(Code.POLICY_EVAL_ERROR, admin, policy, evaluations=evaluations, rule=rules[0])


def _challenge(
    rules: list[CompiledRule], facts: Facts, policy: PolicySet, evaluations: tuple[Evaluation, ...]
) -> Decision:
    """What a caller may do to be permitted, the cheapest way first; or the refusal of whoever was asked."""
    ways = sorted(((rule.requirement, rule) for rule in rules if rule.requirement), key=lambda way: _COST[way[0].kind])
    rule = ways[0][1]
    code, approval = unmet(rule, facts)
    why = rule.why if code is rule.code else f"{rule.why} {code.entry.meaning}"
    made = _made(code, why, policy, evaluations=evaluations, rule=rule)
    if code.outcome is not Outcome.CHALLENGED:
        return msgspec.structs.replace(made, approval=approval)
    asks = rule.rule_digest if code is Code.STEP_UP_REQUIRED else ""
    requires = tuple(requirement for requirement, _ in ways)
    return msgspec.structs.replace(made, requires=requires, approval=approval, asks=asks)


# --- decisions ---


def _claims(facts: Facts, policy: PolicySet) -> tuple[Claim, ...]:
    """What must still hold when a permission is made durable."""
    if facts.task is None:
        return (policy.claim,)
    return (policy.claim, Claim(key=facts.task.id, kind="task", value="open"))


def _made(
    code: Code,
    admin: str,
    policy: PolicySet | None,
    *,
    evaluations: tuple[Evaluation, ...] = (),
    rule: CompiledRule | None = None,
    claims: tuple[Claim, ...] = (),
) -> Decision:
    entry = code.entry
    return Decision(
        outcome=code.outcome,
        code=code,
        admin=admin or entry.meaning,
        user=entry.user,
        next=entry.next,
        evaluations=evaluations,
        determined_by=None if rule is None else rule.ref,
        claims=claims or (() if policy is None else (policy.claim,)),
        policy_digest="" if policy is None else policy.digest,
    )


# --- explanations ---


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in an explanation, whether it applied or not."""

    policy: str
    version: int
    rule: str
    file: str
    line: int
    mode: Mode
    effect: str
    agent: str
    """The selector that names the caller; empty if none does."""
    tool: str
    """The selector that names the tool; empty if none does."""
    asked: bool
    """Whether it was evaluated: both selectors match, and no gate refused before."""
    result: Result | None = None
    code: str = ""
    note: str = ""
    when: str = ""
    why: str
    duration_ns: int = 0
    decided: bool = False


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with everything that led to it."""

    decision: Decision
    rules: tuple[RuleLine, ...]


def explain(call: ToolCall, facts: Facts, policy: PolicySet, clock: Callable[[], int]) -> Explanation:
    """Decide, and tell of every rule in the set. ``clock`` counts nanoseconds (the core has none).

    The decision comes from the same code as every other; this only looks on.
    """
    trace = Trace(clock)
    decision = _decide(call, facts, policy, trace)
    asked = {
        (each.policy, each.rule): (each, spent)
        for each, spent in zip(trace.evaluations, trace.durations_ns, strict=True)
    }
    by = decision.determined_by
    lines = []
    for rule in policy.rules:
        found, spent = asked.get((rule.policy, rule.id), (None, 0))
        agent, tool = rule.selectors_for(call.principal, call.tool)
        lines.append(
            RuleLine(
                policy=rule.policy,
                version=rule.version,
                rule=rule.id,
                file=rule.file,
                line=rule.line,
                mode=rule.mode,
                effect=rule.effect,
                agent=agent,
                tool=tool,
                asked=found is not None,
                result=None if found is None else found.result,
                code="" if found is None else found.code,
                note="" if found is None else found.note,
                when="" if rule.condition is None else rule.condition.source,
                why=rule.why,
                duration_ns=spent,
                decided=by is not None and (by.policy, by.rule) == (rule.policy, rule.id),
            )
        )
    return Explanation(decision=decision, rules=tuple(lines))
