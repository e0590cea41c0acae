"""All tables, or those named: ``python -m bench [--cpu] [--rounds 5] [table …]``."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime

from . import in_process, logins, rounds, servers, worker
from .processes import set_environment

TABLES = {
    "requests": in_process.requests,
    "pages": in_process.pages,
    "stores": in_process.stores,
    "devices": in_process.devices,
    "logins": logins.main,
    "memory": worker.memory,
    "starting": worker.starting,
    "servers": servers.main,
}


def main() -> None:
    """Print tables, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("table", nargs="*", choices=TABLES, default=[*TABLES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cpu", action="store_true", help="CPU time, where a machine is busy"
    )
    options = parser.parse_args()
    rounds.use(options.rounds, cpu=options.cpu)
    if len(options.table) == 1:
        with set_environment():
            TABLES[options.table[0]]()
        return
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    today = datetime.now(UTC).date()
    print(f"{today}, {machine}, Python {platform.python_version()}\n", flush=True)
    for table in options.table:
        again = [*sys.argv[1:], table] if table not in sys.argv else [table]
        command = [sys.executable, "-m", "bench", *again]
        subprocess.run(command, check=True)  # noqa: S603 - our own tables


if __name__ == "__main__":
    main()
