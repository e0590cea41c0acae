"""What a worker takes up after many sessions, and until it has started."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import subjects
from .rounds import Row, show

_STEPS = (0, 1_000, 2_000, 10_000)
_CODE = {
    "Flask and the SDK imported": (
        "import flask;"
        "from auth0_server_python.auth_server.server_client import ServerClient"
    ),
    "Python alone": "",
    "Flask imported": "import flask",
    "the demo made": "import app; app.create_app()",
}


def memory() -> None:
    """Print memory, threads and open files after so many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, seen = subjects.demo(), 0
    for step in _STEPS:
        for number in range(seen, step):
            cookie = subjects.cookie(app, subjects.claims(number))
            asked = subjects.requests("/api/me", [cookie])[0]
            assert subjects.answer(app, asked)[0] == "200 OK"  # noqa: S101 - else nothing was opened
        seen = step
        gc.collect()
        files = len(list(Path("/proc/self/fd").iterdir()))
        threads = threading.active_count()
        print(f"| {seen:,} | {_megabytes():.1f} | {threads} | {files} |")
    print()


def starting() -> None:
    """Print how long whole processes take."""
    rows = [Row(name, [_starting(code)]) for name, code in _CODE.items()]
    show("A process until the app is made", ["ms"], rows)


def _starting(code: str) -> Callable[[], float]:
    def milliseconds() -> float:
        began = time.perf_counter()
        command = [sys.executable, "-c", code]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own code
        return (time.perf_counter() - began) * 1e3

    return milliseconds


def _megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
