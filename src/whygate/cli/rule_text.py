"""The text of a rule, out of the policy set as the ledger keeps it.

Only read as YAML, not compiled: a rule of years ago is shown as it stood, though this version might not load it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from whygate.core.decision import RuleRef
from whygate.core.ids import sha256_digest
from whygate.core.policy.document import Document, read


class RuleText(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rule stands, and how it reads."""

    file: str
    line: int
    """Of its first key."""
    text: str
    owner: str = ""
    """Of the policy."""
    why: str = ""
    lets: dict[str, str] = {}
    """The policy's ``let`` that the rule's condition names, and what these name in turn."""


def find(texts: Mapping[str, str], ref: RuleRef) -> RuleText | None:
    """The rule that ``ref`` names; ``None`` where it is not in ``texts``, or these can't be read."""
    for file, text in sorted(texts.items(), key=lambda item: sha256_digest(item[1].encode()) != ref.digest):
        documents, _ = read(file, text)
        for document in documents:
            found = _in(document, file, text, ref)
            if found is not None:
                return found
    return None


def _in(document: Document, file: str, text: str, ref: RuleRef) -> RuleText | None:
    value = document.value
    if not isinstance(value, dict) or value.get("policy") != ref.policy or value.get("version") != ref.version:
        return None
    rules = value.get("rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict) and rule.get("id") == ref.rule:
            line = document.line(("rules", index))
            return RuleText(
                file=file,
                line=line,
                text=_item(text.split("\n"), line),
                owner=str(value.get("owner", "")),
                why=" ".join(str(rule.get("why", "")).split()),
                lets=dict(_lets(value.get("let"), str(rule.get("when", "")), set())),
            )
    return None


def _lets(defined: Any, expression: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    for word in re.findall(r"[A-Za-z_]\w*", expression):
        if isinstance(defined, dict) and word in defined and word not in seen:
            seen.add(word)
            yield word, " ".join(str(defined[word]).split())
            yield from _lets(defined, str(defined[word]), seen)


def _item(lines: list[str], first: int) -> str:
    """The lines of a list's item that begins on line ``first`` (from 1): all that are further in than its dash."""
    head = lines[first - 1]
    inset = len(head) - len(head.lstrip())
    taken = [head]
    for line in lines[first:]:
        if line.strip() and len(line) - len(line.lstrip()) <= inset:
            break
        taken.append(line)
    while len(taken) > 1 and not taken[-1].strip():
        taken.pop()
    return "\n".join(line[inset:].rstrip() for line in taken)
