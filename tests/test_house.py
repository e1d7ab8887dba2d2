"""The laws of the house hold: where imports point, what the core touches, how large things grow, what no file says.

Each law is first shown to be able to fail, on a few lines made up for it: a check that cannot fail keeps nothing.
"""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests import house
from tests.house import Source

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[str]:
    """The files that are or may become part of a commit; without git (an unpacked release), all that are there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [
            str(path.relative_to(ROOT))
            for folder in ("src", "tests", "docs", "requirements")
            for path in (ROOT / folder).rglob("*")
        ]
    return sorted(path for path in set(listed) if (ROOT / path).is_file())


def read(*folders: str) -> list[Source]:
    return [
        Source(path=path, text=(ROOT / path).read_text(encoding="utf-8"))
        for path in tracked()
        if path.endswith(".py") and path.startswith(folders)
    ]


def made_up(path: str, *lines: str) -> Source:
    return Source(path=f"src/whygate/{path}", text="\n".join(lines) + "\n")


# --- the laws, on the project itself ---


def test_imports_point_one_way() -> None:
    """Nobody imports what stands further out: the core knows nobody, and only the cli knows the wiring."""
    assert house.directions(read("src/")) == []


def test_no_circles() -> None:
    """No module needs itself, by whatever way round."""
    assert house.circles(read("src/")) == []


def test_the_core_is_pure() -> None:
    """What decides has no clock, chance, file, socket, log or event loop: the same facts give the same answer."""
    assert house.purity(read("src/")) == []


def test_sizes() -> None:
    """Files, functions and signatures stay small; the table of exceptions names nothing that is gone."""
    assert house.sizes(read("src/")) == []
    assert [key for key in house.LARGER if not (ROOT / key.split("::")[0]).exists()] == []


def test_every_suppression_has_a_reason() -> None:
    """Whoever switches a check off for a line says which and why."""
    assert house.suppressions(read("src/", "tests/", "benchmarks/", "requirements/", "agents_examples/")) == []


def test_no_hidden_imports() -> None:
    """An import inside a function dodges nothing: it has a reason, and says it."""
    assert house.hidden_imports(read("src/")) == []


def test_no_file_names_a_place_or_a_registry() -> None:
    """The project reads the same on every machine."""
    configured = [
        os.environ.get(name, "")
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    ]
    more = [host for url in configured if (host := urlsplit(url).hostname) and host not in {"localhost", "127.0.0.1"}]
    found = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a database: no text to judge
        found += house.out_of_place(path, text, more=[*more, f"{ROOT}/"])
    assert found == []


# --- the project around the source ---


@pytest.mark.parametrize("lock", ["dev.txt", "mcp1.txt"])
def test_a_lock_is_pins_and_hashes_only(lock: str) -> None:
    """Each package is pinned by version and by hash, and nothing says where it came from."""
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    pin, digest = re.compile(r"[a-z0-9.-]+==\S+( ; .+)? \\"), re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not (pin.fullmatch(line) or digest.fullmatch(line))] == []


def test_npms_lock_is_pins_and_hashes_only() -> None:
    """What the tests run of npm's is pinned exactly, each package by hash, and nothing says where it came from."""
    folder = ROOT / "tests" / "servers" / "npm"
    asked = json.loads((folder / "package.json").read_text())
    wanted = asked["dependencies"] | asked["optionalDependencies"]
    assert [name for name, version in wanted.items() if not re.fullmatch(r"(npm:@?[a-z/-]+@)?\d[\w.-]*", version)] == []
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert wanted.keys() <= {name.removeprefix("node_modules/") for name in locked}
    del locked[""]
    assert [name for name, each in locked.items() if not each.get("integrity") or "resolved" in each] == []


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["demo"],
        *project["dependency-groups"]["dev"],
    ]
    return {re.match(r"[a-z0-9-]+", each)[0] for each in wanted}  # type: ignore[index]  every requirement begins with a name


def test_every_dependency_is_locked() -> None:
    """What the project asks for is in the lock, the build's own requirement with the same version."""
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    assert {name for name in dependencies() if f"\n{name}==" not in f"\n{lock}"} == set()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert [each for each in build if f"\n{each} " not in lock] == []


