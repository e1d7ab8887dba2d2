"""From a file and the environment to a ``Config``, or to the list of all that is wrong with them."""

import difflib
import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from whygate.config.settings import Config, Section
from whygate.config.shapes import split_address

PREFIX: Final = "WHYGATE_"
MAX_KEYS: Final = 100_000
"""Thousands of agents fit; a few lines of anchors that multiply each other do not."""
Location: TypeAlias = tuple[str | int, ...]
Finding: TypeAlias = tuple[Location, str, str]
"""Where in the tree, what is wrong, and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, for whoever has to mend it. Never repeats the value, which may be a secret."""

    key: str
    """Path of the key, e.g. ``identities.agents[0].id``; empty for the file as a whole."""
    where: str
    """``file:line``, or the environment variable."""
    what: str
    fix: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, f"{self.what}; {self.fix}") if part)


class ConfigError(Exception):
    """The configuration can't be used. ``problems`` has all that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read ``path`` and what ``environ`` overrides of it. Raises ``ConfigError`` with all that is wrong."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "make one with `whygate init`, or name another"
        raise ConfigError([Problem(key="", where=name, what="there is no such file", fix=fix)]) from None
    except (OSError, UnicodeDecodeError) as error:
        what = f"can't be read ({type(error).__name__})"
        raise ConfigError([Problem(key="", where=name, what=what, fix="make it readable, in UTF-8")]) from None
    places = _Places(name)
    data = _parse(text, places)
    found = list(_override(data, environ, places))
    return _check(data, path.absolute().parent, places, found)


def from_mapping(data: Mapping[str, Any], base: Path | None = None) -> Config:
    """The same checks for a tree that is at hand already; paths are relative to ``base``. Raises ``ConfigError``."""
    return _check(dict(data), base, _Places("configuration"), [])


class _Places:
    """Where each key came from."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[Location, tuple[int, str]] = {}
        """Line number (0 for the environment) and how to say it."""

    def line(self, number: int) -> tuple[int, str]:
        return number, f"{self.name}:{number}"

    def of(self, location: Location) -> tuple[int, str]:
        """Its own place, or that of the nearest key around it."""
        around = (location[:length] for length in range(len(location), -1, -1))
        return next((self.known[each] for each in around if each in self.known), (0, self.name))

    def error(self, findings: list[Finding]) -> ConfigError:
        in_order = sorted(findings, key=lambda finding: self.of(finding[0])[0])
        return ConfigError(
            [Problem(key=_dotted(at), where=self.of(at)[1], what=what, fix=fix) for at, what, fix in in_order]
        )


def _dotted(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _parse(text: str, places: _Places) -> dict[str, Any]:
    loader = yaml.SafeLoader(text)
    twice: list[Finding] = []
    try:
        node = loader.get_single_node()
        if node is not None:
            _mark(node, (), places, twice)
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = Problem(key="", where=f"{places.name}{line}", what="is no YAML", fix=error.problem or "mend it")
        raise ConfigError([problem]) from None
    except RecursionError:
        fix = "take out the anchor that contains itself"
        raise ConfigError([Problem(key="", where=places.name, what="never ends", fix=fix)]) from None
    except (yaml.YAMLError, ValueError):
        raise ConfigError([Problem(key="", where=places.name, what="is no YAML", fix="mend it")]) from None
    finally:
        loader.dispose()
    if twice:
        raise places.error(twice)
    if not isinstance(data, dict):
        raise ConfigError([Problem(key="", where=places.name, what="has no settings", fix="see `whygate init`")])
    return data


def _mark(node: yaml.Node, at: Location, places: _Places, twice: list[Finding]) -> None:
    """Note the line of every key, and keys that stand twice: YAML would silently take the last one."""
    if len(places.known) > MAX_KEYS:
        problem = Problem(key="", where=places.name, what=f"has more than {MAX_KEYS} keys", fix="use fewer anchors")
        raise ConfigError([problem])
    places.known.setdefault(at, places.line(node.start_mark.line + 1))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _mark(item, (*at, index), places, twice)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*at, str(key.value))
            line = key.start_mark.line + 1
            if below in places.known:
                twice.append((below, f"stands here and again in line {line}", "keep one of them"))
            places.known.setdefault(below, places.line(line))
            _mark(value, below, places, twice)


