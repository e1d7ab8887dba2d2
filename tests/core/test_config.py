"""The configuration: what is refused, what is said about it, and what is never said."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError
from tests.core import config_reference

from whygate.config import Config, ConfigError, from_mapping, load, resolve, schema, split_address, weaknesses

HASH = "sha256:" + "1f" * 32
GOOD = "ledger: ./l.db\npolicies: ./p\n"


def text_of(page: str) -> str:
    match = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert match is not None
    return match[1]


EXAMPLE = text_of(config_reference.PAGE.read_text(encoding="utf-8"))


def written(folder: Path, text: str) -> Path:
    path = folder / "whygate.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ or {})
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    """The page's example loads, and nothing in it is weak."""
    config = load(written(tmp_path, EXAMPLE), {})
    assert weaknesses(config) == []
    assert config.tools["billing"].operations[1].path == "/invoices/{invoice_id}/refunds"
    assert config.tools["tickets"].mcp is not None
    assert config.identities.issuers[0].algorithms == ("ES256",)


def test_the_page_lists_every_setting() -> None:
    """docs/configuration.md holds what the settings themselves say (python -m tests.core.config_reference)."""
    assert config_reference.split(config_reference.PAGE.read_text(encoding="utf-8"))[1] == config_reference.reference()


def test_there_are_few_settings() -> None:
    """Some 40 settings: each one more is a question for everybody who runs this. (The 41st: where the pins are; nine
    more: where people answer, who they are, how they hear of it, and where traces are seen.)
    """
    assert len(config_reference.settings()) <= 50


def test_defaults_and_paths(tmp_path: Path) -> None:
    """Two lines are a configuration; paths are relative to the file, and the public URL follows the listener."""
    config = load(written(tmp_path, GOOD + "listen: '[::1]:9000'\n"), {})
    assert (config.ledger, config.policies) == (tmp_path / "l.db", tmp_path / "p")
    assert config.public_url == "http://[::1]:9000"
    assert split_address(config.listen) == ("::1", 9000)


