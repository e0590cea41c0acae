"""What a request costs without any server; ``python -m bench in_process``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from flask import Flask

from . import subjects
from .processes import redis
from .rounds import in_turn, show
from .sessions import CLAIMS

ROUNDS = 15
REQUESTS = 300


def main() -> None:
    """Print two tables: /api/me and the home page."""
    with redis() as url:
        rows = in_turn({**_apis(), **_in_redis(url)}, ROUNDS)
    print("`/api/me` in process:\n")
    show(rows, unit="µs", base="a bare sync view")
    print("The home page in process:\n")
    show(in_turn(_homes(), ROUNDS), unit="µs", base="a bare view for nobody")


def _apis() -> dict[str, Callable[[], float]]:
    app = subjects.ours()
    return {
        "a bare sync view": _asking(subjects.bare()),
        "a bare async view, Flask's own bridge": _asking(subjects.bare_async()),
        "the shape of Authlib's quickstart": _asking(
            subjects.quickstart(), cookie=subjects.quickstart_cookie()
        ),
        "ours, signed in": _asking(app, cookie=subjects.cookie(app)),
        "ours, a session of 7 KB": _asking(app, cookie=subjects.long_cookie(app)),
        "ours, signed out (401)": _asking(app, status="401"),
    }


def _in_redis(url: str | None) -> dict[str, Callable[[], float]]:
    if url is None:
        return {}
    os.environ["BENCH_REDIS_URL"] = url
    app = subjects.ours_in_redis()
    return {
        "ours in Redis, signed in": _asking(app, cookie=subjects.cookie(app)),
        "ours in Redis, 7 KB": _asking(app, cookie=subjects.long_cookie(app)),
    }


def _homes() -> dict[str, Callable[[], float]]:
    app, home = subjects.ours(), partial(_asking, path="/")
    return {
        "a bare view for nobody": home(subjects.bare_home(None)),
        "ours, signed out": home(app),
        "a bare view for a user": home(subjects.bare_home(CLAIMS)),
        "ours, signed in": home(app, cookie=subjects.cookie(app)),
    }


def _asking(
    app: Flask, path: str = "/api/me", cookie: str = "", status: str = "200"
) -> Callable[[], float]:
    """Return what times requests, once one was answered as expected."""
    environ = subjects.request(path, cookie)
    assert subjects.answer(app, environ)[0].startswith(status)  # noqa: S101 - a wrong answer is not worth timing

    def microseconds() -> float:
        began = time.perf_counter()
        for _ in range(REQUESTS):
            subjects.answer(app, environ)
        return (time.perf_counter() - began) / REQUESTS * 1e6

    return microseconds


if __name__ == "__main__":
    main()
