"""``make bench``: the gateway beside nginx and the bare upstream, in one run. docs/benchmarks.md says how to read it."""

import sys
from pathlib import Path

# The parts are one package, however this file is started.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.run import main  # noqa: E402  only now is the package found

if __name__ == "__main__":
    sys.exit(main())