WRONG: list[tuple[str, str]] = [
    ("ledgr: x", "whygate.yaml:3: ledgr: is no setting; did you mean `ledger`?"),
    ("zzz: x", "whygate.yaml:3: zzz: is no setting; take it out; docs/configuration.md lists all settings"),
    ("listen: 8700", "whygate.yaml:3: listen: must be text; put it into quotes"),
    (
        "listen: localhost",
        "whygate.yaml:3: listen: is no address to listen on; write host:port, e.g. 127.0.0.1:8700 or [::1]:8700",
    ),
    ("listen: 127.0.0.1:99999", "whygate.yaml:3: listen: is no address to listen on"),
    ("listen: 127.0.0.1:8701", "whygate.yaml:3: listen: would be the address of both listeners"),
    ("listen: 0.0.0.0:80", "whygate.yaml:1: public_url: is missing; `listen` stands for any address"),
    ("public_url: ftp://x", "whygate.yaml:3: public_url: is no http or https URL"),
    ("public_url: https://", "whygate.yaml:3: public_url: is no http or https URL"),
    ("public_url: https://x:0/", "whygate.yaml:3: public_url: is no http or https URL"),
    ("public_url: https://x:y/", "whygate.yaml:3: public_url: is no http or https URL"),
    ("public_url: 'https://x/a b'", "whygate.yaml:3: public_url: is no http or https URL"),
    ("public_url: https://me:pw@x", "whygate.yaml:3: public_url: has a user name or password in it"),
    ("public_url: https://x/?a=b", "whygate.yaml:3: public_url: has a query or fragment"),
    ("allowed_hosts: x", "whygate.yaml:3: allowed_hosts: must be a list; write [a, b]"),
    ("allowed_hosts: ['https://x']", "whygate.yaml:3: allowed_hosts[0]: is no host name"),
    ("allowed_origins: ['https://x/']", "whygate.yaml:3: allowed_origins[0]: is no origin"),
    ("deployment: ''", "whygate.yaml:3: deployment: must be one line of 1 to 500 characters"),
    ("telemetry: x", "whygate.yaml:3: telemetry: must be a section of keys"),
    ("telemetry:\n  otlp: x", "whygate.yaml:4: telemetry.otlp: is no http or https URL"),
    ("ledger: x", "whygate.yaml:1: ledger: stands here and again in line 3; keep one of them"),
    ("identities: {agents: [{id: 'role:x'}]}", "whygate.yaml:3: identities.agents[0].id: is no id"),
    ("identities: {agents: [{id: '*'}]}", "whygate.yaml:3: identities.agents[0].id: is no id"),
    (
        "identities: {agents: [{id: a, type: robot}]}",
        "whygate.yaml:3: identities.agents[0].type: is not one of the known words",
    ),
    (
        "identities: {agents: [{id: a, type: anonymous}]}",
        "identities.agents[0].type: stands for callers that nobody knows",
    ),
    ("identities: {agents: [{id: a, adopt_trace: 'yes'}]}", "identities.agents[0].adopt_trace: must be true or false"),
    (
        "identities: {agents: [{id: a, api_keys: [hunter2]}]}",
        "identities.agents[0].api_keys[0]: is no hash of an API key",
    ),
    (
        "identities:\n  agents:\n    - id: a\n    - id: a",
        "whygate.yaml:6: identities.agents[1].id: is the same agent as identities.agents[0].id",
    ),
    (
        f"identities: {{agents: [{{id: a, api_keys: ['{HASH}']}}, {{id: b, api_keys: ['{HASH}']}}]}}",
        "identities.agents[1].api_keys[0]: is the same key as identities.agents[0].api_keys[0]; a key proves one agent",
    ),
    (
        "identities: {agents: [{id: a, issuer: https://x}]}",
        "identities.agents[0].issuer: is not under identities.issuers",
    ),
    ("identities: {issuers: [{issuer: https://x, audiences: [], jwks: 'file:x'}]}", "audiences: must not be empty"),
    (
        "identities: {issuers: [{issuer: https://x, jwks: 'file:x'}]}",
        "identities.issuers[0].audiences: is missing; set it",
    ),
    (
        "identities: {issuers: [{issuer: https://x, audiences: [a], jwks: http://x/k}]}",
        "jwks: fetches keys in the clear; use https",
    ),
    *(
        (
            f"identities: {{issuers: [{{issuer: https://x, audiences: [a], jwks: 'file:x', algorithms: [{name}]}}]}}",
            "identities.issuers[0].algorithms[0]: is not one of the known words; use 'RS256'",
        )
        for name in ("HS256", "none", "es256", "dir")
    ),
    ("tools: {A: {mcp: {url: https://x}}}", "whygate.yaml:3: tools.A: is no name of a server"),
    ("tools: {a__b: {mcp: {url: https://x}}}", "tools.a__b: is no name of a server"),
    ("tools: {a_: {mcp: {url: https://x}}}", "tools.a_: is no name of a server"),
    ("tools: {a: {}}", "whygate.yaml:3: tools.a: must have exactly one of `mcp` and `http`"),
    (
        "tools: {a: {mcp: {url: https://x}, http: {url: https://x}}}",
        "tools.a: must have exactly one of `mcp` and `http`",
    ),
    ("tools: {a: {mcp: {}}}", "tools.a.mcp: must have exactly one of `command` and `url`"),
    ("tools: {a: {mcp: {command: [x], url: https://x}}}", "tools.a.mcp: must have exactly one of `command` and `url`"),
    ("tools: {a: {mcp: {command: []}}}", "tools.a.mcp.command: must not be empty"),
    ("tools: {a: {mcp: {command: 'x y'}}}", "tools.a.mcp.command: must be a list"),
    ("tools: {a: {mcp: {url: https://x, cwd: .}}}", "tools.a.mcp.cwd: goes with `command` only"),
    ("tools: {a: {mcp: {command: [x], credential: {value: 'env:X'}}}}", "tools.a.mcp.credential: goes with `url` only"),
    (
        "tools: {a: {mcp: {command: [x], env: {K: hunter2}}}}",
        "tools.a.mcp.env.K: must be a reference to a secret, not the secret itself; put the value into",
    ),
    (
        "tools: {a: {http: {url: https://x, credential: {value: hunter2}}}}",
        "credential.value: must be a reference to a secret",
    ),
    (
        "tools: {a: {http: {url: https://x, credential: {value: 'env:a b'}}}}",
        "credential.value: must be a reference to a secret",
    ),
    (
        "tools: {a: {http: {url: https://x, credential: {value: 'env:X', header: Host}}}}",
        "header: is a header with a meaning of its own",
    ),
    (
        "tools: {a: {http: {url: https://x, credential: {value: 'env:X', header: 'A B'}}}}",
        "header: is no header for a credential",
    ),
    (
        "tools: {a: {http: {url: https://x, credential: {value: 'env:X', prefix: 'Bearer hunter2'}}}}",
        "prefix: is no prefix for a credential",
    ),
    (
        "tools: {a: {mcp: {url: https://x}, tools: {t: {class: raed}}}}",
        "tools.a.tools.t.class: is not one of the known words; use 'read'",
    ),
    (
        "tools: {a: {mcp: {url: https://x}, tools: {t: {class: read, tier: huge}}}}",
        "tools.a.tools.t.tier: is not one of the known words; use 'low'",
    ),
    ("tools: {a: {mcp: {url: https://x}, tools: {'t[0]': {class: read}}}}", "tools.a.tools.t[0]: is no name of a tool"),
    ("tools: {a: {mcp: {url: https://x}, operations: []}}", "tools.a.operations: goes with `http` only"),
    ("tools: {a: {http: {url: https://x}, tools: {}}}", "tools.a.tools: goes with `mcp` or `http.openapi` only"),
    *(
        (
            f"tools: {{a: {{http: {{url: https://x}}, operations: [{{name: n, method: GET, class: read, path: '{path}'}}]}}}}",
            "tools.a.operations[0].path: ",
        )
        for path in (
            "",
            "x",
            "//",
            "/a//b",
            "/../x",
            "/a/./b",
            "/a?b",
            "/a#b",
            "/%2e",
            "/{A}",
            "/x{a}",
            "/{a}/{a}",
            "/a b",
        )
    ),
    (
        "tools: {a: {http: {url: https://x}, operations: [{name: n, method: get, class: read, path: /}]}}",
        "tools.a.operations[0].method: is not one of the known words; use 'GET'",
    ),
    ("? [a]\n: b", "whygate.yaml"),
    ("x: &x [*x]", "whygate.yaml: never ends; take out the anchor that contains itself"),
    ("x: [", "whygate.yaml:4: is no YAML"),
    ("x: !!python/object:os.system y", "whygate.yaml:3: is no YAML"),
]


