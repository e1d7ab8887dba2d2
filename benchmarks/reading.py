"""``python benchmarks/reading.py``: how long ``why``, ``task`` and ``tail`` take on a ledger of a million records."""

import sys
from pathlib import Path

# The parts are one package, however this file is started.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.big_ledger import main  # noqa: E402  only now is the package found

if __name__ == "__main__":
    sys.exit(main())
