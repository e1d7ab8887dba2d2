"""What the operators' listener takes: strict, bounded, nothing beside what is named."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from whygate.core.events import MAX_NOTE
from whygate.flow.emergencies import MAX_DAYS, MAX_MINUTES

MAX_NUMBER = 2**53 - 1
Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Incident = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Tools = Annotated[list[Id], Field(max_length=64)]
Words = Annotated[str, Field(max_length=MAX_NOTE, description="Your own words, for the record.")]
Said = Annotated[
    str, Field(min_length=1, max_length=MAX_NOTE, pattern=r"\S", description="Your own words, for the record.")
]


def _whole(value: Any) -> Any:
    """JSON Schema's integers have a dot where they like: 60.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Number = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER), WHOLE]
Seconds = Annotated[int, Field(ge=0, le=7 * 86_400, description="With `task`: for how many seconds."), WHOLE]
Days = Annotated[int, Field(ge=1, le=MAX_DAYS), WHOLE]
Minutes = Annotated[int, Field(ge=1, le=MAX_MINUTES), WHOLE]
Text = Annotated[str, Field(max_length=4096)]
Less = Number | Annotated[list[Text | Number], Field(max_length=1000)]
Path = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def model_validate(cls, obj: Any, **more: Any) -> Self:
        """Strictly, though Litestar asks for a lax look whatever the model says: "yes" is no agreement."""
        return super().model_validate(obj, **{**more, "strict": True})


class AnswerGiven(Body):
    """A person's answer to one question."""

    approve: bool
    shown_digest: str = Field(max_length=128, description="Of the document that was in front of you.")
    scope: Literal["call", "task"] = "call"
    for_s: Seconds = 0
    narrow: dict[Path, Less] = Field(default={}, max_length=32, description="Smaller values for arguments, by path.")
    note: Words = ""


class WaiverWanted(Body):
    """An exception from one overridable rule."""

    name: Name
    owner: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
    policy: Id
    rule: Id
    agents: Tools = Field(default=[], description="Whose; empty: everybody's.")
    tools: Tools = Field(default=[], description="Which tools; empty: those of the rule.")
    days: Days
    reason: Said


class EmergencyWanted(Body):
    """A break-glass, as far as it can be said before the console."""

    agents: Annotated[list[Id], Field(min_length=1, max_length=64)]
    tools: Annotated[list[Id], Field(min_length=1, max_length=64)]
    minutes: Minutes
    incident: Incident


class ReviewGiven(Body):
    """What somebody else found about a break-glass."""

    finding: Literal["justified", "not_justified"]
    note: Said


class AgentSwitched(Body):
    """The kill switch."""

    agent: Id
    note: Words = ""


ALL: tuple[type[Body], ...] = (AnswerGiven, WaiverWanted, EmergencyWanted, ReviewGiven, AgentSwitched)
