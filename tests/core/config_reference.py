"""docs/configuration.md's table of settings, from the settings themselves.

``python -m tests.core.config_reference`` writes it anew, between the two marks in the page.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whygate.config import schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: generated from the schema -->\n", "<!-- end of settings -->\n"


def reference() -> str:
    """One table for each section, in the order of the schema."""
    whole = schema()
    lines = []
    for key, section in sections(whole, whole, ""):
        lines += [f"### {f'`{key}`' if key else 'Top level'}", "", section.get("description", ""), ""]
        if all(target(whole, each) is not None for each in section["properties"].values()):
            continue
        lines += ["| setting | what | default |", "|---|---|---|"]
        required = set(section.get("required", ()))
        for name, each in section["properties"].items():
            if target(whole, each) is None:
                default = "required" if name in required else f"`{json.dumps(each.get('default', None))}`"
                default = "none" if default == "`null`" else default
                lines.append(f"| `{name}` | {said(whole, each)}{words(whole, each)} | {default} |")
        lines.append("")
    return "\n".join(lines)


def settings() -> list[str]:
    """Every setting once, by section; what means the same in two sections (a classification, a credential, a server's
    URL) counts once.
    """
    whole = schema()
    seen = {
        (key, name)
        for key, section in sections(whole, whole, "")
        for name, each in section["properties"].items()
        if target(whole, each) is None
    }
    shared = {("tools.<server>.operations[]", name) for name in ("class", "tier", "labels")}
    shared |= {("tools.<server>.http.credential", name) for name in ("header", "prefix", "value")}
    shared |= {("tools.<server>.http", "url")}
    return sorted(f"{key}.{name}" for key, name in seen - shared)


def sections(whole: dict[str, Any], section: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield key, section
    for name, each in section["properties"].items():
        found = target(whole, each)
        if found is not None:
            suffix, below = found
            label = {"tools": "<server>", "tools.<server>.tools": "<tool>"}.get(f"{key}.{name}".strip("."), "")
            yield from sections(whole, below, f"{key}.{name}{suffix}".strip(".") + (f".{label}" if label else ""))


def target(whole: dict[str, Any], each: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The section that a property leads to, if it leads to one: itself, its items, its values, or itself or nothing."""
    if "$ref" in each:
        found = whole["$defs"][each["$ref"].rsplit("/", 1)[1]]
        return ("", found) if "properties" in found else None
    for inner in each.get("anyOf", ()):
        if (found := target(whole, inner)) is not None:
            return found
    if isinstance(items := each.get("items"), dict) and (found := target(whole, items)) is not None:
        return "[]", found[1]
    values = each.get("additionalProperties") or next(iter(each.get("patternProperties", {}).values()), None)
    if isinstance(values, dict) and (found := target(whole, values)) is not None:
        return "", found[1]
    return None


def said(whole: dict[str, Any], each: dict[str, Any]) -> str:
    """Its description, which the schema leaves to the type where both say the same."""
    return str(each.get("description") or whole["$defs"][each["$ref"].rsplit("/", 1)[1]]["description"])


def words(whole: dict[str, Any], each: dict[str, Any]) -> str:
    """The closed list of a setting that has one."""
    for inner in (each, *each.get("anyOf", ()), each.get("items", {})):
        named = whole["$defs"][inner["$ref"].rsplit("/", 1)[1]] if "$ref" in inner else inner
        if "enum" in named:
            return " One of " + ", ".join(f"`{word}`" for word in named["enum"] if word != "anonymous") + "."
    return ""


def split(page: str) -> tuple[str, str, str]:
    match = re.fullmatch(f"(.*{re.escape(BEGIN)})(.*)({re.escape(END)}.*)", page, re.DOTALL)
    assert match is not None, "docs/configuration.md has lost its marks"
    return match[1], match[2], match[3]


def main() -> None:
    before, _, after = split(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + reference() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
