"""``whygate schema``: what records and the configuration look like, for programs."""

import inspect
from typing import Any, Final

import msgspec
import typer

from whygate.cli.screen import put_json
from whygate.config import schema as settings_schema
from whygate.core.events import (
    AgentRecord,
    ApprovalRecord,
    BreakGlassRecord,
    GrantRecord,
    PersonRecord,
    ReviewRecord,
    WaiverRecord,
)
from whygate.core.reasons import Outcome
from whygate.core.records import (
    VERSION,
    CompletionRecord,
    DecisionRecord,
    LifeRecord,
    PolicyRecord,
    TaskRecord,
    ToolRecord,
)

app = typer.Typer(name="schema", help="JSON Schemas of what whygate writes and reads.", no_args_is_help=True)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
KINDS: Final = {
    DecisionRecord: ("decision",),
    CompletionRecord: ("completion",),
    TaskRecord: ("task",),
    PolicyRecord: ("policy",),
    ToolRecord: ("tool",),
    ApprovalRecord: ("approval",),
    GrantRecord: ("grant",),
    WaiverRecord: ("waiver",),
    BreakGlassRecord: ("breakglass",),
    ReviewRecord: ("review",),
    AgentRecord: ("agent",),
    PersonRecord: ("person",),
    LifeRecord: ("start", "stop", "gap", "clock_step", "config"),
}
GIVEN: Final = ("seq", "time", "writer")
"""Given by the ledger at the moment of writing, so they have defaults in the code and none in the ledger."""


@app.callback()
def schema() -> None:
    """JSON Schemas of what whygate writes and reads."""


@app.command()
def record() -> None:
    """Print the JSON Schema of the ledger's records."""
    put_json(record_schema())


@app.command()
def config() -> None:
    """Print the JSON Schema of whygate.yaml."""
    put_json(config_schema())


def record_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of every kind of record, told apart by ``kind``.

    Unknown keys are allowed: later versions add some.
    """
    references, definitions = msgspec.json.schema_components(list(KINDS), ref_template="#/$defs/{name}")
    for made, kinds in KINDS.items():
        definition = definitions[made.__name__]
        fields = definition["properties"]
        fields["kind"] = {"const": kinds[0]} if len(kinds) == 1 else {"enum": list(kinds)}
        fields["v"] = {"const": VERSION}
        for name in GIVEN:
            fields[name].pop("default", None)
        definition["required"] = sorted({*definition["required"], *GIVEN})
    for definition in definitions.values():
        if "description" in definition:  # a docstring, whose later lines Python 3.13 no longer indents
            definition["description"] = inspect.cleandoc(definition["description"])
    decision = definitions[DecisionRecord.__name__]["properties"]
    decision["outcome"] = {"enum": [outcome.value for outcome in Outcome]}
    decision["effect"] = {"enum": ["allow", "deny"]}
    return {
        "$schema": DIALECT,
        "title": f"whygate record, version {VERSION}",
        "description": "One record of a whygate ledger. A reader that meets a reason code it does not know goes by the "
        "outcome.",
        "oneOf": list(references),
        "$defs": dict(sorted(definitions.items())),
    }


def config_schema() -> dict[str, Any]:
    return settings_schema()
