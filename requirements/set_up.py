"""Lay a virtual environment from a lock file, once, and whole.

usage: set_up.py VENV LOCK [--editable]

Rules:
1. Everything that is installed is named in LOCK with its version and hash; nothing else is fetched.
2. A finished environment carries a stamp with the digest of what it was made from: a second run with the same lock does nothing.
3. An environment in which an earlier run was interrupted is laid anew: pip can leave half a package that it later takes for whole.
4. Two runs at once wait for one another.

Needs only the standard library, and is written so that an old Python can still read it and be told that it is old.
"""

import sys

OLDEST = (3, 11)
if sys.version_info < OLDEST:
    sys.exit(
        "whygate needs Python 3.11 or newer, and {} is {}.\nName a newer one:  make PYTHON=python3.12 ...".format(
            sys.executable, sys.version.split()[0]
        )
    )

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "whygate-set-up"
UNDER_WAY = "whygate-set-up-under-way"


def recipe(lock: Path, *, editable: bool) -> str:
    """What an environment is made from, as a digest: the lock, the interpreter, this script, and for the package itself its metadata."""
    parts = [lock.read_bytes(), Path(__file__).read_bytes(), sys.version.encode(), str(ROOT).encode()]
    if editable:
        parts.append((ROOT / "pyproject.toml").read_bytes())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the environment's lock file, so that a second run waits until the first is done. Freed by the system if we die."""
    with home.with_name(home.name + ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_environment(home: Path) -> None:
    print(f"{home.name}: new virtual environment, Python {sys.version.split()[0]}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / UNDER_WAY).touch()  # dying from here on leaves the mark, and the next run starts with an empty environment
    try:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(home)
    except (subprocess.CalledProcessError, ImportError):
        shutil.rmtree(home, ignore_errors=True)
        sys.exit(
            "This Python has no ensurepip, so it cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
        )


def pip(home: Path, *arguments: str) -> None:
    command = [
        str(home / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_REQUIRE_VIRTUALENV"}
    if subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"{home.name}: pip could not install everything; run the same command again to start afresh")


def usable(home: Path) -> bool:
    python = home / "bin" / "python"
    if not python.exists() or (home / UNDER_WAY).exists():
        return False
    same = f"import sys, pip; raise SystemExit(sys.version_info[:2] != {sys.version_info[:2]})"
    return subprocess.run([str(python), "-c", same], stderr=subprocess.DEVNULL, check=False).returncode == 0


def main(arguments: list[str]) -> None:
    editable = "--editable" in arguments
    home, lock = (Path(argument).resolve() for argument in arguments if argument != "--editable")
    with alone(home):
        wanted, stamp = recipe(lock, editable=editable), home / STAMP
        if usable(home) and stamp.exists() and stamp.read_text() == wanted:
            stamp.touch()
            return
        if not usable(home):
            make_environment(home)
        stamp.unlink(missing_ok=True)
        (home / UNDER_WAY).touch()  # as above, for an environment that was whole but is to be brought up to date
        print(f"{home.name}: installing {lock.name} (a minute or two the first time)", flush=True)
        pip(home, "--require-hashes", "--requirement", str(lock))
        if editable:
            pip(home, "--no-deps", "--no-build-isolation", "--editable", ".")
        (home / UNDER_WAY).unlink()
        stamp.write_text(wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
