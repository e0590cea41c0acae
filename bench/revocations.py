"""What a signed-in request costs with ten and with 100,000 revocations.

``python -m bench.revocations``
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from flask import Flask

from auth0_flask.stores import SqliteStore

from . import subjects
from .processes import environment

ROUNDS = 15
REQUESTS = 400


def app_with(entries: int, path: Path) -> Flask:
    """Return our app with so many revocations."""
    app, store, now = subjects.ours(), SqliteStore(path), time.time()
    keys = [f"id {number}" for number in range(entries)]
    store.revoke(keys, at=now, until=now + 604_800)
    app.extensions["auth0"].shared_store = store
    return app


def microseconds(app: Flask, cookie: str) -> float:
    """Time requests; return what one took."""
    ask = partial(subjects.answer, app, subjects.request("/api/me", cookie))
    assert ask()[0] == "200 OK"  # noqa: S101 - a wrong answer is not worth timing
    began = time.perf_counter()
    for _ in range(REQUESTS):
        ask()
    return (time.perf_counter() - began) / REQUESTS * 1e6


def main() -> None:
    """Print both, measured in turn, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment(folder))
        few = app_with(10, Path(folder, "few.sqlite3"))
        many = app_with(100_000, Path(folder, "many.sqlite3"))
        cookie = subjects.cookie(few)
        pairs = [
            (microseconds(few, cookie), microseconds(many, cookie))
            for _ in range(ROUNDS)
        ]
    ratios = sorted(b / a for a, b in pairs)
    print("| Revocations | Microseconds a request (median) |")
    print("|---|---|")
    print(f"| 10 | {statistics.median(a for a, _ in pairs):.0f} |")
    print(f"| 100,000 | {statistics.median(b for _, b in pairs):.0f} |")
    print(
        f"\nRatio, pair by pair: {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
