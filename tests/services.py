"""Programs that tests need and a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def path_of(*names: str) -> str:
    """Return the path of a program, or skip; with ``REQUIRE_SERVICES`` set, fail."""
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"{names[0]} is not installed (Debian: apt-get install {names[0]})"
    if os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(reason)
    pytest.skip(reason)
