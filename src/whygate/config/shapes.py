"""The shapes of single values: what may stand in one place of the configuration, and what to say where it may not.

Every check names what is wrong and what to write instead, and never repeats the value: what stands in the wrong place
may be a secret.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from whygate.core.identity import IdentityType


def wrong(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("whygate", "{what}; {fix}", {"what": what, "fix": fix})


def is_loopback(host: str) -> bool:
    """Whether a host, as written in an address or URL, can only be this machine."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of a listen address. Raises ``ValueError`` for anything else."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ValueError("not host:port")
    return match[1].strip("[]"), int(match[2])


def _address(value: str) -> str:
    try:
        split_address(value)
    except ValueError:
        raise wrong("is no address to listen on", "write host:port, e.g. 127.0.0.1:8700 or [::1]:8700") from None
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits, parts = False, urlsplit("")
    if not port_fits or parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[\s\\]", value):
        raise wrong("is no http or https URL", "write it whole, e.g. https://tool.example/mcp")
    if parts.username is not None or parts.password is not None:
        raise wrong("has a user name or password in it", "take it out and name the secret under `credential` instead")
    if "?" in value or "#" in value:
        raise wrong("has a query or fragment", "write the URL without ? and #")
    return value


class Shape:
    """Text of one shape, with the shape in the published JSON Schema as well."""

    def __init__(self, pattern: str, what: str, fix: str) -> None:
        self.pattern = pattern
        self._compiled = re.compile(pattern)
        self._what, self._fix = what, fix

    def check(self, value: str) -> str:
        if self._compiled.fullmatch(value) is None:
            raise wrong(self._what, self._fix)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def _beside(value: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return value if base is None else Path(os.path.normpath(base / value))


def _reference(value: str, info: ValidationInfo) -> str:
    if value.startswith("file:") and len(value) > 5:
        return f"file:{_beside(Path(value[5:]), info)}"
    if re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value) is None:
        raise wrong(
            "must be a reference to a secret, not the secret itself",
            "put the value into an environment variable or a file and write env:NAME or file:PATH",
        )
    return value


def _jwks(value: str, info: ValidationInfo) -> str:
    if value.startswith("file:") and len(value) > 5:
        return f"file:{_beside(Path(value[5:]), info)}"
    parts = urlsplit(_url(value))
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise wrong("fetches keys in the clear", "use https: whoever can change the answer can sign for anybody")
    return value


def _path_template(value: str) -> str:
    segment = r"(?:\{[a-z_][a-z0-9_]*\}|[A-Za-z0-9._~!$&'()*+,;=:@-]+)"
    if re.fullmatch(rf"/|(?:/{segment})+/?", value) is None or {".", ".."} & set(value.split("/")):
        raise wrong("is no path template", "write e.g. /invoices/{invoice_id}: whole segments, no %, ?, # or ..")
    names = re.findall(r"\{(\w+)\}", value)
    if len(set(names)) != len(names):
        raise wrong("names a parameter twice", "give each {parameter} its own name")
    return value


def _credential_header(value: str) -> str:
    # Framing, routing and our own words: a credential there would be taken for something else.
    own = {"host", "connection", "te", "trailer", "transfer-encoding", "upgrade", "traceparent", "tracestate"}
    if value.lower() in own or value.lower().startswith(("content-", "mcp-", "whygate-")):
        raise wrong("is a header with a meaning of its own", "use e.g. Authorization or X-Api-Key")
    return value


def _somebody(value: IdentityType) -> IdentityType:
    if value is IdentityType.ANONYMOUS:
        raise wrong("stands for callers that nobody knows", "use another type")
    return value


Kind: TypeAlias = Annotated[IdentityType, AfterValidator(_somebody)]
Url: TypeAlias = Annotated[str, AfterValidator(_url), Field(json_schema_extra={"format": "uri"})]
Jwks: TypeAlias = Annotated[str, AfterValidator(_jwks)]
PathTemplate: TypeAlias = Annotated[str, AfterValidator(_path_template)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
FilePath: TypeAlias = Annotated[Path, AfterValidator(_beside)]
SecretRef: TypeAlias = Annotated[
    str, AfterValidator(_reference), Field(json_schema_extra={"pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"})
]
Line: TypeAlias = Annotated[
    str, Shape(r"[^\x00-\x1f\x7f]{1,500}", "must be one line of 1 to 500 characters", "shorten it")
]
# `role:` and `group:` open selectors of policies: an agent so named would be taken for everybody with that role.
Id: TypeAlias = Annotated[
    str,
    Shape(
        r"(?!role:|group:|anonymous$)[A-Za-z0-9][A-Za-z0-9._:/@+|=-]{0,255}",
        "is no id",
        "use letters, digits and ._:/@+|=- and begin with a letter or digit, but not with role: or group:",
    ),
]
Selector: TypeAlias = Annotated[
    str, Shape(r"(role:)?[A-Za-z0-9][A-Za-z0-9._:/@+|=-]{0,255}", "is no selector", "write an id or role:<name>")
]
Role: TypeAlias = Annotated[
    str, Shape(r"[A-Za-z0-9._:/@-]{1,128}", "is no role name", "use letters, digits and ._:/@-")
]
Label: TypeAlias = Annotated[
    str, Shape(r"[a-z0-9][a-z0-9_.-]{0,63}", "is no label", "use lower-case letters, digits and _.-")
]
ToolName: TypeAlias = Annotated[
    str, Shape(r"[A-Za-z0-9_./-]{1,128}", "is no name of a tool", "use letters, digits and _./-")
]
ToolPattern: TypeAlias = Annotated[
    str,
    Shape(r"[A-Za-z0-9_./*-]{1,128}", "is no name of a tool", "use letters, digits and _./-, and * for any characters"),
]
KeyHash: TypeAlias = Annotated[
    str,
    Shape(
        r"sha256:[0-9a-f]{64}",
        "is no hash of an API key",
        "make one with `whygate keys new` and paste the sha256: line",
    ),
]
# A trailing underscore would make `server__tool` ambiguous where servers are merged.
ServerName: TypeAlias = Annotated[
    str,
    Shape(
        r"(?!whygate$)(?=.{1,64}$)[a-z0-9-]+(?:_[a-z0-9-]+)*",
        "is no name of a server",
        "use lower-case letters, digits, - and single _ between them; `whygate` is the gateway's own",
    ),
]
HostName: TypeAlias = Annotated[
    str,
    Shape(
        r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?",
        "is no host name",
        "write host or host:port in lower case, no scheme",
    ),
]
Origin: TypeAlias = Annotated[
    str,
    Shape(
        r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?",
        "is no origin",
        "write scheme://host[:port] without a path",
    ),
]
HeaderName: TypeAlias = Annotated[
    str,
    Shape(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", "is no header for a credential", "use e.g. Authorization or X-Api-Key"),
    AfterValidator(_credential_header),
]
# Only a scheme's name: a freer prefix would be a place to write the secret itself.
HeaderPrefix: TypeAlias = Annotated[
    str,
    Shape(
        r"([A-Za-z][A-Za-z-]{0,19}[ =])?", "is no prefix for a credential", 'write a scheme and a blank, e.g. "Bearer "'
    ),
]
# RFC 8725 section 3.1 and 3.2: asymmetric only. With a shared secret whoever can verify can also forge.
Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]
