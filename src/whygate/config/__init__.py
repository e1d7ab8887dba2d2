"""The configuration: ``load`` reads ``whygate.yaml`` and the environment over it, or says all that is wrong with them."""

from whygate.config.reading import ConfigError, Problem, from_mapping, load
from whygate.config.secrets import resolve
from whygate.config.settings import (
    Agent,
    Classification,
    Config,
    Credential,
    Http,
    Identities,
    Issuer,
    Mcp,
    Named,
    Operation,
    Server,
    Telemetry,
    schema,
)
from whygate.config.shapes import is_loopback, split_address
from whygate.config.weaknesses import weaknesses

__all__ = [
    "Agent",
    "Classification",
    "Config",
    "ConfigError",
    "Credential",
    "Http",
    "Identities",
    "Issuer",
    "Mcp",
    "Named",
    "Operation",
    "Problem",
    "Server",
    "Telemetry",
    "from_mapping",
    "is_loopback",
    "load",
    "resolve",
    "schema",
    "split_address",
    "weaknesses",
]
