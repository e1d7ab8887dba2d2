"""Durations as policies write them."""

from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """``90s``, ``10m``, ``24h`` or ``7d`` in seconds. Raises ``KeyError`` or ``ValueError`` for anything else."""
    return int(text[:-1]) * _SECONDS[text[-1:]]
