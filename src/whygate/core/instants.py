"""Times as the ledger counts them: whole microseconds since 1970, UTC, and back, exactly."""

import datetime
from typing import Final

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def to_us(when: datetime.datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (when - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime.datetime:
    """The aware UTC time. ``fromtimestamp`` of a float would round."""
    return EPOCH + datetime.timedelta(microseconds=microseconds)