@pytest.mark.parametrize(("line", "expected"), WRONG)
def test_what_is_wrong_is_said_with_key_line_and_fix(line: str, expected: str, tmp_path: Path) -> None:
    """Each mistake is refused with the key, the line, what is wrong and what to write; the value is never repeated."""
    found = problems(tmp_path, f"{GOOD}{line}\n")
    assert any(expected in problem for problem in found), found
    assert "hunter2" not in "\n".join(found)
    assert all(";" in problem for problem in found)


def test_anchors_that_multiply_are_refused(tmp_path: Path) -> None:
    """A few lines that stand for billions of keys are refused before they are unfolded."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    assert "more than 100000 keys" in problems(tmp_path, "\n".join(lines))[0]


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Wrong values, unknown keys, missing ones and what does not fit together are told in one go, in order of lines."""
    found = problems(
        tmp_path,
        "policies: 3\nidentities:\n  agents:\n    - {id: a, type: x}\n    - {id: a}\ntools: {g: {}}\nnope: 1\n",
        {"WHYGATE_DEPLOYMENT": "[a]"},
    )
    assert [problem.split("; ")[0] for problem in found] == [
        "environment variable WHYGATE_DEPLOYMENT: deployment: must be text",
        "whygate.yaml:1: ledger: is missing",
        "whygate.yaml:1: policies: must be text",
        "whygate.yaml:4: identities.agents[0].type: is not one of the known words",
        "whygate.yaml:5: identities.agents[1].id: is the same agent as identities.agents[0].id",
        "whygate.yaml:6: tools.g: must have exactly one of `mcp` and `http`",
        "whygate.yaml:7: nope: is no setting",
    ]


@pytest.mark.parametrize("content", [b"", b"- a", b"\xff\xfe", b"a", b"# nothing\n"])
def test_a_file_without_settings_is_refused(content: bytes, tmp_path: Path) -> None:
    """Empty, foreign and unreadable files are told apart from a configuration, without a stack trace."""
    path = tmp_path / "whygate.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, {})
    with pytest.raises(ConfigError, match="there is no such file; make one with `whygate init`"):
        load(tmp_path / "other.yaml", {})
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path, {})


