"""What the operators' listener answers, for its OpenAPI document. The handlers make their answers as they need them; that they
keep to these shapes is tried by schemathesis.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """A problem document (RFC 9457). What was decided has the members from ``id`` on, and a record of that id."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    errors: list[dict[str, Any]] = Field(
        default=[], description="What is wrong with the request, or with the policies."
    )
    id: str = ""
    outcome: str = ""
    code: str = Field(default="", description="A reason code: docs/reason-codes.md.")
    note: str = ""
    next: str = ""
    console: str = Field(default="", description="The page where you can finish, with a passkey.")


class TaskOpened(Answer):
    id: str
    trace_id: str = Field(pattern="^[0-9a-f]{32}$")
    traceparent: str = Field(pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$")
    agents: list[str]
    workflow: str
    incident: str
    expires_at: str


class File(Answer):
    name: str
    digest: str


class Policy(Answer):
    id: str
    version: int
    owner: str
    mode: str
    file: str
    rules: int


class InForce(Answer):
    digest: str
    since: str | None
    looked_at: int
    files: list[File]
    policies: list[Policy]


class PolicyMistake(Answer):
    file: str
    line: int
    column: int
    message: str


class Refusal(Answer):
    digest: str
    at: str
    errors: list[PolicyMistake]


class PoliciesShown(Answer):
    in_force: InForce | None
    refused: Refusal | None


class Reloaded(Answer):
    event: str
    in_force: str


class Health(Answer):
    status: str
    version: str


class Ready(Answer):
    status: str
    missing: str = ""
