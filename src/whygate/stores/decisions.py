"""Decisions, for whoever asks the running gateway: each question with a reader of its own, so that none waits for another."""

from pathlib import Path

from whygate.stores.reader import Ambiguous, NotFound, Reader, Wanted


class Decisions:
    """Implements ``api.decisions.Records``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def search(self, limit: int, before: int, **wanted: str) -> list[bytes]:
        with Reader(self._path) as reader:
            return [each.bytes for each in reader.search(Wanted(limit=limit, before=before, **wanted))]

    def story(self, decision: str) -> list[bytes]:
        with Reader(self._path) as reader:
            try:
                found = reader.why(decision).decision
            except (NotFound, Ambiguous, ValueError):
                return []
            return [found.bytes, *(each.bytes for each in reader.about(found.record.id))]
