"""From texts to a policy set: all or nothing, with everything that is wrong told at once."""

import datetime
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from whygate.core import ids
from whygate.core.calls import Tool, ToolCall
from whygate.core.decision import Mode, Requirement
from whygate.core.facts import Facts, TaskFacts
from whygate.core.identity import Actor, IdentityType, Principal, Proof
from whygate.core.policy import cel, match, shape
from whygate.core.policy.cel import BASE, Checked, Condition, Env, Wrong
from whygate.core.policy.document import Document, Loc, read
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.lint import growth, is_constant_list, lint
from whygate.core.policy.match import ToolSelector
from whygate.core.policy.model import UNMET, CompiledRule, Policy, PolicySet, TestCase
from whygate.core.policy.wants import digest_of_rule, want
from whygate.core.reasons import Code
from whygate.core.things import KINDS, PROMPT, QUESTION, RESOURCE

__all__ = ["DENY_CODES", "TEST_NOW", "PolicyErrors", "load"]

DENY_CODES: Final = frozenset(
    {
        Code.POLICY_EXPLICIT_DENY,
        Code.ARGS_LIMIT_EXCEEDED,
        Code.ARGS_NOT_ALLOWED,
        Code.CHAIN_TAINTED_EXFILTRATION,
        Code.CHAIN_SEQUENCE_VIOLATION,
        Code.CHAIN_DEPTH_EXCEEDED,
        Code.CHAIN_UNTRUSTED_ARGUMENT_REFUSED,
        Code.DELEGATION_SCOPE_WIDENED,
        Code.RESOURCE_TENANT_MISMATCH,
        Code.WINDOW_CLOSED,
        Code.RISK_TOO_HIGH,
    }
)
"""What a rule may give as its reason. All others say something that only the gateway can know."""

_METHODS: Final = {RESOURCE: "resources/read", PROMPT: "prompts/get", QUESTION: "elicitation/create"}

TEST_NOW: Final = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)
"""When a test happens that does not say: a Monday at noon."""


def load(texts: Mapping[str, str]) -> PolicySet:
    """The set of all ``texts`` (relative file name to text). Raises ``PolicyErrors`` with every finding.

    No texts, or texts without a policy, are a valid set that permits nothing.
    """
    errors: list[PolicyError] = []
    policies: list[tuple[Document, Policy]] = []
    for file, text in sorted(texts.items()):
        try:
            text.encode()
            documents, unreadable = read(file, text)
        except (UnicodeEncodeError, RecursionError, ValueError) as wrong:
            unreadable = [PolicyError(file=file, line=1, column=1, message=f"not readable: {type(wrong).__name__}")]
            documents = []
        errors += unreadable
        digest = ids.sha256_digest(text.encode(errors="replace"))
        for document in documents:
            if not document.errors:
                built = _Builder(document, digest).build(errors)
                if built is not None:
                    policies.append((document, built))
    errors += _twice(policies)
    if errors:
        raise PolicyErrors(tuple(sorted(set(errors))))
    return PolicySet(texts, (policy for _, policy in policies))


def _twice(policies: Iterable[tuple[Document, Policy]]) -> Iterator[PolicyError]:
    seen: dict[str, Document] = {}
    for document, policy in policies:
        if policy.id in seen:
            first = seen[policy.id]
            yield document.error(
                ("policy",), f"the policy `{policy.id}` stands in {first.file}:{first.line(('policy',))} already"
            )
        seen.setdefault(policy.id, document)


