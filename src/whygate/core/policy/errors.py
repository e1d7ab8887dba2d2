"""What is wrong with a policy set: every finding at once, each with its place."""

import msgspec


class PolicyError(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One finding. Lines and columns count from 1, as editors do."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyErrors(Exception):
    """A set was refused whole: loading is all or nothing. ``errors`` holds every finding, in the order of place."""

    def __init__(self, errors: tuple[PolicyError, ...]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors
