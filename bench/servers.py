"""Requests a second under servers, by wrk, which asks as another user each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from . import subjects
from .processes import free_port, program, redis_client, running
from .rounds import Row, show

_COLUMNS = ("3,000 users in turn, requests/s", "one user again, requests/s")
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_LOAD = ["-t", "1", "-c", "16", "-d", "2s", "-s", "bench/cookies.lua"]
_SERVERS = {
    "gunicorn": "--workers 1 --threads 8 --worker-class gthread --log-level error "
    "--bind 127.0.0.1:{port} bench.subjects:{app}()",
    "granian": "--workers 1 --blocking-threads 8 --interface wsgi --no-log "
    "--port {port} --factory bench.subjects:{app}",
    "node": "bench/express.cjs {file} {port} {rolling}",
}
_NPM = "install --silent --no-audit --no-fund express@4 express-openid-connect@3"


def servers() -> None:
    """Print a table of one worker each, and of Express where Node.js is."""
    if program("wrk") is None:
        print("The servers are left out: there is no wrk (`apt-get install wrk`).\n")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [*_ours(stack, folder), *_express(stack, folder)]
        show("`/api/me`, one worker, 8 threads, wrk with 16", _COLUMNS, rows)


def _ours(stack: ExitStack, folder: Path) -> Iterator[Row]:
    usual, signed = [*subjects.cookies(subjects.ours())], subjects.quickstart_cookies()
    asked: list[tuple[str, str, str, Sequence[str], str]] = [
        ("a bare sync view", "bare", "/api/me", (), ""),
        ("a bare async view, Flask's own bridge", "bare", "/async", (), ""),
        ("Authlib's quickstart", "quickstart", "/api/me", signed, ""),
        ("ours, sync view", "ours", "/api/me", usual, ""),
        ("ours, async view, loops reused", "demo", "/api/me", usual, ""),
        ("ours, async view, Flask's own bridge", "ours", "/async", usual, ""),
    ]
    if client := redis_client(stack):
        port, kept = client.get_connection_kwargs()["port"], subjects.ours(redis=client)
        url, in_redis = f"redis://127.0.0.1:{port}/0", list(subjects.cookies(kept))
        asked.append(("ours, sync view, Redis", "ours", "/api/me", in_redis, url))
    for server in ("gunicorn", "granian"):
        for name, app, path, cookies, url in asked:
            os.environ["AUTH0_REDIS_URL"] = url
            address = _start(stack, server, app=app)
            yield _row(folder, f"{server}, {name}", f"{address}{path}", cookies)


def _express(stack: ExitStack, folder: Path) -> Iterator[Row]:
    npm = program("npm")
    if npm is None or program("node") is None:
        print("Express is left out: there is no Node.js.\n")
        return
    subprocess.run([npm, *_NPM.split()], cwd=folder, check=True)  # noqa: S603 - ours
    file, names = folder / "sessions", ("id_token", "refresh_token")
    states = (subjects.state(subjects.claims(n)) for n in range(subjects.USERS))
    file.write_text("\n".join(json.dumps({n: s[n] for n in names}) for s in states))
    os.environ |= {"NODE_PATH": str(folder / "node_modules"), "NODE_ENV": "production"}
    for name, rolling in (("its cookie kept", "no"), ("as by default", "rolling")):
        address, cookies = _start(stack, "node", file=str(file), rolling=rolling), []
        with httpx.Client(base_url=address, trust_env=False) as http:
            for number in range(subjects.USERS):
                http.cookies.clear()
                made = http.get(f"/make/{number}").cookies
                cookies.append("; ".join(f"{n}={value}" for n, value in made.items()))
        row = f"Node, express-openid-connect, {name}"
        yield _row(folder, row, f"{address}/api/me", cookies)


def _start(stack: ExitStack, name: str, **words: str) -> str:
    """Start a server; return its address."""
    port = free_port()
    options = _SERVERS[name].format(port=port, **words).split()
    stack.enter_context(running([str(program(name)), *options], port))
    return f"http://127.0.0.1:{port}"


def _row(folder: Path, name: str, url: str, cookies: Sequence[str]) -> Row:
    """Return a row of loads, once the first user was answered as expected."""
    if cookies:
        told = httpx.get(url, headers={"Cookie": cookies[0]}, trust_env=False).text
        assert f"{0:024}" in told, f"{name}: {told}"  # noqa: S101 - not worth timing
    loads = [cookies, cookies[:1]] if cookies else [[""]]
    return Row(name, [_load(folder, url, each) for each in loads])


def _load(folder: Path, url: str, cookies: Sequence[str]) -> Callable[[], float]:
    file = tempfile.mkstemp(dir=folder)[1]
    Path(file).write_text("\n".join(cookies) + "\n")
    command = [str(program("wrk")), *_LOAD, url, "--", file]

    def rate() -> float:
        said = subprocess.check_output(command, text=True)  # noqa: S603 - ours
        found = _RATE.search(said)
        if found is None or "Non-2xx" in said:
            raise SystemExit(f"{url} answered wrongly:\n{said}")
        return float(found[1])

    return rate
