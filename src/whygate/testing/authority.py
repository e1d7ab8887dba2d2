"""What is in force, over any ledger, for tests: sealed with a key that everybody knows."""

from whygate.flow.authority import Authority
from whygate.flow.ports import Clock, Ids, Ledger
from whygate.stores.sealing import Sealing


def authority(ledger: Ledger, clock: Clock, ids: Ids, digest_key: bytes = b"d" * 32) -> Authority:
    """One that starts from what ``ledger`` holds."""
    return Authority(ledger, clock, ids, Sealing(b"s" * 32), digest_key)