def _override(data: dict[str, Any], environ: Mapping[str, str], places: _Places) -> Iterator[Finding]:
    """Put ``WHYGATE_<PATH>`` into the tree; ``__`` leads into sections, an empty value removes the key.

    Variables whose first part is no key of ours are left alone: orchestrators set some of their own (a service named
    ``whygate`` gives every pod ``WHYGATE_PORT``).
    """
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        parts = variable.removeprefix(PREFIX).lower().split("__")
        if parts[0] not in Config.model_fields:
            continue
        tree, value = data, environ[variable]
        for part in parts[:-1]:
            below = tree.setdefault(part, {})
            if below is None:
                below = tree[part] = {}
            if not isinstance(below, dict):
                yield tuple(parts), f"{variable} leads into what is no section", "set the whole key instead"
                break
            tree = below
        else:
            places.known[tuple(parts)] = (0, f"environment variable {variable}")
            if not value:
                tree.pop(parts[-1], None)
                continue
            try:
                # Plain values are text as they stand; only lists and sections are read as (flow style) YAML.
                tree[parts[-1]] = yaml.safe_load(value) if value[0] in "[{" else value
            except yaml.YAMLError:
                yield tuple(parts), "is no YAML", "write [a, b] or {a: b}"


def _check(data: dict[str, Any], base: Path | None, places: _Places, found: list[Finding]) -> Config:
    config = None
    try:
        # As JSON, because that is what YAML's lists and words are: strictness then asks for the right JSON type.
        text = json.dumps(data, default=str)
        config = Config.model_validate_json(text, context={"base": base})
        tree = data
    except ValidationError as error:
        found.extend(_findings(error))
        tree = data
    except (ValueError, TypeError, RecursionError):
        found.append(((), "can't be read", "use plain text keys, and no anchor that contains itself"))
        tree = {}
    found.extend(_between(tree))
    if config is None or found:
        raise places.error(found)
    return config


def _findings(error: ValidationError) -> Iterator[Finding]:
    errors = error.errors(include_url=False, include_input=False)
    for each in errors:
        if each["type"] == "default_factory_not_called":
            continue  # a default that is made from another setting, which is the one that is wrong
        if each["type"] == "too_short" and any(other["loc"][:-1] == each["loc"] for other in errors):
            continue  # not empty: what is in it is wrong
        yield _explain(each)


def _explain(error: ErrorDetails) -> Finding:
    location = tuple(part for part in error["loc"] if part != "[key]")
    context = error.get("ctx", {})
    match error["type"]:
        case "whygate":
            return location, context["what"], context["fix"]
        case "extra_forbidden":
            return location, "is no setting", _nearest(location)
        case "missing":
            return location, "is missing", "set it"
        case "string_type":
            return location, "must be text", "put it into quotes"
        case "bool_type":
            return location, "must be true or false", "write true or false, without quotes"
        case "enum" | "literal_error":
            return location, "is not one of the known words", f"use {context['expected']}"
        case "tuple_type":
            return location, "must be a list", "write [a, b]"
        case "too_short":
            return location, "must not be empty", "name at least one"
        case "model_type" | "dict_type":
            return location, "must be a section of keys", "write the keys below it, indented"
        case _:
            return location, error["msg"], "see docs/configuration.md"


def _nearest(location: Location) -> str:
    """What was probably meant by an unknown key."""
    known = {field.alias or name for section in _sections(Section) for name, field in section.model_fields.items()}
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean `{close[0]}`?" if close else "take it out; docs/configuration.md lists all settings"


def _sections(base: type[Section]) -> Iterator[type[Section]]:
    for each in base.__subclasses__():
        yield each
        yield from _sections(each)


def _rows(tree: Any, *path: str) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The sections of a list somewhere in a tree of which nothing is known yet."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    for index, row in enumerate(tree if isinstance(tree, list) else ()):
        if isinstance(row, dict):
            yield (*path, index), row