def test_every_dependency_earns_its_place() -> None:
    """docs/dependencies.md has one row for each dependency, and none for what is gone."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
    assert rows == dependencies()


# --- each law can fail ---


@pytest.mark.parametrize(
    ("path", "line", "finding"),
    [
        ("core/decide.py", "from whygate.flow.ports import Ledger", "core may not import whygate.flow.ports"),
        ("core/decide.py", "from ..flow import ports", "core may not import whygate.flow.ports"),
        ("core/decide.py", "import whygate.config", "core may not import whygate.config"),
        ("flow/gatekeeper.py", "from whygate import stores", "flow may not import whygate.stores"),
        ("mcp/edge.py", "from whygate.flow.gatekeeper import Gatekeeper", "mcp may not import whygate.flow.gatekeeper"),
        ("mcp/edge.py", "from whygate.http.edge import app", "mcp may not import whygate.http.edge"),
        ("stores/sqlite.py", "from whygate.flow import gatekeeper", "stores may not import whygate.flow.gatekeeper"),
        ("stores/sqlite.py", "import whygate.telemetry.spans", "stores may not import whygate.telemetry.spans"),
        ("testing/fakes.py", "from whygate.wiring import build", "testing may not import whygate.wiring"),
        ("api/decisions.py", "from whygate.wiring import build", "api may not import whygate.wiring"),
        ("wiring.py", "from whygate.cli.main import main", "wiring may not import whygate.cli.main"),
        ("attic/old.py", "", "the part `attic` has no row in LAYERS"),
        ("__init__.py", "from whygate.core import reasons", "whygate may not import whygate.core.reasons"),
    ],
)
def test_a_wrong_direction_is_found(path: str, line: str, finding: str) -> None:
    """An import outwards is found in each of its spellings."""
    others = [
        made_up(each)
        for each in ("flow/ports.py", "flow/gatekeeper.py", "http/edge.py", "stores/__init__.py", "core/reasons.py")
    ]
    found = house.directions([made_up(path, line), *others])
    assert len(found) == 1, found
    assert finding in found[0]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/decide.py", "from whygate.core.reasons import Reason"),
        ("core/decide.py", "from .reasons import Reason"),
        ("core/policy/parse.py", "from ..reasons import Reason"),
        ("flow/gatekeeper.py", "from whygate.core import decide"),
        ("mcp/edge.py", "from whygate.flow import ports"),
        ("authn/jwt.py", "from whygate.flow.ports import Clock"),
        ("telemetry/spans.py", "from whygate import __version__"),
        ("testing/fakes.py", "from whygate.stores import sqlite"),
        ("cli/serve.py", "from whygate.wiring import build"),
        ("wiring.py", "from whygate.flow.gatekeeper import Gatekeeper"),
    ],
)
def test_a_right_direction_is_not(path: str, line: str) -> None:
    """An import inwards is nobody's concern."""
    assert house.directions([made_up(path, line), made_up("flow/ports.py")]) == []


def test_a_circle_is_found() -> None:
    """Three modules that need one another are a circle, relative imports and a type-checking block notwithstanding."""
    a = made_up("core/a.py", "from whygate.core import b")
    b = made_up("core/b.py", "from .c import thing")
    c = made_up("core/c.py", "from typing import TYPE_CHECKING", "if TYPE_CHECKING:", "    import whygate.core.a")
    assert house.circles([a, b, c]) == [
        "circle of imports: whygate.core.a -> whygate.core.b -> whygate.core.c -> whygate.core.a"
    ]
    assert house.circles([a, b, made_up("core/c.py")]) == []


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import time",
            "import random",
            "import os.path",
            "from pathlib import Path",
            "import asyncio",
            "import uuid",
            "import logging",
        ),
        *(
            "import sqlite3",
            "import httpx",
            "from urllib.request import urlopen",
            "import litestar",
            "from io import StringIO",
        ),
        *("async def wait(): ...", "now = datetime.now()", "now = datetime.datetime.utcnow()", "day = date.today()"),
        *("text = open('policy.yaml')", "print('decided')", "def late():\n    import socket"),
    ],
)
def test_an_impure_core_is_found(line: str) -> None:
    """Each way to reach for the world is found in the core, and only there."""
    assert len(house.purity([made_up("core/decide.py", line)])) == 1
    assert house.purity([made_up("flow/gatekeeper.py", line)]) == []


