"""The table of paths in ``docs/identity.md`` is made from ``transport.access``: ``python -m tests.test_docs_access`` writes it."""

from pathlib import Path

from whygate.transport import access
from whygate.transport.access import Row, Who

PAGE = Path(__file__).resolve().parent.parent / "docs" / "identity.md"
BEGIN, END = "<!-- paths: made from the source -->\n", "<!-- end of paths -->\n"
WHO = {
    Who.ANYBODY: "anybody",
    Who.CALLERS: "every active principal; then its policy decides",
    Who.OPERATORS: "people, and the hosts in `task_openers`",
    Who.PEOPLE: "people, by token",
    Who.SIGNED_IN: "people who are signed in to the console, by their roles there",
    Who.IN_CHARGE: "people with the role `owner` or `operator`",
    Who.EMERGENCY: "people with the role `breakglass`",
}


def made() -> str:
    lines = ["| listener | path | methods | who | what |", "|---|---|---|---|---|"]
    for name, table in (("agents", access.AGENTS), ("operators", access.OPERATORS)):
        lines += [_line(name, row) for row in table]
    return "\n".join(lines) + "\n"


def _line(name: str, row: Row) -> str:
    path = row.path.replace("{rest:path}", "…")
    return f"| {name} | `{path}` | {', '.join(row.methods)} | {WHO[row.who]} | {row.what} |"


def _parts() -> tuple[str, str, str]:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between, after


def test_the_table_of_paths_is_that_of_the_source() -> None:
    """Who reads the page reads what the listeners keep to."""
    assert _parts()[1] == made()


if __name__ == "__main__":
    first, _, last = _parts()
    PAGE.write_text(first + BEGIN + made() + END + last, encoding="utf-8")