class _Builder:
    """Builds one document's policy, gathering what is wrong on the way."""

    def __init__(self, document: Document, digest: str) -> None:
        self._document = document
        self._digest = digest
        self._errors: list[PolicyError] = []
        self._lets: dict[str, str] = {}
        """Expression of each usable name, in order."""
        self._uses: dict[str, frozenset[str]] = {}
        """Which names each name rests on, itself included."""
        self._constants: frozenset[str] = frozenset()
        self._growths: dict[str, int] = {}
        self._broken: set[str] = set()
        self._env = BASE

    def build(self, errors: list[PolicyError]) -> Policy | None:
        """The policy, or ``None`` with its findings added to ``errors``."""
        try:
            raw = shape.PolicyShape.model_validate(self._document.value)
        except ValidationError as wrong:
            errors += [_shape_error(self._document, each) for each in wrong.errors(include_url=False)]
            return None
        agents = self._selectors(raw.agents, ("agents",), match.parse_agent)
        self._read_lets(raw.let)
        rules = [self._rule(raw, index, tuple(agents)) for index in range(len(raw.rules))]
        self._rule_ids(raw.rules)
        if raw.budgets:
            self._fail(("budgets",), "budgets are not supported yet: remove them (none would be kept)", key=True)
        tests = tuple(self._test(raw, index, case) for index, case in enumerate(raw.tests))
        if self._errors:
            errors += self._errors
            return None
        return Policy(
            id=raw.policy,
            version=raw.version,
            owner=raw.owner,
            mode=Mode(raw.mode),
            file=self._document.file,
            digest=self._digest,
            rules=tuple(rule for rule in rules if rule is not None),
            tests=tests,
        )

    def _fail(self, loc: Loc, message: str, *, key: bool = False) -> None:
        self._errors.append(self._document.error(loc, message, key=key))

    def _inside(self, loc: Loc, found: Iterable[Wrong]) -> None:
        self._errors += [self._document.error_inside(loc, each.offset, each.message) for each in found]

    def _selectors(self, texts: list[str], loc: Loc, read_one: Any) -> list[Any]:
        made = []
        for index, text in enumerate(texts):
            try:
                made.append(read_one(text))
            except ValueError as wrong:
                self._fail((*loc, index), str(wrong))
        return made

    # --- expressions ---

    def _read_lets(self, lets: Mapping[str, str]) -> None:
        types: dict[str, Any] = {}
        for name, source in lets.items():
            loc = ("let", name)
            if not (name.isidentifier() and name.isascii()) or name in cel.RESERVED:
                self._fail(
                    loc,
                    f"`{name}` can't be a name: letters, digits, underscores; no word of CEL's, nor what rules see",
                    key=True,
                )
                self._broken.add(name)
                continue
            checked = self._env.check(source)
            found = checked if isinstance(checked, tuple) else lint(checked, self._constants, self._growths)
            if isinstance(checked, tuple) or found:
                self._inside(loc, self._news(found))
                self._broken.add(name)
                continue
            self._lets[name] = source
            self._uses[name] = self._used(checked) | {name}
            self._growths[name] = growth(checked, self._growths)
            if is_constant_list(checked):
                self._constants |= {name}
            types[name] = checked.type
            self._env = Env(types)

    def _used(self, checked: Checked) -> frozenset[str]:
        """The names that an expression rests on, directly and through others."""
        return frozenset().union(*(self._uses[name] for name in checked.idents & self._uses.keys()))

    def _news(self, found: Iterable[Wrong]) -> Iterator[Wrong]:
        """Without findings that only follow from a name that was reported where it is defined."""
        for each in found:
            name = each.message.removeprefix("unknown name `").removesuffix("`")
            if name in self._broken:
                continue
            if name in self._document.value.get("let", {}) and name not in self._lets:
                yield Wrong(each.offset, f"`{name}` is not defined yet: a name may use only those that stand before it")
            else:
                yield each

    def _names_of(self, source: str | None) -> dict[str, str]:
        """The names that a condition rests on, with their expressions."""
        checked = () if source is None else self._env.check(source)
        return {} if isinstance(checked, tuple) else {name: self._lets[name] for name in self._used(checked)}

    def _condition(self, source: str, loc: Loc) -> Condition | None:
        checked = self._env.check(source)
        if isinstance(checked, tuple):
            self._inside(loc, self._news(checked))
            return None
        found = lint(checked, self._constants, self._growths)
        if not checked.may_be_bool:
            found = (
                Wrong(0, f"a condition answers true or false, this one with a {checked.type.name().lower()}"),
                *found,
            )
        used = self._used(checked)
        made = cel.condition(source, {name: text for name, text in self._lets.items() if name in used})
        if isinstance(made, tuple):  # each part compiles, the whole does not: too deep, say
            found = (*found, *(Wrong(0, each.message) for each in made[:1]))
        self._inside(loc, found)
        return made if isinstance(made, Condition) and not found else None

    # --- rules ---

    def _rule_ids(self, rules: list[shape.Rule]) -> None:
        seen = set()
        for index, rule in enumerate(rules):
            if rule.id in seen:
                self._fail(("rules", index, "id"), f"the rule `{rule.id}` stands in this policy already")
            seen.add(rule.id)

    def _rule(self, raw: shape.PolicyShape, index: int, agents: tuple[str, ...]) -> CompiledRule | None:
        rule, loc = raw.rules[index], ("rules", index)
        before = len(self._errors)
        tools: list[ToolSelector] = self._selectors(rule.tools, (*loc, "tools"), match.parse_tool)
        condition = None if rule.when is None else self._condition(rule.when, (*loc, "when"))
        if (rule.permit is None) == (rule.deny is None):
            self._fail(loc, "a rule has either `permit` or `deny` (`permit: {}` for no more than that)")
        code = Code.ROLE_PERMITTED if rule.deny is None else self._deny_code(rule.deny, (*loc, "deny", "code"))
        requirement = self._requirement(raw, index)
        if rule.when is not None and condition is None and len(self._errors) == before:
            # Its only fault is a name that is reported where it is defined: not a rule without a condition.
            self._fail((*loc, "when"), "this condition uses a name whose expression is wrong")
        if len(self._errors) > before:
            return None
        return CompiledRule(
            policy=raw.policy,
            version=raw.version,
            id=rule.id,
            file=self._document.file,
            line=self._document.line(loc),
            digest=self._digest,
            mode=Mode(raw.mode),
            agents=agents,
            tools=tuple(tools),
            condition=condition,
            code=code if requirement is None else UNMET[requirement.kind],
            overridable=rule.deny is not None and rule.deny.overridable,
            requirement=requirement,
            scopes=frozenset(() if requirement is None else requirement.params.get("scopes", ())),
            want=None if requirement is None else want(requirement.kind, requirement.params),
            rule_digest=digest_of_rule(
                raw.policy, agents, self._names_of(rule.when), self._document.value["rules"][index]
            ),
            why=rule.why,
        )

    def _deny_code(self, deny: shape.Deny, loc: Loc) -> Code:
        known = next((code for code in DENY_CODES if code.value == deny.code), None)
        if known is not None:
            return known
        listed = ", ".join(sorted(DENY_CODES))
        if deny.code in set(Code):
            self._fail(loc, f"`{deny.code}` is not for rules to give; a deny may give {listed}")
        else:
            self._fail(loc, f"unknown reason code `{deny.code}`; a deny may give {listed}")
        return Code.POLICY_EXPLICIT_DENY

    def _requirement(self, raw: shape.PolicyShape, index: int) -> Requirement | None:
        rule, loc = raw.rules[index], ("rules", index, "permit", "require")
        if rule.permit is None or rule.permit.require is None:
            return None
        wanted = rule.permit.require.model_fields_set
        if len(wanted) != 1:
            self._fail(
                loc,
                "`require` names one of human, grant, authn, scope, break_glass; write another rule for another way",
            )
            return None
        kind = next(iter(wanted))
        params = self._document.value["rules"][index]["permit"]["require"][kind]
        if params is None:
            self._fail((*loc, kind), f"say what `{kind}` wants")
            return None
        if kind == "authn" and not params:
            self._fail((*loc, kind), "`authn` wants a max_age, an acr, or both")
        return Requirement(
            kind=kind, params={"scopes": params} if kind == "scope" else params, rule=rule.id, policy=raw.policy
        )

    # --- tests ---

    def _test(self, raw: shape.PolicyShape, index: int, case: shape.Case) -> TestCase:
        loc = ("tests", index)
        code = None
        if case.expect.code is not None:
            code = next((each for each in Code if each.value == case.expect.code), None)
            if code is None:
                self._fail((*loc, "expect", "code"), f"unknown reason code `{case.expect.code}`")
        expected = case.expect.rule or "/"
        if "/" not in expected and expected not in {r.id for r in raw.rules}:
            self._fail((*loc, "expect", "rule"), f"no rule `{case.expect.rule}` here (another policy's: policy/rule)")
        given = case.given
        now = given.now or TEST_NOW
        kind, server, name = match.split_target(given.tool.id)
        tool = Tool(
            server=server,
            name=name,
            type=kind if kind in KINDS else given.tool.type,
            tool_class=given.tool.class_,
            tier=given.tool.tier,
            labels=tuple(given.tool.labels),
        )
        task = TaskFacts(
            id=given.task.id,
            trace_id="0" * 31 + "1",
            root_span_id="0" * 15 + "1",
            workflow=given.task.workflow,
            incident=given.task.incident,
            derived=given.task.derived,
            opened_at=given.task.opened_at or now,
            opened_by=given.task.opened_by,
        )
        principal = _principal(given.principal, raw.agents[0])
        return TestCase(
            policy=raw.policy,
            file=self._document.file,
            line=self._document.line(loc),
            call=ToolCall(
                protocol=given.tool.type,
                method=_METHODS.get(kind, "tools/call"),
                tool=tool,
                args={"uri": name, **given.args} if kind == RESOURCE else given.args,
                answers=given.answers,
                principal=principal,
            ),
            facts=Facts(now=now, task=task, deployment=given.deployment),
            outcome=case.expect.outcome,
            rule=case.expect.rule,
            code=code,
        )


