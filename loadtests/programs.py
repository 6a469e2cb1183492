"""Programs that are not Python's: the machine's own, or of the Debian packages that the Makefile
unpacks into the virtual environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "debian" / "usr"
LIBRARIES = os.pathsep.join(str(folder) for folder in UNPACKED.glob("lib/*-linux-gnu"))
"""For LD_LIBRARY_PATH: the libraries that came with them."""


def program(name: str) -> Path | None:
    """Where ``name`` is, if it is anywhere."""
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=os.pathsep.join((path, str(UNPACKED / "bin"))))
    return Path(found) if found else None
