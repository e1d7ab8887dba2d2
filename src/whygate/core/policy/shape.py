"""The shape of a policy file: which keys there are and what may stand in them. Meaning is checked in ``parse``."""

import datetime
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from whygate.core.calls import Tier, ToolClass
from whygate.core.identity import IdentityType, Proof
from whygate.core.reasons import Outcome

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DURATION: Final = re.compile(r"[1-9][0-9]{0,5}[smhd]")
_NARROW: Final = re.compile(r"args(\.[A-Za-z_][A-Za-z0-9_]*)+")
_APPROVER: Final = re.compile(r"(group:|role:|)[^\s:*][^\s*]*")


def _id(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise ValueError("an id is 1 to 64 letters, digits, dots, dashes and underscores")
    return text


def _duration(text: str) -> str:
    if _DURATION.fullmatch(text) is None:
        raise ValueError("a duration is a number and one of s, m, h, d: 90s, 10m, 24h, 7d")
    return text


def _narrowable(text: str) -> str:
    if _NARROW.fullmatch(text) is None:
        raise ValueError("name an argument by its path: args.amount_cents")
    return text


def _approver(text: str) -> str:
    if _APPROVER.fullmatch(text) is None:
        raise ValueError("an approver is a person's id, group:<name> or role:<name>")
    return text


def _never_itself(excluded: list[str]) -> list[str]:
    if "requester" not in excluded:
        raise ValueError("the requester never approves its own call: `not` always names it")
    return excluded


def _moment(value: Any) -> Any:
    try:
        made = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("a time is written as 2026-01-05T12:00:00Z") from None
    if made.tzinfo is None:
        raise ValueError("a time needs its zone: 2026-01-05T12:00:00Z")
    return made.astimezone(datetime.UTC)


def _tool(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _from_text(kind: type) -> BeforeValidator:
    """An enum's member from its text; strict models would want the member itself."""

    def convert(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(str(each) for each in kind)}") from None  # type: ignore[attr-defined]  # called with enums only

    return BeforeValidator(convert)


Id = Annotated[str, AfterValidator(_id)]
Duration = Annotated[str, AfterValidator(_duration)]
Moment = Annotated[datetime.datetime, BeforeValidator(_moment)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
Approvers = Annotated[list[Annotated[str, AfterValidator(_approver)]], Field(min_length=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Human(_Shape):
    """A person agrees to exactly this call."""

    approvers: Approvers
    quorum: Count = 1
    not_: Annotated[list[Literal["requester", "owner"]], AfterValidator(_never_itself)] = Field(
        alias="not", default=["requester"]
    )
    within: Duration = "10m"
    narrow: list[Annotated[str, AfterValidator(_narrowable)]] = []
    uses: Count = 1
    use_within: Duration = "10m"
    for_task: Duration | None = None
    client_answers: bool = False


class Grant(_Shape):
    """A just-in-time elevation is active."""

    entitlement: Id
    approvers: Approvers | None = None
    auto: bool = False
    max_ttl: Duration
    max_uses: Count | None = None
    quorum: Count = 1
    not_: Annotated[list[Literal["requester", "owner"]], AfterValidator(_never_itself)] = Field(
        alias="not", default=["requester"]
    )
    within: Duration = "10m"

    @model_validator(mode="after")
    def _somebody(self) -> "Grant":
        if self.auto == (self.approvers is not None):
            raise ValueError("an elevation is either approved by `approvers` or given by policy itself (`auto: true`)")
        return self


class Authn(_Shape):
    """The person behind the call signed in recently and strongly enough (RFC 9470)."""

    acr: Texts | None = None
    max_age: Duration | None = None


class BreakGlass(_Shape):
    """A declared emergency is open."""

    incident: bool = True
    max_ttl: Duration = "60m"


class Require(_Shape):
    human: Human | None = None
    grant: Grant | None = None
    authn: Authn | None = None
    scope: Texts | None = None
    break_glass: BreakGlass | None = None


class Permit(_Shape):
    require: Require | None = None


class Deny(_Shape):
    code: str = "policy.explicit_deny"
    overridable: bool = False


class Rule(_Shape):
    id: Id
    tools: Texts
    when: str | None = None
    permit: Permit | None = None
    deny: Deny | None = None
    why: Annotated[str, Field(min_length=1, max_length=500)]


class Budget(_Shape):
    id: Id
    tools: Texts
    sum: Text
    per: Duration
    max: Annotated[int, Field(ge=0)]


class GivenTool(_Shape):
    id: Annotated[str, Field(pattern=r"^[^/]+/.+$")]
    class_: Annotated[ToolClass | None, _from_text(ToolClass)] = Field(alias="class", default=None)
    tier: Annotated[Tier, _from_text(Tier)] = Tier.HIGH
    labels: list[Text] = ["untrusted"]
    type: Literal["mcp", "http"] = "mcp"
    """Of a tool. A resource and a prompt say what they are in their id."""


class GivenActor(_Shape):
    id: Text
    type: Annotated[IdentityType, _from_text(IdentityType)]


class GivenPrincipal(_Shape):
    id: Text
    type: Annotated[IdentityType, _from_text(IdentityType)] = IdentityType.AI_AGENT
    issuer: str = ""
    owner: str = ""
    roles: list[Text] = []
    scopes: list[Text] = []
    proof: Annotated[Proof, _from_text(Proof)] = Proof.JWT
    on_behalf_of: list[GivenActor] = []


class GivenTask(_Shape):
    id: Text = "test-task"
    workflow: str = ""
    incident: str = ""
    derived: bool = False
    opened_by: str = ""
    opened_at: Moment | None = None


class Given(_Shape):
    tool: Annotated[GivenTool, BeforeValidator(_tool)]
    args: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    principal: GivenPrincipal | None = None
    task: GivenTask = GivenTask()
    now: Moment | None = None
    deployment: str = ""


class Expect(_Shape):
    outcome: Annotated[Outcome, _from_text(Outcome)]
    rule: str | None = None
    code: str | None = None


class Case(_Shape):
    given: Given
    expect: Expect


class PolicyShape(_Shape):
    """One document."""

    policy: Id
    version: Count
    owner: Text
    agents: Texts
    mode: Literal["enforce", "shadow"] = "enforce"
    let: dict[str, str] = {}
    rules: Annotated[list[Rule], Field(min_length=1)]
    budgets: list[Budget] = []
    tests: list[Case] = []
