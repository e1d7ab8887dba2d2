"""Every place at the edges that can refuse is reached by the fuzzer, or shown where ``ELSEWHERE`` says.

The other list, by reason codes, is in ``promises/test_every_refusal_is_explained.py``; this one is by place: a new refusal with
an old code can't hide behind the ones that are tried already.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from tests.fuzz.inputs import one
from tests.fuzz.test_edges import Fuzzing, fuzzing  # noqa: F401  a fixture is found by its name

SOURCE: Final = Path(__file__).parents[2] / "src" / "whygate"
PLACES: Final = ("mcp/*.py", "http/*.py", "transport/*.py", "core/strict_json.py", "core/policy/arguments.py")
NO_REFUSALS: Final = {"openapi.py"}
"""Read at the start: what they refuse is a document."""
REFUSES: Final = {
    "Fault",
    "Wrong",
    "Unreadable",
    "Unseen",
    "Refused",
    "_too_large",
    "_malformed",
    "_ambiguous",
    "_wrong",
    "_refuse",
}
INPUTS: Final = 12_000
ELSEWHERE: Final = {
    "the body did not come in time": "attacks/test_floods.py",
    "not HTTP that can be read in one way only": "attacks/test_framing.py",
    "processes of ": "edges/test_mcp_stdio.py",
    "a cursor: the list comes in one piece": "promises/test_every_refusal_is_explained.py",
    "sessions are in use": "edges/test_mcp_merged_sessions.py",
    ", which is not JSON": "core/test_decide_properties.py",
    "the arguments hold a key that is no text": "core/test_decide_properties.py",
    "the arguments hold a lone surrogate": "core/test_decide_properties.py",
}
"""A part of the note, and the test that brings it about: what needs time, sockets, processes, or an edge that let it through."""


def _notes() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each place that refuses with a note of its own: where, and the note's fixed parts."""
    for pattern in PLACES:
        for file in sorted(SOURCE.glob(pattern)):
            if file.name in NO_REFUSALS:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                name = getattr(getattr(node, "func", None), "id", "") if isinstance(node, ast.Call) else ""
                if not isinstance(node, ast.Call) or name not in REFUSES:
                    continue
                values = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "note")]
                for value in values:
                    parts = tuple(
                        each.value
                        for each in ([value] if isinstance(value, ast.Constant) else getattr(value, "values", []))
                        if isinstance(each, ast.Constant) and isinstance(each.value, str)
                    )
                    if any(parts):
                        yield f"{file.relative_to(SOURCE)}:{node.lineno}", parts


def test_every_place_that_refuses_is_reached(fuzzing: Fuzzing) -> None:  # noqa: F811  the fixture
    """Its note stands in a record of the fuzzer's run. Who adds a place adds a seed that reaches it, or says where it is shown."""
    told = set()
    for number in range(INPUTS):
        ran = fuzzing.run(one(Random(f"fixed/{number}"), fuzzing.world.known))
        told |= {found["reason"]["admin"] for leaf in ran.leaves if "reason" in (found := msgspec.json.decode(leaf))}
    text = "\n".join(told)
    notes = list(_notes())
    assert len(notes) > 60
    missing = [f"{where}: {''.join(parts)}" for where, parts in notes if not all(part in text for part in parts)]
    left = [one_ for one_ in missing if not any(part in one_ for part in ELSEWHERE)]
    assert "\n".join(left) == ""
    needless = [part for part in ELSEWHERE if not any(part in each for each in missing)]
    assert needless == [], "reached, after all: take it out of the list"
    for place in ELSEWHERE.values():
        assert (Path(__file__).parents[1] / place).exists(), place
