"""What a worker takes up after many sessions, and until it has started."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from . import subjects
from .rounds import Row, each, show

_SDK = "from auth0_server_python.auth_server.server_client import ServerClient"
_CODE = {
    "Flask and the SDK imported": f"import flask; {_SDK}",
    "Python alone": "",
    "Flask imported": "import flask",
    "the demo made": "import app; app.create_app()",
}


def memory() -> None:
    """Print memory, threads and open files after so many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, steps = subjects.demo(), (1, 1_000, 2_000, 10_000)
    cookies = subjects.each_cookie(subjects.ours(), steps[-1])
    for seen, cookie in enumerate(cookies, 1):
        asked = subjects.requests("/api/me", [cookie])[0]
        assert subjects.answer(app, asked)[0] == "200 OK"  # noqa: S101 - else nothing was opened
        if seen in steps:
            lines = Path("/proc/self/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            files = len(list(Path("/proc/self/fd").iterdir()))
            megabytes = int(status["VmRSS"].split()[0]) / 1024
            print(
                f"| {seen:,} | {megabytes:.1f} | {int(status['Threads'])} | {files} |"
            )
    print()


def starting() -> None:
    """Print how long whole processes take."""
    run = partial(subprocess.run, check=True, stderr=subprocess.DEVNULL)
    commands = {name: [sys.executable, "-c", code] for name, code in _CODE.items()}
    rows = [
        Row(name, [each(run, [c], 1, time.perf_counter)])
        for name, c in commands.items()
    ]
    show("A process until the app is made", ["µs"], rows)
