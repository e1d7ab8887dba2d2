"""What the operators' listener answers about people's decisions, for its OpenAPI document: ``core.told`` makes them."""

from typing import Any, Literal

from pydantic import Field

from whygate.api.answers import Answer


class Approval(Answer):
    id: str
    state: Literal["pending", "approved", "denied", "expired", "cancelled", "revoked"]
    principal: str
    on_behalf_of: list[str]
    owner: str
    tool: str
    entitlement: str
    policy: str
    rule: str
    task: str
    trace_id: str
    decision: str
    approvers: list[str]
    not_: list[str] = Field(alias="not")
    quorum: int
    agreed: list[str]
    asked_at: str | None
    answer_by: str | None
    answered_at: str | None
    usable_until: str | None
    uses: int
    use_within_s: int
    uses_left: int
    scope: str
    for_task_s: int
    narrow: list[str]
    shown_digest: str
    console: str


class ApprovalShown(Approval):
    shown: dict[str, Any] | None


class ApprovalsShown(Answer):
    waiting: list[Approval]
    usable: list[Approval]


class Grant(Answer):
    id: str
    entitlement: str
    principal: str
    task: str
    tools: list[str]
    patterned: bool
    until: str | None
    uses_left: int | None
    approval: str


class Grants(Answer):
    grants: list[Grant]


class Waiver(Answer):
    id: str
    name: str
    owner: str
    by: str
    policy: str
    rule: str
    agents: list[str]
    tools: list[str]
    until: str | None


class Waivers(Answer):
    waivers: list[Waiver]


class BreakGlass(Answer):
    id: str
    incident: str
    by: str
    team: str
    agents: list[str]
    tools: list[str]
    task: str
    until: str | None


class Review(Answer):
    id: str
    incident: str
    by: str
    team: str
    due: str | None
    overdue: bool


class Emergencies(Answer):
    open: list[BreakGlass]
    reviews: list[Review]


class Reviewed(Answer):
    id: str
    finding: str


class Nothing(Answer):
    """Never: a break-glass is opened in the console."""


class Agent(Answer):
    id: str
    type: str
    owner: str
    purpose: str
    status: str
    roles: list[str]
    suspended: bool


class Agents(Answer):
    agents: list[Agent]


class Switched(Answer):
    id: str
    suspended: bool


class DecisionsFound(Answer):
    decisions: list[dict[str, Any]]
    before: int | None


class DecisionTold(Answer):
    decision: dict[str, Any]
    about: list[dict[str, Any]]
