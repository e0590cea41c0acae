"""What a worker holds after many sessions; ``python -m bench memory``."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from auth0_flask.stores import SharedStore

from . import subjects
from .sessions import CLAIMS, opaque

STEPS = (0, 1_000, 2_000, 10_000)


def main() -> None:
    """Print memory, threads and open files after so many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, maker, seen = subjects.ours(), subjects.ours(), 0
    maker.extensions["auth0"].shared_store = SharedStore()  # keeps no list of devices
    subjects.answer(app, subjects.request("/api/me"))
    for step in STEPS:
        while seen < step:
            claims = {**CLAIMS, "sub": f"auth0|{seen:024}", "sid": opaque(32)}
            environ = subjects.request("/api/me", subjects.cookie(maker, claims=claims))
            assert subjects.answer(app, environ)[0] == "200 OK"  # noqa: S101 - else nothing was opened
            seen += 1
        gc.collect()
        files = len(list(Path("/proc/self/fd").iterdir()))
        threads = threading.active_count()
        print(f"| {seen:,} | {_megabytes():.1f} | {threads} | {files} |")
    print()


def _megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