def test_the_environment_overrides(tmp_path: Path) -> None:
    """``WHYGATE_<PATH>`` sets each key, present or not; an empty value takes it away; strangers are left alone."""
    path = written(tmp_path, f"{GOOD}telemetry: {{otlp: http://127.0.0.1:4318}}\nidentities:\n")
    environ = {
        "WHYGATE_LISTEN": "127.0.0.1:1",
        "WHYGATE_LEDGER": "/var/l.db",
        "WHYGATE_TELEMETRY__SERVICE_NAME": "gate",
        "WHYGATE_TELEMETRY__OTLP": "",
        "WHYGATE_IDENTITIES__TASK_OPENERS": "[role:host, 'agent:x']",
        "WHYGATE_TOOLS__GIT__MCP__URL": "https://git.example",
        "WHYGATE_PORT": "tcp://10.0.0.1:80",
        "WHYGATE_CONFIG": "whygate.yaml",
        "LISTEN": "x",
    }
    config = load(path, environ)
    assert config.listen == "127.0.0.1:1"
    assert config.ledger == Path("/var/l.db")
    assert (config.telemetry.otlp, config.telemetry.service_name) == (None, "gate")
    assert config.identities.task_openers == ("role:host", "agent:x")
    assert config.tools["git"].mcp is not None


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WHYGATE_LISTEN", "x", "environment variable WHYGATE_LISTEN: listen: is no address to listen on"),
        ("WHYGATE_LISTEN__PORT", "x", "WHYGATE_LISTEN__PORT leads into what is no section"),
        (
            "WHYGATE_TELEMETRY__OLTP",
            "x",
            "environment variable WHYGATE_TELEMETRY__OLTP: telemetry.oltp: is no setting; did you mean `otlp`?",
        ),
        ("WHYGATE_ALLOWED_HOSTS", "[a", "environment variable WHYGATE_ALLOWED_HOSTS: allowed_hosts: is no YAML"),
        ("WHYGATE_ALLOWED_HOSTS", "a", "environment variable WHYGATE_ALLOWED_HOSTS: allowed_hosts: must be a list"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, expected: str, tmp_path: Path) -> None:
    """A mistake that came from the environment names the variable, not a line of the file."""
    found = problems(tmp_path, f"{GOOD}listen: 127.0.0.1:2\n", {variable: value})
    assert any(expected in problem for problem in found), found


