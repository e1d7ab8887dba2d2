"""Runs the ``tests`` that policies carry, by the same function that decides real calls."""

from dataclasses import replace

import msgspec

from whygate.core.decide import decide
from whygate.core.decision import Decision, Mode
from whygate.core.pins import PinSet
from whygate.core.policy.model import Policy, PolicySet, TestCase


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One test and what came of it."""

    case: TestCase
    decision: Decision
    problems: tuple[str, ...]
    """What differs from what was expected; empty if nothing does."""

    @property
    def passed(self) -> bool:
        return not self.problems


def run(policies: PolicySet, pins: PinSet | None = None) -> tuple[CaseResult, ...]:
    """All tests of the set, each against the whole set: another policy's deny counts in life, so it counts here.

    The tests of a shadow policy see it enforced, which is what they are there to prepare. A tool that is pinned takes the
    arguments that its definition says; one that is not counts as pinned, since a test is about policy.
    """
    results = []
    for policy in policies.policies:
        against = policies if policy.mode is Mode.ENFORCE else _enforcing(policies, policy.id)
        results += [_run(_held(case, pins), against) for case in policy.tests]
    return tuple(results)


def _held(case: TestCase, pins: PinSet | None) -> TestCase:
    """The case with what its tool takes, where that is known."""
    tool = case.call.tool
    pin = None if pins is None or tool is None else pins.by_tool.get((tool.server, tool.name))
    if pin is None or tool is None:
        return case
    held = msgspec.structs.replace(tool, definition=pin.digest, accepts=pin.accepts)
    return replace(case, call=msgspec.structs.replace(case.call, tool=held))


def _enforcing(policies: PolicySet, policy_id: str) -> PolicySet:
    return PolicySet(policies.texts, [_enforced(p) if p.id == policy_id else p for p in policies.policies])


def _enforced(policy: Policy) -> Policy:
    rules = tuple(replace(rule, mode=Mode.ENFORCE) for rule in policy.rules)
    return replace(policy, mode=Mode.ENFORCE, rules=rules)


def _run(case: TestCase, policies: PolicySet) -> CaseResult:
    decision = decide(case.call, case.facts, policies)
    problems = []
    if decision.outcome is not case.outcome:
        problems.append(f"expected {case.outcome}, got {decision.outcome} ({decision.code})")
    if case.code is not None and decision.code is not case.code:
        problems.append(f"expected code {case.code}, got {decision.code}")
    if case.rule is not None:
        wanted = case.rule if "/" in case.rule else f"{case.policy}/{case.rule}"
        by = decision.determined_by
        got = "no rule" if by is None else f"{by.policy}/{by.rule}"
        if got != wanted:
            problems.append(f"expected rule {wanted}, got {got}")
    return CaseResult(case=case, decision=decision, problems=tuple(problems))
