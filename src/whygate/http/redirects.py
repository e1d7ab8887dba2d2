"""Where a tool's ``Location`` leads the agent.

Rules of this file:

1. Nothing is followed here: a redirect is an answer like any other.
2. What leads to the tool itself leads to it through the gateway, so that going there is a call, and decided.
3. What leads elsewhere is not passed on. It names an inner address, or a way around the gateway, and many clients would
   go there unasked and with their credential.
"""

from typing import Final
from urllib.parse import urljoin, urlsplit

_PORTS: Final = {"http": 80, "https": 443}


def through_the_gateway(tool: str, base_url: str, asked: str, location: str) -> str | None:
    """The ``Location`` for the agent (RFC 9110 section 10.2.2); ``None`` where it is not passed on.

    ``tool`` is its name, ``base_url`` its address without a trailing slash, ``asked`` the URL that the answer is to.
    """
    try:
        base, to = urlsplit(base_url), urlsplit(urljoin(asked, location))
        same = (to.scheme, to.hostname, to.port or _PORTS.get(to.scheme)) == (
            *(base.scheme, base.hostname),
            base.port or _PORTS.get(base.scheme),
        )
    except ValueError:
        return None
    if not same or to.username is not None or to.password is not None or not location.isascii():
        return None
    rest = to.path.removeprefix(base.path)
    if (base.path and rest == to.path) or (rest and not rest.startswith("/")):
        return None
    return to._replace(scheme="", netloc="", path=f"/http/{tool}{rest or '/'}").geturl()
