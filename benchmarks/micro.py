"""``python benchmarks/micro.py``: what the parts of a call take by themselves."""

import sys
from pathlib import Path

# The parts are one package, however this file is started.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.parts import main  # noqa: E402  only now is the package found

if __name__ == "__main__":
    main()
