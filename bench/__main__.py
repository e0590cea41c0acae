"""Print all tables or some: ``python -m bench [--cpu] [--rounds 7] [table …]``."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

from . import in_process, rounds
from .logins import logins
from .processes import set_environment
from .servers import servers

_NAMES = ("requests", "pages", "stores", "devices", "sizes", "memory", "starting")
TABLES = {name: getattr(in_process, name) for name in _NAMES}
TABLES |= {"logins": logins, "servers": servers}


def main() -> None:
    """Print each table from its own process."""
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("table", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--cpu", action="store_true", help="CPU time, not wall time")
    options = parser.parse_args(namespace=rounds.options)
    if len(options.table) == 1:
        with set_environment():
            TABLES[options.table[0]]()
        return
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    print(f"{machine}, Python {platform.python_version()}\n", flush=True)
    more = [f"--rounds={options.rounds}", *["--cpu"] * options.cpu]
    for table in options.table or TABLES:
        command = [sys.executable, "-m", "bench", table, *more]
        subprocess.run(command, check=True)  # noqa: S603 - our own tables


if __name__ == "__main__":
    main()