def test_secrets_are_read_by_reference_only(tmp_path: Path) -> None:
    """``resolve`` reads the variable or file, and names the key and the reference where there is nothing to read."""
    (tmp_path / "token").write_text("hunter2\n")
    text = GOOD + "tools: {a: {http: {url: https://x, credential: {value: 'file:token'}}}}\n"
    config = load(written(tmp_path, text), {})
    credential = config.tools["a"].http.credential  # type: ignore[union-attr]  # it is there
    assert credential is not None
    assert resolve(credential.value) == "hunter2"
    assert resolve("env:TOKEN", {"TOKEN": "hunter2"}) == "hunter2"
    for shown in (repr(config), config.model_dump_json(), str(config)):
        assert "hunter2" not in shown
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "lines").write_text("hunter2\r\nx-evil: 1\n")
    (tmp_path / "huge").write_text("x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff")
    for reference in (
        *(f"file:{tmp_path}/{name}" for name in ("none", "empty", "lines", "huge", "binary")),
        "env:T",
        "x",
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(reference, {"T": ""}, key="tools.a.http.credential.value")
        assert "tools.a.http.credential.value: " in str(caught.value)
        assert reference in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_the_digest_follows_every_setting(tmp_path: Path) -> None:
    """Two configurations have the same digest if they say the same, however they are written."""
    one = load(written(tmp_path, EXAMPLE), {})
    shuffled = yaml.safe_dump(dict(reversed(yaml.safe_load(EXAMPLE).items())))
    assert load(written(tmp_path, shuffled), {}).digest == one.digest
    assert one.digest.startswith("sha256:")
    assert load(written(tmp_path, EXAMPLE), {"WHYGATE_DEPLOYMENT": "x"}).digest != one.digest


def test_values_are_frozen(tmp_path: Path) -> None:
    """Nothing changes a configuration after it was checked."""
    config = load(written(tmp_path, EXAMPLE), {})
    with pytest.raises(ValidationError):
        config.listen = "x"  # type: ignore[misc]  # that it is refused is the point


def test_the_published_schema_agrees_with_the_checks() -> None:
    """The JSON Schema is valid, accepts what loads, and refuses unknown keys and wrong words."""
    published = schema()
    jsonschema.Draft202012Validator.check_schema(published)
    check = jsonschema.Draft202012Validator(published)
    assert list(check.iter_errors(yaml.safe_load(EXAMPLE))) == []
    for wrong in ({"ledgr": "x"}, {"identities": {"agents": [{"id": "role:x"}]}}, {"tools": {"a__b": {}}}):
        assert not check.is_valid({"ledger": "l", "policies": "p", **wrong})
    assert json.dumps(published)


def config_of(**more: Any) -> Config:
    return from_mapping({"ledger": "l", "policies": "p", **more})


AGENT = {"id": "a", "owner": "o", "api_keys": [HASH]}
ISSUER = {"issuer": "https://idp.example", "audiences": ["x"], "jwks": "file:k"}
OUTSIDE = {"http": {"url": "http://10.0.0.1", "credential": {"value": "env:X"}}}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"listen": "10.0.0.1:80"}, "listen: other machines can call, and public_url is plain http"),
        ({"operators_listen": "10.0.0.1:81"}, "operators_listen: other machines can reach"),
        ({"allowed_origins": ["http://x"]}, "allowed_origins: "),
        ({"identities": {}}, "identities: nobody can call"),
        ({"identities": {"agents": [{**AGENT, "owner": None}]}}, "identities.agents[0] (a): has no owner"),
        ({"identities": {"agents": [{"id": "a", "owner": "o"}]}}, "identities.agents[0] (a): has no API key"),
        (
            {"identities": {"issuers": [{**ISSUER, "unlisted_as": "ai_agent"}]}},
            "identities.issuers[0]: agents that nobody",
        ),
        (
            {
                "identities": {
                    "issuers": [
                        {**ISSUER, "unlisted_as": "human"},
                        {**ISSUER, "issuer": "https://b.example", "unlisted_as": "human"},
                    ]
                }
            },
            "identities.issuers: several may bring unlisted subjects",
        ),
        (
            {"identities": {"issuers": [{**ISSUER, "issuer": "http://idp.example"}]}},
            "identities.issuers[0]: its name is a plain",
        ),
        ({"tools": {"g": {"mcp": {"command": ["x"]}}}}, "tools.g: none of its tools is classified"),
        ({"tools": {"g": {"http": {"url": "https://x"}}}}, "tools.g: has no operations"),
        ({"tools": {"g": OUTSIDE}}, "tools.g.http.url: our credential and all arguments cross the network"),
        ({"tools": {"g": {"mcp": {"url": "http://10.0.0.1"}}}}, "tools.g.mcp.url: all arguments and results cross"),
        (
            {"tools": {"g": {"mcp": {"command": ["x"]}, "tools": {"*": {"class": "read", "tier": "low"}}}}},
            "tools.g.tools.*: tools that the server adds later are low tier",
        ),
        (
            {"tools": {"g": {"mcp": {"command": ["x"]}, "tools": {"*": {"class": "read", "labels": []}}}}},
            "tools.g.tools.*: results of tools that the server adds later are trusted",
        ),
    ],
)
def test_what_is_weak_is_said(more: dict[str, Any], expected: str) -> None:
    """What is allowed and still weak gets a line that begins with its key."""
    assert any(line.startswith(expected) for line in weaknesses(config_of(**more))), weaknesses(config_of(**more))


def test_what_is_sound_is_not_called_weak() -> None:
    """A TLS proxy before the gateway, an issuer that speaks for an agent, and local upstreams raise no line."""
    config = config_of(
        listen="10.0.0.1:80",
        public_url="https://gw.example",
        identities={"agents": [{"id": "a", "owner": "o"}], "issuers": [ISSUER]},
        tools={"g": {"mcp": {"url": "http://localhost:1"}, "tools": {"x": {"class": "read", "tier": "low"}}}},
    )
    assert weaknesses(config) == []


def test_the_most_exact_classification_counts() -> None:
    """A tool's own name wins, then the pattern with the most letters, then the first; nothing else is classified."""
    said = {name: {"class": "read", "labels": [name.replace("*", "x")]} for name in ("g*", "git_*", "*_log", "git_log")}
    server = config_of(tools={"g": {"mcp": {"command": ["x"]}, "tools": said}}).tools["g"]

    def label(tool: str) -> str | None:
        found = server.classify(tool)
        return None if found is None else found.labels[0]

    assert [label(tool) for tool in ("git_log", "git_x", "git_a_log", "grep", "Git_log2", "other")] == [
        "git_log",
        "git_x",
        "git_x",
        "gx",
        None,
        None,
    ]