def test_a_pure_core_is_not() -> None:
    """Types of time, hashing, values and the policy language are fine in the core."""
    pure = (
        "from datetime import UTC, datetime",
        "import hashlib, msgspec, yaml",
        "import cel_expr_python",
        "now: datetime",
        "facts.now",
    )
    assert house.purity([made_up("core/facts.py", *pure)]) == []


def test_sizes_are_found() -> None:
    """One line, one parameter too many is too many; docstrings and `self` are free; an exception is one by name."""
    long_file = made_up("core/long.py", *["x = 1"] * 401)
    assert "401 lines" in house.sizes([long_file])[0]
    assert house.sizes([long_file], {long_file.path: "a table"}) == []
    assert house.sizes([made_up("core/long.py", *["x = 1"] * 400)]) == []
    body = ["    x = 1"] * 70
    assert "has 71 lines" in house.sizes([made_up("core/f.py", "def f():", *body)])[0]
    assert house.sizes([made_up("core/f.py", "def f():", '    """Two', '    lines."""', *body[1:])]) == []
    assert "has 7 parameters" in house.sizes([made_up("core/p.py", "def f(a, b, c, d, e, *, f, g): ...")])[0]
    assert house.sizes([made_up("core/p.py", "class A:", "    def f(self, b, c, d, e, *, f, g): ...")]) == []


@pytest.mark.parametrize(
    "comment",
    [
        "noqa",
        "noqa: E501",
        "type: ignore",
        "type: ignore[arg-type]",
        "type: ignore[arg-type]  # noqa: E501",
        "NOQA: S101  x",
    ],
)
def test_a_suppression_without_a_reason_is_found(comment: str) -> None:
    """Neither a bare suppression nor one with only a code passes."""
    assert house.suppressions([made_up("core/s.py", f"x = 1  # {comment}")]) != []


def test_a_suppression_with_a_reason_is_not() -> None:
    """A code and a few words pass; the word in a string is no comment."""
    lines = (
        "x = 1  # noqa: S101, E501  the reader needs it whole",
        "y = 2  # type: ignore[misc]  no stubs exist",
        'z = "# noqa"',
    )
    assert house.suppressions([made_up("core/s.py", *lines)]) == []


def test_a_hidden_import_is_found() -> None:
    """An import inside a function passes with a comment beside or above it, and not without."""
    assert len(house.hidden_imports([made_up("cli/a.py", "def f():", "    import rich")])) == 1
    assert (
        house.hidden_imports([made_up("cli/a.py", "def f():", "    import rich  # slow to load, and rarely needed")])
        == []
    )
    assert house.hidden_imports([made_up("cli/a.py", "def f():", "    # slow to load", "    import rich")]) == []


@pytest.mark.parametrize(
    "place",
    [
        "../sha" + "red/notes.md",
        "see /ro" + "ot/x",
        "in /wo" + "rk/main",
        "https://pypi" + ".org/simple",
        "at /srv/me/x",
    ],
)
def test_a_place_of_one_machine_is_found(place: str) -> None:
    """A path of this machine or a registry's host is found, with its line."""
    found = house.out_of_place("docs/a.md", f"fine\n{place}\n", more=["/srv/me/"])
    assert len(found) == 1
    assert found[0].startswith("docs/a.md:2:")


def test_an_ordinary_path_is_not() -> None:
    """Paths inside the project and of ordinary systems are fine."""
    assert (
        house.out_of_place(
            "docs/a.md", "docs/" + "work/plan.md /etc/whygate/whygate.yaml ~/.cache/whygate shared/x $HOME/" + "work/"
        )
        == []
    )