def _principal(given: shape.GivenPrincipal | None, selector: str) -> Principal:
    """Who calls in a test: as given, or whoever the policy's first selector names."""
    if given is None:
        role = selector.removeprefix("role:") if selector.startswith("role:") else ""
        name = "test-agent" if role or selector == "*" else selector
        return Principal(id=name, type=IdentityType.AI_AGENT, proof=Proof.JWT, roles=(role,) if role else ())
    return Principal(
        id=given.id,
        type=given.type,
        proof=given.proof,
        issuer=given.issuer,
        owner=given.owner,
        roles=tuple(given.roles),
        scopes=tuple(given.scopes),
        on_behalf_of=tuple(Actor(id=each.id, type=each.type) for each in given.on_behalf_of),
    )


_SAID: Final = {
    "string_type": "must be a text (quote it)",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def _shape_error(document: Document, error: ErrorDetails) -> PolicyError:
    loc = tuple(error["loc"])
    kind = error["type"]
    if kind == "missing":
        return document.error(loc[:-1], f"`{loc[-1]}` is missing")
    if kind == "extra_forbidden":
        return document.error(loc, f"unknown key `{loc[-1]}`{_nearest(str(loc[-1]))}", key=True)
    if kind == "value_error":
        return document.error(loc, str(error["ctx"]["error"]))
    name = next((f"`{step}` " for step in reversed(loc) if isinstance(step, str)), "")
    return document.error(loc, name + _SAID.get(kind, error["msg"][:1].lower() + error["msg"][1:]))


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, _ALL_KEYS, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _all_keys() -> frozenset[str]:
    models = [each for each in vars(shape).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    return frozenset(f.alias or name for model in models for name, f in model.model_fields.items())


_ALL_KEYS: Final = sorted(_all_keys())
