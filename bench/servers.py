"""Requests a second under servers, by wrk; ``python -m bench servers``."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from . import subjects
from .processes import free_port, program, redis, running
from .rounds import in_turn, show

ROUNDS = 5
CONNECTIONS = 16
SECONDS = 2
THREADS = 8
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
BASE = "gunicorn, a bare sync view"


def main() -> None:
    """Print a table of both servers, one worker of 8 threads each."""
    with ExitStack() as stack:
        url = stack.enter_context(redis())
        os.environ["BENCH_REDIS_URL"] = url or ""
        rows = in_turn(_everybody(stack), ROUNDS)
    print(f"`/api/me`, one worker, {THREADS} threads, wrk with {CONNECTIONS}:\n")
    show(rows, unit="requests/s", base=BASE)


def _everybody(stack: ExitStack) -> dict[str, Callable[[], float]]:
    app = subjects.ours()
    usual, long = subjects.cookie(app), subjects.long_cookie(app)
    asked = [
        ("a bare sync view", "bare", ""),
        ("a bare async view", "bare_async", ""),
        ("the quickstart's shape", "quickstart", subjects.quickstart_cookie()),
        ("ours, signed in", "ours", usual),
        ("ours, 7 KB", "ours", long),
    ]
    if os.environ["BENCH_REDIS_URL"]:
        cookie = subjects.cookie(subjects.ours_in_redis())
        asked.append(("ours in Redis, signed in", "ours_in_redis", cookie))
    return {
        f"{server}, {name}": _load(stack, command, cookie)
        for server, commands in (("gunicorn", _gunicorn), ("granian", _granian))
        for name, factory, cookie in asked
        for command in [partial(commands, factory)]
    }


def _gunicorn(factory: str, port: int) -> list[str]:
    command = [_needed("gunicorn"), "--bind", f"127.0.0.1:{port}"]
    size = ["--workers", "1", "--threads", str(THREADS), "--log-level", "error"]
    return [*command, *size, f"bench.subjects:{factory}()"]


def _granian(factory: str, port: int) -> list[str]:
    command = [_needed("granian"), "--interface", "wsgi", "--port", str(port)]
    size = ["--workers", "1", "--blocking-threads", str(THREADS), "--no-log"]
    return [*command, *size, "--factory", f"bench.subjects:{factory}"]


def _needed(name: str) -> str:
    found = program(name)
    if found is None:
        raise SystemExit(f"This measurement needs {name} (see CONTRIBUTING.md).")
    return found


def _load(
    stack: ExitStack, command: Callable[[int], list[str]], cookie: str
) -> Callable[[], float]:
    """Start a server; return what asks it for some seconds."""
    port = free_port()
    stack.enter_context(running(command(port), port))
    header = ["--header", f"Cookie: {cookie}"] if cookie else []
    size = ["--threads", "1", "--connections", str(CONNECTIONS)]
    address = f"http://127.0.0.1:{port}/api/me"
    wrk = [_needed("wrk"), *size, "--duration", f"{SECONDS}s", *header, address]

    def rate() -> float:
        said = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own command
        found = _RATE.search(said)
        if found is None or "Non-2xx" in said:
            raise SystemExit(f"{command(port)} answered wrongly:\n{said}")
        return float(found[1])

    return rate


if __name__ == "__main__":
    main()
