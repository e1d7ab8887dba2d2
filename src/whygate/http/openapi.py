"""The operations of an OpenAPI document (3.0 and 3.1), from a local file.

Rules of this file:

1. One file, read once, of bounded size. No ``$ref`` leads out of it, and nothing is fetched.
2. An operation that can't be kept to exactly is left out, with a reason for the operator: it can't be called then.
3. Where two operations answer the same requests or have one name, the later one is left out.
4. Headers and cookies are no arguments: they are not passed on as the agent sent them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import yaml

from whygate.core.ids import sha256_digest
from whygate.core.schemas import Unusable, Validator
from whygate.http.routes import Route
from whygate.http.schemas import Schemas
from whygate.http.signature import Body, Kind, Parameter, Signature

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_OPERATIONS: Final = 2000
"""As many as have a metric of their own."""
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_SEGMENT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}|[A-Za-z0-9._~!$&'()*+,=:@-]+")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_./-]")
_KINDS: Final = frozenset(("string", "integer", "number", "boolean"))
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it: ten times as fast."""


class OpenApiRefused(Exception):
    """The document can't be used. Says why, for the operator."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, ready to be called."""

    name: str
    method: str
    path: str
    signature: Signature
    definition: str
    """Digest of what it takes: the document's part of the tool's definition."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a file offers."""

    operations: tuple[Operation, ...] = ()
    left_out: tuple[str, ...] = ()
    """``GET /x: why`` for each operation that can't be called."""


