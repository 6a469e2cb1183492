"""Lookup of non-Python programs: installed on the machine, or from the Debian packages that the
Makefile unpacks into the virtual environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "debian" / "usr"
LIBRARIES = os.pathsep.join(str(folder) for folder in UNPACKED.glob("lib/*-linux-gnu"))
"""Value for LD_LIBRARY_PATH: the libraries in those packages."""


def program(name: str) -> Path | None:
    """Return the path of program ``name``, or None if it is not found."""
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=os.pathsep.join((path, str(UNPACKED / "bin"))))
    return Path(found) if found else None
