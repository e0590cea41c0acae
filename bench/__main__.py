"""All measurements, or those named: ``python -m bench [part …]``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

from .processes import environment

PARTS = (
    "in_process",
    "servers",
    "login",
    "encryption",
    "memory",
    "revocations",
    "starting",
    "sizes",
)


def main(wanted: list[str]) -> None:
    """Run parts one after the other, each in a process of its own.

    Args:
        wanted: Their names; all of them where there is none.
    """
    if unknown := set(wanted) - set(PARTS):
        raise SystemExit(f"There is no {', '.join(unknown)}: {', '.join(PARTS)}.")
    today = datetime.now(UTC).date()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    print(f"{today}, {machine}, Python {platform.python_version()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in wanted or PARTS:
            print(f"## {part}\n", flush=True)
            command = [sys.executable, "-m", f"bench.{part}"]
            subprocess.run(command, env=environment(folder), check=True)  # noqa: S603 - our own modules


if __name__ == "__main__":
    main(sys.argv[1:])
