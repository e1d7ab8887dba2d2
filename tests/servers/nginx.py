"""Where the tests' nginx is."""

import os
import shutil
from pathlib import Path

INSTALL = "no nginx: install Debian's nginx-light, or name its binary in WHYGATE_NGINX"


def binary() -> Path | None:
    """The nginx that WHYGATE_NGINX names, else the one on the path or in /usr/sbin (not on every user's path)."""
    named = os.environ.get("WHYGATE_NGINX")
    found = named or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found and os.access(found, os.X_OK) else None