def _twice(pairs: Iterator[tuple[Location, Hashable]], what: str, fix: str) -> Iterator[Finding]:
    seen: dict[Hashable, Location] = {}
    for location, value in pairs:
        if value in seen:
            yield location, f"{what} as {_dotted(seen[value])}", fix
        seen.setdefault(value, location)


def _between(tree: dict[str, Any]) -> Iterator[Finding]:
    """What holds between settings. Reads the raw tree, of which any part may be wrong, so that all is said at once."""
    agents, issuers = list(_rows(tree, "identities", "agents")), list(_rows(tree, "identities", "issuers"))
    yield from _twice(
        (((*at, "id"), row["id"]) for at, row in agents if isinstance(row.get("id"), str)),
        "is the same agent",
        "give each agent its own id",
    )
    yield from _twice(
        (
            ((*at, "api_keys", n), key)
            for at, row in agents
            for n, key in enumerate(row["api_keys"] if isinstance(row.get("api_keys"), list) else ())
            if isinstance(key, str)
        ),
        "is the same key",
        "a key proves one agent: make another with `whygate keys new`",
    )
    names = [((*at, "issuer"), row["issuer"]) for at, row in issuers if isinstance(row.get("issuer"), str)]
    yield from _twice(iter(names), "is the same issuer", "write all its audiences into one entry")
    for at, row in agents:
        if isinstance(row.get("issuer"), str) and row["issuer"] not in {name for _, name in names}:
            yield (*at, "issuer"), "is not under identities.issuers", "add the issuer there, or mend the spelling"
    listen = tree.get("listen", "127.0.0.1:8700")
    if listen == tree.get("operators_listen", "127.0.0.1:8701") and not str(listen).endswith(":0"):
        key = "operators_listen" if "operators_listen" in tree else "listen"
        yield (key,), "would be the address of both listeners", "give operators an address of their own"
    if "public_url" not in tree and isinstance(listen, str) and _any_address(listen):
        yield (
            ("public_url",),
            "is missing",
            "`listen` stands for any address: say what agents call, http(s)://host:port",
        )
    tools = tree.get("tools")
    for name, server in tools.items() if isinstance(tools, dict) else ():
        if isinstance(server, dict):
            yield from _of_server(("tools", str(name)), server)


def _any_address(listen: str) -> bool:
    try:
        return split_address(listen)[0] in {"0.0.0.0", "::"}  # noqa: S104 - asks whether it is so, binds nothing
    except ValueError:
        return False


def _of_server(at: Location, server: dict[str, Any]) -> Iterator[Finding]:
    if ("mcp" in server) == ("http" in server):
        yield at, "must have exactly one of `mcp` and `http`", "keep the one that the server speaks"
    if "operations" in server and "http" not in server:
        yield (*at, "operations"), "goes with `http` only", "classify MCP tools under `tools`"
    http = server.get("http")
    if "tools" in server and "mcp" not in server and not (isinstance(http, dict) and "openapi" in http):
        fix = "list the tools of an HTTP server under `operations`"
        yield (*at, "tools"), "goes with `mcp` or `http.openapi` only", fix
    mcp = server.get("mcp")
    if isinstance(mcp, dict):
        if ("command" in mcp) == ("url" in mcp):
            yield (*at, "mcp"), "must have exactly one of `command` and `url`", "start a program, or call an address"
        for key, needs in (("env", "command"), ("cwd", "command"), ("credential", "url")):
            if key in mcp and needs not in mcp:
                yield (*at, "mcp", key), f"goes with `{needs}` only", "take it out"
    rows = [((*at, *where), row) for where, row in _rows(server, "operations")]
    yield from _twice(
        (((*where, "name"), row["name"]) for where, row in rows if isinstance(row.get("name"), str)),
        "is the same name",
        "give each operation its own name",
    )
    yield from _twice(
        (
            ((*where, "path"), (str(row.get("method")), re.sub(r"\{\w+\}", "{}", row["path"])))
            for where, row in rows
            if isinstance(row.get("path"), str)
        ),
        "is the same method and path",
        "a request must lead to one operation",
    )
