"""“Approve like this next time”: a rule for review, no wider than what was shown. Nobody applies it but a person, by a file."""

import json
import re
from typing import Any, Final

import yaml

from whygate.core.shown import Shown

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def rule(shown: Shown) -> str:
    """The text of a policy that permits exactly such calls of this caller. Empty where that can't be said in a condition."""
    conditions: list[str] = []
    if not _equal("args", shown.arguments, conditions):
        return ""
    document: dict[str, Any] = {
        "policy": "draft",
        "version": 1,
        "owner": shown.owner or "somebody@example.com",
        "agents": [shown.requester],
        "rules": [
            {
                "id": f"{shown.rule}-routine"[:64],
                "tools": [shown.tool],
                "when": " && ".join(conditions) or "true",
                "permit": {},
                "why": f"Approved before: {shown.why}"[:500],
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=100)


def _equal(path: str, value: Any, conditions: list[str]) -> bool:
    if isinstance(value, dict):
        conditions.append(f"size({path}) == {len(value)}")
        for name, inner in value.items():
            if _NAME.fullmatch(name) is None or not _equal(f"{path}.{name}", inner, conditions):
                return False
        return True
    if isinstance(value, str | int | bool):
        conditions.append(f"{path} == {json.dumps(value)}")
        return True
    return False
