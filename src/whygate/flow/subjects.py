"""A principal as records show it."""

from whygate.core.identity import Principal
from whygate.core.records import Subject


def subject_of(principal: Principal) -> Subject:
    """The ``subject`` of a record."""
    return Subject(
        credential=principal.credential,
        id=principal.id,
        issuer=principal.issuer,
        on_behalf_of=principal.on_behalf_of,
        owner=principal.owner,
        proof=principal.proof.value,
        roles=principal.roles,
        type=principal.type.value,
    )