def read(path: Path) -> Document:
    """Raises ``OpenApiRefused``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise OpenApiRefused(f"{path}: can't be read ({wrong.strerror})") from None
    if len(data) > MAX_BYTES:
        raise OpenApiRefused(f"{path}: is above {MAX_BYTES} bytes")
    try:
        return document(_parsed(data.decode("utf-8")))
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as wrong:
        what = str(wrong).splitlines()[0] if isinstance(wrong, _Wrong) else "is neither JSON nor YAML in UTF-8"
        raise OpenApiRefused(f"{path}: {what}") from None
    except RecursionError:
        raise OpenApiRefused(f"{path}: is nested too deeply") from None


def besides(found: Document, named: Iterable[Route]) -> Document:
    """What is left of a document beside the operations that the operator wrote down, whose word counts. One that is the
    same in name, method and path stays: the document has its types.
    """
    by_name = {one.name: one for one in named}
    by_request = {_request(one.method, one.template): one.name for one in by_name.values()}
    kept, left_out = [], list(found.left_out)
    for one in found.operations:
        request = _request(one.method, one.path)
        said = by_name.get(one.name)
        other = by_request.get(request, one.name)
        if (said is not None and _request(said.method, said.template) != request) or other != one.name:
            left_out.append(f"{one.method} {one.path}: the configuration's own operation {other} takes its place")
        else:
            kept.append(one)
    return Document(operations=tuple(kept), left_out=tuple(left_out))


def _request(method: str, path: str) -> tuple[str, str]:
    return method, re.sub(r"\{[^}]*\}", "{}", path)


class _Wrong(ValueError):
    """What is wrong with the document as a whole."""


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] == "{":
        return json.loads(text, object_pairs_hook=_pairs)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
        raise _Wrong("has YAML aliases, which can multiply without end")
    return yaml.load(text, Loader=_LOADER)  # noqa: S506  one of the two safe loaders


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Wrong("has a key twice")
    return made


def document(tree: Any) -> Document:
    """The operations of a document that is at hand. Raises ``ValueError`` for what is no OpenAPI 3.0 or 3.1."""
    version = str(tree.get("openapi", "")) if isinstance(tree, dict) else ""
    if re.fullmatch(r"3\.[01](\.\d+)?(-.+)?", version) is None:
        raise _Wrong("is no OpenAPI document of version 3.0 or 3.1")
    reader = _Reader(tree, old=version.startswith("3.0"))
    operations: dict[str, Operation] = {}
    taken: set[tuple[str, str]] = set()
    left_out: list[str] = []
    for number, (path, method, item) in enumerate(_operations(tree)):
        if number >= MAX_OPERATIONS:
            raise _Wrong(f"has more than {MAX_OPERATIONS} operations")
        told = f"{method.upper()} {path}"
        try:
            made = reader.operation(path, method, item)
            key = _request(made.method, path)
            if made.name in operations:
                raise Unusable(f"the name {made.name} is taken")  # noqa: TRY301  all reasons take one way
            if key in taken:
                raise Unusable("another operation answers the same requests")  # noqa: TRY301  as above
        except Unusable as wrong:
            left_out.append(f"{told}: {wrong}")
        else:
            taken.add(key)
            operations[made.name] = made
    return Document(operations=tuple(operations.values()), left_out=tuple(left_out))


def _operations(tree: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    paths = tree.get("paths") or {}
    if not isinstance(paths, dict):
        raise _Wrong("has no map of paths")
    for path, item in paths.items():
        if isinstance(item, dict) and isinstance(path, str):
            for method in _METHODS:
                if isinstance(item.get(method), dict):
                    yield path, method, item


class _Reader:
    def __init__(self, tree: dict[str, Any], *, old: bool) -> None:
        found = tree.get("components")
        self._components: dict[str, Any] = found if isinstance(found, dict) else {}
        schemas = self._components.get("schemas")
        self._schemas = Schemas(schemas if isinstance(schemas, dict) else {}, old=old)

    def operation(self, path: str, method: str, item: dict[str, Any]) -> Operation:
        """Raises ``Unusable``."""
        said = item[method]
        if "$ref" in item:
            raise Unusable("its path lies elsewhere ($ref)")
        name = said.get("operationId")
        if not isinstance(name, str) or not name:
            raise Unusable("has no operationId")
        in_path = _names_in(path)
        declared = self._parameters([*_rows(item), *_rows(said)])
        of_path = {key[1]: value for key, value in declared.items() if key[0] == "path"}
        of_query = {key[1]: value for key, value in declared.items() if key[0] == "query"}
        if set(in_path) != of_path.keys():
            raise Unusable("the path and its parameters don't name the same")
        parts = {
            "path": tuple(self._parameter(one, "path") for one in of_path.values()),
            "query": tuple(self._parameter(one, "query") for one in of_query.values()),
        }
        values = self._schemas.translated(
            {
                "type": "object",
                "properties": {one["name"]: one.get("schema", {}) for one in (*of_path.values(), *of_query.values())},
            }
        )
        body, required = self._body(said.get("requestBody"))
        definition = {"method": method, "path": path, "parameters": values, "body": body, "needs_body": required}
        digest = sha256_digest(_canonical(definition))
        return Operation(
            name=_NOT_IN_A_NAME.sub("_", name)[:128],
            method=method.upper(),
            path=path,
            signature=Signature(
                parts["path"],
                parts["query"],
                Validator(values),
                None if body is None else Body(schema=Validator(body), required=required),
            ),
            definition=digest,
        )

    def _parameters(self, rows: list[Any]) -> dict[tuple[str, str], dict[str, Any]]:
        """By place and name; an operation's own overrides its path's. Headers and cookies are left out."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            one = self._resolved(row, "parameters")
            name, place = one.get("name"), one.get("in")
            if not isinstance(name, str) or place not in ("path", "query", "header", "cookie"):
                raise Unusable("a parameter has no name or no place")
            found[place, name] = one
        return {key: one for key, one in found.items() if key[0] in ("path", "query")}

    def _parameter(self, one: Mapping[str, Any], place: str) -> Parameter:
        name, style = one["name"], one.get("style", "form" if place == "query" else "simple")
        if "content" in one or one.get("allowReserved") or style != ("form" if place == "query" else "simple"):
            raise Unusable(f"the parameter {name[:60]} is written in a way that is not supported")
        schema = one.get("schema", {})
        kinds = self._schemas.kinds(schema) or {"string"}
        many = kinds == {"array"}
        if many:
            kinds = self._schemas.kinds(self._schemas.items(schema)) or {"string"}
        if len(kinds) != 1 or not kinds <= _KINDS or (many and place == "path"):
            raise Unusable(f"the parameter {name[:60]} can be read in more than one way")
        return Parameter(
            name=name,
            kind=cast("Kind", kinds.pop()),
            many=many,
            exploded=many and one.get("explode", True) is True,
            required=place == "path" or one.get("required") is True,
        )

    def _body(self, said: Any) -> tuple[dict[str, Any] | None, bool]:
        """The schema of a JSON body, and whether there has to be one."""
        if said is None:
            return None, False
        body = self._resolved(said, "requestBodies")
        content = body.get("content")
        media = {str(name).partition(";")[0].strip().lower(): each for name, each in (content or {}).items()}
        found = [each for name, each in media.items() if name == "application/json" or name.endswith("+json")]
        if len(found) != 1 or not isinstance(found[0], dict):
            raise Unusable("its body is not JSON in one form")
        return self._schemas.translated(found[0].get("schema", {})), body.get("required") is True

    def _resolved(self, row: Any, kind: str) -> dict[str, Any]:
        if isinstance(row, dict) and "$ref" in row:
            reference = str(row["$ref"])
            below = self._components.get(kind)
            prefix, _, name = reference.rpartition("/")
            row = below.get(name) if prefix == f"#/components/{kind}" and isinstance(below, dict) else None
            if row is None or "$ref" in row:
                raise Unusable(f"a $ref leads elsewhere than to #/components/{kind}/…")
        if not isinstance(row, dict):
            raise Unusable(f"one of its {kind} is no object")
        return row


def _rows(item: Mapping[str, Any]) -> list[Any]:
    rows = item.get("parameters", [])
    if not isinstance(rows, list):
        raise Unusable("its parameters are no list")
    return rows


def _names_in(path: str) -> list[str]:
    """The parameters of a path, each of which fills a segment. Raises ``Unusable``."""
    if path == "/":
        return []
    found = [_SEGMENT.fullmatch(part) for part in path[1:].split("/")] if path.startswith("/") else [None]
    names = [match[1] for match in found if match is not None and match[1]]
    if None in found or {".", ".."} & set(path.split("/")) or len(set(names)) != len(names):
        raise Unusable("its path is not made of whole segments and {parameters}")
    return names


def _canonical(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        raise Unusable("it holds a value that is not JSON (a date without quotes?)") from None
