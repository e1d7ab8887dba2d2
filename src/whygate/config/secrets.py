"""The one place that reads secrets: at start, by reference, and only to hand them on."""

import os
from collections.abc import Mapping
from pathlib import Path

from whygate.config.reading import ConfigError, Problem

LIMIT = 64 * 1024
"""Bytes. A private key with its chain fits; a log file that somebody named by mistake does not."""


def resolve(reference: str, environ: Mapping[str, str] = os.environ, *, key: str = "") -> str:
    """The secret that ``reference`` (``env:NAME``, ``file:PATH``) stands for, without a trailing line break.

    ``key`` is the setting, for the message. Raises ``ConfigError`` where there is none; the message has the reference
    and never the value.
    """
    source, _, name = reference.partition(":")
    value: str | None = None
    if source == "env":
        value = environ.get(name)
    elif source == "file":
        try:
            with Path(name).open("rb") as file:
                raw = file.read(LIMIT + 1)
            value = raw.decode() if len(raw) <= LIMIT else None
        except (OSError, ValueError):
            value = None
    value = None if value is None else value.rstrip("\r\n")
    if not value:
        what = "is not set or empty" if source == "env" else "is missing, empty, unreadable or too large"
        raise ConfigError([Problem(key=key, where=reference, what=what, fix="provide the secret there")])
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        # It goes into a header or an environment: a line break in it would begin something new (RFC 9110 section 5.5).
        fix = "keep one line of text there"
        raise ConfigError([Problem(key=key, where=reference, what="holds control characters", fix=fix)])
    return value
