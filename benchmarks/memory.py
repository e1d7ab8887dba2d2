"""``python benchmarks/memory.py``: what the gateway's processes hold after many calls over many tasks, and whether it grows."""

import sys
from pathlib import Path

# The parts are one package, however this file is started.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.growth import main  # noqa: E402  only now is the package found

if __name__ == "__main__":
    sys.exit(main())
