"""What a worker takes up after many sessions, and until it has started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial

from . import subjects
from .processes import measure
from .rounds import Row, each, show

_SDK = "from auth0_server_python.auth_server.server_client import ServerClient"
_CODE = {
    "Flask and the SDK imported": f"import flask; {_SDK}",
    "Flask imported": "import flask",
    "Python alone": "",
    "the demo made": "import app; app.create_app()",
}


def memory() -> None:
    """Print memory, threads and open files after so many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, steps = subjects.demo(), (1, 1_000, 2_000, 10_000)
    cookies = subjects.each_cookie(subjects.ours(), steps[-1])
    for seen, cookie in enumerate(cookies, 1):
        subjects.ask(app, subjects.requests("/api/me", [cookie])[0])
        if seen in steps:
            rss, threads, _, files = measure(os.getpid())
            print(f"| {seen:,} | {rss:.1f} | {threads} | {files} |")
    print()


def starting() -> None:
    """Print how long whole processes take."""
    run = partial(subprocess.run, check=True, stderr=subprocess.DEVNULL)
    commands = {name: [sys.executable, "-c", code] for name, code in _CODE.items()}
    rows = [Row(n, [each(run, [c], 1, time.perf_counter)]) for n, c in commands.items()]
    show("A process until the app is made", ["µs"], rows)
