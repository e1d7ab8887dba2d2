"""The house's laws as functions: each takes sources and returns what breaks the law, one line each. See test_house.py.

Rules:
1. A law reads text and syntax trees, it imports nothing of what it judges: it works on code that cannot be imported yet.
2. A finding names file, line and law, so that whoever broke it need not read this file.
3. An exception stands in the tables below with its reason, or beside the code as a comment with its reason.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

PACKAGE = "whygate"
ANYTHING = "*"

# Which parts each part may import, beside itself. A part without a row here is a finding: say where it stands first.
# `flow.ports` means that module alone, not the rest of flow.
LAYERS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "flow": frozenset({"core"}),
    "transport": frozenset({"core", "flow.ports"}),
    "config": frozenset({"core"}),
    "authn": frozenset({"core", "flow.ports"}),
    "engines": frozenset({"core", "flow.ports"}),
    "stores": frozenset({"core", "flow.ports"}),
    "telemetry": frozenset({"core", "flow.ports"}),
    "evidence": frozenset({"core", "flow.ports"}),
    "mcp": frozenset({"core", "flow.ports", "transport"}),
    "http": frozenset({"core", "flow.ports", "transport"}),
    "api": frozenset({"core", "flow", "transport", "console"}),
    "policy_files": frozenset({"core"}),
    "serving": frozenset({"transport"}),
    "projector_main": frozenset({ANYTHING}),
    "console": frozenset({"core", "flow", "transport", "stores"}),
    "channels": frozenset({"core", "flow"}),
    "testing": frozenset({ANYTHING}),
    "wiring": frozenset({ANYTHING}),
    "wiring_tools": frozenset({"core", "config", "flow", "api", "http", "mcp", "stores", "channels"}),
    "cli": frozenset({ANYTHING}),
    "__main__": frozenset({"cli"}),
}
# Whom only the named parts may import, `*` above notwithstanding: who can reach everything must not be reached by anyone.
ONLY_FOR = {"wiring": {"cli"}, "wiring_tools": {"wiring", "cli"}, "cli": {"__main__"}}

# What the core may use of other people's work: values, parsing and the policy language, all without a view of the world.
CORE_MAY_USE = frozenset({"msgspec", "yaml", "pydantic", "pydantic_core", "cel_expr_python", "google", "jsonschema_rs"})
# Of the standard library: whatever has a clock, chance, the outside, other threads, or the interpreter in its hands.
IMPURE = frozenset(
    {
        *(
            "asyncio",
            "concurrent",
            "contextvars",
            "multiprocessing",
            "queue",
            "sched",
            "selectors",
            "select",
            "signal",
            "threading",
            "_thread",
        ),
        *(
            "atexit",
            "builtins",
            "ctypes",
            "gc",
            "importlib",
            "inspect",
            "logging",
            "runpy",
            "sys",
            "tracemalloc",
            "warnings",
        ),
        *(
            "fcntl",
            "fileinput",
            "getpass",
            "glob",
            "io",
            "mmap",
            "os",
            "pathlib",
            "platform",
            "shelve",
            "shutil",
            "sqlite3",
            "subprocess",
            "tempfile",
        ),
        *("ftplib", "http", "smtplib", "socket", "socketserver", "ssl", "urllib.request", "xmlrpc"),
        *("random", "secrets", "time", "uuid", "zoneinfo"),
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint", "__import__"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})

FILE_LINES = 400
FUNCTION_LINES = 70
PARAMETERS = 6
# What may be larger, and why. Keys: a path, or path::function.
LARGER: dict[str, str] = {
    "src/whygate/core/reasons.py": "the closed list of reason codes: one table, read from top to bottom",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One Python file: `path` is relative to the checkout, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """Its dotted name, for a file under src; `src/whygate/core/__init__.py` is `whygate.core`."""
        parts = self.path.removeprefix("src/").removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def part(self) -> str:
        """The row of LAYERS that it belongs to; empty for the package's own `__init__`."""
        return part_of(self.module)

    @cached_property
    def comments(self) -> dict[int, str]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def part_of(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == PACKAGE else ""


def imports(source: Source, modules: Iterable[str] = ()) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported, anywhere in the file, for type checking only included.

    `from whygate.flow import ports` counts as `whygate.flow.ports` where `modules` knows such a module.
    """
    known = frozenset(modules)
    is_package = source.path.endswith("/__init__.py")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = source.module.split(".")
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known or (part_of(base) == "" and base == PACKAGE) else base


def directions(sources: Sequence[Source]) -> list[str]:
    """Imports point one way: each part imports what its row of LAYERS allows, and nobody else."""
    found = []
    modules = {source.module for source in sources}
    for source in sources:
        here = source.part
        if here and here not in LAYERS:
            found.append(
                f"{source.path}:1: the part `{here}` has no row in LAYERS (tests/house.py): say what it may import"
            )
            continue
        for line, name in imports(source, modules):
            there = part_of(name)
            if name.split(".")[0] == PACKAGE and there not in {"", here} and not _allowed(here, there, name, modules):
                found.append(f"{source.path}:{line}: {here or PACKAGE} may not import {name}")
    return found


def _allowed(here: str, there: str, name: str, modules: set[str]) -> bool:
    if there not in LAYERS and not any(part_of(module) == there for module in modules):
        return True  # a name of the package itself (`from whygate import __version__`), not a part of it
    if there in ONLY_FOR:
        return here in ONLY_FOR[there]
    rows = LAYERS.get(here, frozenset())
    inside = name.removeprefix(f"{PACKAGE}.")
    return ANYTHING in rows or any(inside == row or inside.startswith(f"{row}.") for row in rows)


def circles(sources: Sequence[Source]) -> list[str]:
    """No module imports itself, by whatever way round."""
    modules = {source.module for source in sources}
    graph = {source.module: sorted({name for _, name in imports(source, modules)} & modules) for source in sources}
    found, done = [], set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append("circle of imports: " + " -> ".join([*way[way.index(module) :], module]))
            return
        if module in done:
            return
        for other in graph[module]:
            walk(other, [*way, module])
        done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def purity(sources: Iterable[Source]) -> list[str]:
    """The core touches nothing of the world: no clock, chance, socket, file, log, thread or event loop."""
    found = []
    for source in sources:
        if source.part != "core":
            continue
        for line, name in imports(source):
            top = name.split(".")[0]
            if top in IMPURE or name in IMPURE:
                found.append(f"{source.path}:{line}: the core is pure and may not import {name}")
            elif top not in CORE_MAY_USE | {PACKAGE} and not _is_standard(top):
                found.append(f"{source.path}:{line}: the core may not use {name}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                found.append(f"{source.path}:{node.lineno}: the core waits for nothing: no async")
            elif isinstance(node, ast.Call) and (called := _impure_call(node)):
                found.append(f"{source.path}:{node.lineno}: the core may not call {called}")
    return found


def _impure_call(node: ast.Call) -> str | None:
    if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
        return f"{node.func.id}()"
    if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_METHODS:
        return f".{node.func.attr}(): time is passed in"
    return None


def _is_standard(name: str) -> bool:
    return name in sys.stdlib_module_names


def sizes(sources: Iterable[Source], larger: Mapping[str, str] = LARGER) -> list[str]:
    """Files, functions and signatures stay small enough to hold in the head. Docstrings cost no lines of a function."""
    found = []
    for source in sources:
        lines = source.text.count("\n")
        if lines > FILE_LINES and source.path not in larger:
            found.append(f"{source.path}:1: {lines} lines, more than {FILE_LINES}: is it still one room?")
        for function in source.functions:
            if f"{source.path}::{function.name}" in larger:
                continue
            if (length := _length(function)) > FUNCTION_LINES:
                found.append(
                    f"{source.path}:{function.lineno}: {function.name} has {length} lines, more than {FUNCTION_LINES}"
                )
            # A command of the CLI has a parameter for each of its options: typer declares them so.
            if (count := _parameters(function)) > PARAMETERS and source.part != "cli":
                found.append(
                    f"{source.path}:{function.lineno}: {function.name} has {count} parameters, more than {PARAMETERS}"
                )
    return found


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        whole -= (first.end_lineno or first.lineno) - first.lineno + 1
    return whole


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


SUPPRESSION = re.compile(
    r"#\s*(?P<what>noqa|type:\s*ignore)(?P<codes>:\s*[A-Z]+\d+(?:\s*,\s*[A-Z]+\d+)*|\[[^\]]*\])?(?P<reason>.*)",
    re.IGNORECASE,
)


def suppressions(sources: Iterable[Source]) -> list[str]:
    """Who switches a check off names which one, and says why on the same line."""
    found = []
    for source in sources:
        for line, comment in source.comments.items():
            for match in SUPPRESSION.finditer(comment):
                if not match["codes"]:
                    found.append(f"{source.path}:{line}: `{match['what']}` names no code: it would hide anything")
                elif len(re.findall(r"\w+", SUPPRESSION.sub("", match["reason"]))) < 2:
                    found.append(f"{source.path}:{line}: `{match['what']}{match['codes']}` gives no reason after it")
    return found


def hidden_imports(sources: Iterable[Source]) -> list[str]:
    """An import inside a function has a comment that says why: on its line, or on the one above."""
    found = set()
    for source in sources:
        for function in source.functions:
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Import | ast.ImportFrom)
                    and not {node.lineno, node.lineno - 1} & source.comments.keys()
                ):
                    found.add(f"{source.path}:{node.lineno}: an import inside {function.name} says no reason")
    return sorted(found)


# Written in pieces, or this file would be its own finding.
_HOSTS = (
    *(
        "pypi" + ".org",
        "python" + "hosted.org",
        "registry.npm" + "js.org",
        "crates" + ".io",
        "proxy.go" + "lang.org",
        "sum.go" + "lang.org",
    ),
    *("deb.deb" + "ian.org", "repo1." + "maven.org", "repo.maven." + "apache.org"),
)
_PLACES = ("../sha" + "red", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/")


def out_of_place(path: str, text: str, *, more: Iterable[str] = ()) -> list[str]:
    """No file names a place that exists on one machine only, or the host of a package registry. `more`: this machine's own."""
    words = [*_HOSTS, *_PLACES, *(word for word in more if len(word) > 5)]
    # A place is one where a path begins, not where one goes on.
    pattern = re.compile(
        "|".join(rf"(?<![\w)}}.~-]){re.escape(word)}" if word.startswith("/") else re.escape(word) for word in words)
    )
    return [
        f"{path}:{number}: names {match[0]}, which belongs in no file of the project"
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]
