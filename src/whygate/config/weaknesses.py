"""What is allowed and still weak: worth a line at every start, because whoever set it may have left."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from whygate.config.settings import Config, Server
from whygate.config.shapes import is_loopback, split_address
from whygate.core.calls import Tier
from whygate.core.identity import IdentityType, Status


def weaknesses(config: Config) -> list[str]:
    """One line each, by key; empty where there is nothing to say. Holds no secret."""
    return [*_listeners(config), *_identities(config), *_tools(config)]


def _listeners(config: Config) -> Iterator[str]:
    if not is_loopback(split_address(config.listen)[0]) and urlsplit(config.public_url).scheme == "http":
        yield (
            "listen: other machines can call, and public_url is plain http: keys and tokens cross the network in the "
            "clear unless a TLS proxy stands before this address"
        )
    if not is_loopback(split_address(config.operators_listen)[0]):
        yield "operators_listen: other machines can reach the operators' listener, which has no TLS of its own"
    if "http" in {urlsplit(origin).scheme for origin in config.allowed_origins}:
        yield "allowed_origins: a page over plain http can be replaced on its way"


def _identities(config: Config) -> Iterator[str]:
    issuers = config.identities.issuers
    if not config.identities.agents and not any(issuer.unlisted_as for issuer in issuers):
        yield "identities: nobody can call: no agent is listed and no issuer may bring unlisted subjects"
    for index, agent in enumerate(config.identities.agents):
        at = f"identities.agents[{index}] ({agent.id})"
        if agent.owner is None and agent.type is not IdentityType.HUMAN:
            yield f"{at}: has no owner: nobody answers for it"
        if len(agent.api_keys) > 2:
            yield f"{at}: has {len(agent.api_keys)} API keys: two are enough to replace one by the other"
        spoken_for = agent.issuer or len(issuers) == 1
        if agent.status is Status.ACTIVE and not agent.api_keys and not spoken_for:
            yield f"{at}: has no API key, and no issuer may speak for it: nobody can call as it"
    open_ones = [index for index, issuer in enumerate(issuers) if issuer.unlisted_as]
    for index in open_ones:
        if issuers[index].unlisted_as is IdentityType.AI_AGENT:
            yield f"identities.issuers[{index}]: agents that nobody listed, with no owner, may call"
    if len(open_ones) > 1:
        yield "identities.issuers: several may bring unlisted subjects; where two use the same id, policies see one"
    for index, issuer in enumerate(issuers):
        if issuer.issuer.startswith("http:") and not is_loopback(urlsplit(issuer.issuer).hostname or ""):
            yield f"identities.issuers[{index}]: its name is a plain http address; RFC 8414 section 2 asks for https"


def _tools(config: Config) -> Iterator[str]:
    for name, server in config.tools.items():
        at = f"tools.{name}"
        if server.mcp is not None and not server.tools:
            yield f"{at}: none of its tools is classified: all count as high tier with untrusted results"
        documented = server.http is not None and server.http.openapi is not None
        if documented and not server.tools and not server.operations:
            yield f"{at}: none of its operations is classified: all count as high tier with untrusted results"
        if server.http is not None and not server.operations and not documented:
            yield f"{at}: has no operations: nothing of it can be called"
        for pattern, said in server.tools.items():
            if not pattern.strip("*") and said.tier is Tier.LOW:
                yield f"{at}.tools.{pattern}: tools that the server adds later are low tier unseen"
            if not pattern.strip("*") and "untrusted" not in said.labels:
                yield f"{at}.tools.{pattern}: results of tools that the server adds later are trusted unseen"
        yield from _upstream(at, server)


def _upstream(at: str, server: Server) -> Iterator[str]:
    for protocol, upstream in (("mcp", server.mcp), ("http", server.http)):
        if upstream is None or upstream.url is None:
            continue
        url = urlsplit(upstream.url)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            carried = "our credential and all arguments" if upstream.credential else "all arguments and results"
            yield f"{at}.{protocol}.url: {carried} cross the network in the clear"
