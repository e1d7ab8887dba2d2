"""Reads the texts of a folder of policies, or of pins, and nothing else: what they mean is ``core``'s part.

1. What is there is read or is an error. A file left out in silence would be a deny left out in silence.
2. Nothing outside the folder is read: a link must end inside it (as those of a mounted ConfigMap do).
3. What begins with a dot is not looked at, neither is what ends otherwise than in .yaml or .yml (pins: .json).
4. What is read and what is watched are found by the same walk: a change that counts can't go unseen.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from whygate.core.policy.errors import PolicyError, PolicyErrors

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_TOTAL_BYTES: Final = 16 * 1024 * 1024
MAX_FILES: Final = 4096
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in a name that are not UTF-8."""
_ENDINGS: Final = (".yaml", ".yml")
PIN_ENDINGS: Final = (".json",)
_MORE_BYTES: Final = 8 * 1024 * 1024
"""A file of pins: some hundred tools with large schemas, indented."""


Seen = tuple[tuple[str | int, ...], ...]


class PolicyFolder:
    """A policy folder to come back to. Every method blocks for some reads of the disk."""

    endings: tuple[str, ...] = _ENDINGS

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> dict[str, str]:
        """See ``read_folder``."""
        return read_folder(self.path)

    def seen(self) -> Seen:
        """What the folder looks like from outside: equal as long as nothing in it was changed. Never raises.

        By name, size, times and inode of what each name leads to: a link that was bent (as those of a mounted
        ConfigMap are) counts, and so does a change of who may read. Times of change, not only of modification: copying
        tools set the latter back.
        """
        errors: list[PolicyError] = []
        try:
            real = self.path.resolve(strict=True)
            found = (
                [(self.path.name, real)] if real.is_file() else sorted(_files(self.path, real, errors, self.endings))
            )
        except OSError as wrong:
            return ((_why(wrong),),)
        return (
            (str(real),),
            *((str(error),) for error in sorted(errors)),
            *(_signature(name, file) for name, file in found[: MAX_FILES + 1]),
        )


class PinFolder(PolicyFolder):
    """A folder of pins. There need not be one before the first pin; one that is gone later is an error."""

    endings = PIN_ENDINGS

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._was_there = False

    def read(self) -> dict[str, str]:
        """As ``read_folder``."""
        if not self._was_there and not self.path.exists():
            return {}
        self._was_there = True
        return read_folder(self.path, self.endings, _MORE_BYTES)


def read_folder(
    path: str | os.PathLike[str], endings: tuple[str, ...] = _ENDINGS, max_bytes: int = MAX_FILE_BYTES
) -> dict[str, str]:
    """The texts of all files with one of these ``endings`` below ``path``, by their name relative to it with slashes, sorted by name.

    A single file is read as a folder that holds only it. Raises ``PolicyErrors`` with everything that can't be read.
    """
    root = Path(path)
    errors: list[PolicyError] = []
    texts: dict[str, str] = {}
    try:
        real = root.resolve(strict=True)
        found = [(root.name, real)] if real.is_file() else sorted(_files(root, real, errors, endings))
    except OSError as wrong:
        raise PolicyErrors((_error(str(root), _why(wrong)),)) from None
    if len(found) > MAX_FILES:
        raise PolicyErrors((_error(str(root), f"more than {MAX_FILES} files"),))
    total = 0
    for name, file in found:
        if _SURROGATE.search(name) is not None:
            errors.append(_error(name, "its name is not UTF-8"))
            continue
        try:
            data = _read(file, max_bytes)
            total += len(data)
            texts[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            errors.append(_error(name, "not UTF-8"))
        except (OSError, ValueError) as wrong:
            errors.append(_error(name, _why(wrong)))
        if total > MAX_TOTAL_BYTES:
            errors.append(_error(name, f"the files are above {MAX_TOTAL_BYTES} bytes together"))
            break
    if errors:
        raise PolicyErrors(tuple(sorted(errors)))
    return texts


def _signature(name: str, file: Path) -> tuple[str | int, ...]:
    try:
        found = file.stat()
    except OSError as wrong:
        return (name, _why(wrong))
    return (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _files(root: Path, real: Path, errors: list[PolicyError], endings: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    def unreadable(wrong: OSError) -> None:
        errors.append(_error(str(root), _why(wrong)))  # os.walk would pass over it in silence

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        linked = [here / name for name in folders if (here / name).is_symlink()]
        errors += [
            _error(_name(root, each), "a folder must be no link: what is in it would be left out") for each in linked
        ]
        for name in files:
            if name.startswith(".") or not name.endswith(endings):
                continue
            file = here / name
            target = file.resolve()
            if target.is_relative_to(real):
                yield _name(root, file), target
            else:
                errors.append(_error(_name(root, file), "this link ends outside the folder"))


def _read(file: Path, max_bytes: int) -> bytes:
    # Not blocking: a named pipe would hold us here until somebody writes to it.
    number = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(number, "rb") as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = handle.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"above {max_bytes} bytes")
    return data


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _why(wrong: Exception) -> str:
    if isinstance(wrong, OSError):
        return f"can't be read: {(wrong.strerror or type(wrong).__name__).lower()}"
    return f"can't be read: {wrong}"


def _error(file: str, message: str) -> PolicyError:
    file = file.encode("utf-8", "backslashreplace").decode()  # of a name that is no text, what can be written down
    return PolicyError(file=file, line=1, column=1, message=message)


def write_pins(folder: Path, server: str, text: str) -> Path:
    """Put the pins of one server in place: whole, or not at all. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{server}{PIN_ENDINGS[0]}"
    fresh = folder / f".{server}.{os.getpid()}.new"  # with a dot before it: whoever watches the folder does not read it
    try:
        with fresh.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path
