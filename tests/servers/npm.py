"""What the tests run of npm's: laid once, from a lock with hashes, into the user's cache.

usage: python tests/servers/npm.py      output: ${XDG_CACHE_HOME:-~/.cache}/whygate/npm-<digest of the lock>

Rules:
1. Everything that is installed is named in `npm/package-lock.json` with its version and hash; it holds no address, so npm asks
   the registry that it is configured for. Change package.json, then, in a copy of the folder:
   `npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved`.
2. No package's install script runs. Node itself is a package here (the suite needs 22), chosen for the platform by npm.
3. The folder appears whole or not at all, under a name made from the lock: whoever finds it has what the lock says.

Needs only the standard library (and npm, once).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INSTALL = "npm's packages are not there: `make conformance` fetches them (needs npm, once)"
RECIPE = Path(__file__).parent / "npm"
FILES = ("package.json", "package-lock.json")
NODE = 22


def home() -> Path:
    """Where the packages of this lock belong, whether or not they are there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(b"".join((RECIPE / name).read_bytes() for name in FILES)).hexdigest()
    return cache / "whygate" / f"npm-{digest[:12]}"


def package(name: str) -> Path | None:
    """The installed package's folder; None where it was not fetched."""
    found = home() / "node_modules" / name
    return found if found.is_dir() else None


def node() -> Path | None:
    """Node as the lock has it; on a platform that the lock knows none for, the one on the path."""
    for found in sorted((home() / "node_modules").glob("node-*/bin/node")):
        if os.access(found, os.X_OK):
            return found
    named = shutil.which("node")
    if named is None:
        return None
    said = subprocess.run([named, "--version"], capture_output=True, text=True, check=False).stdout
    return Path(named) if said.startswith("v") and int(said[1:].split(".")[0]) >= NODE else None


def command(name: str, *arguments: str) -> list[str] | None:
    """How to run an npm package's program (all of ours have one, `dist/index.js`); None where something is missing."""
    program, runner = package(name), node()
    return None if program is None or runner is None else [str(runner), str(program / "dist" / "index.js"), *arguments]


def main() -> int:
    place = home()
    if place.is_dir():
        sys.stdout.write(f"npm's packages: already at {place}\n")
        return 0
    if shutil.which("npm") is None:
        sys.stderr.write("npm's packages: fetching them needs npm, and there is none on the path\n")
        return 1
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="npm-under-way-") as temporary:
        work = Path(temporary) / "whole"
        work.mkdir()
        for name in FILES:
            shutil.copy(RECIPE / name, work / name)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=work, check=False
        )
        if done.returncode != 0:
            return done.returncode
        try:
            work.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            # Another run was quicker: its folder is as good as ours.
    sys.stdout.write(f"npm's packages: {place}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
