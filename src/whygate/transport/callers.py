"""Who calls, from the credential in a request's headers: the same for every listener."""

from collections.abc import Sequence

from whygate.core.calls import Fault
from whygate.core.identity import Principal
from whygate.core.reasons import Code
from whygate.flow.ports import Identifier


async def identify(identifier: Identifier, credentials: Sequence[str]) -> Principal | Fault:
    """Who proved to be calling, or what is wrong. ``credentials``: every value of ``Authorization``; of two, none counts,
    because whoever stands in between might have believed the other one.
    """
    if len(credentials) > 1:
        return Fault(code=Code.AGENT_UNAUTHENTICATED, note="two Authorization headers")
    return await identifier.identify(credentials[0] if credentials else None)
