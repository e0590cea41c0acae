"""Requests per second of servers, measured by wrk with a new user each time."""

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
from .rounds import Row, print_table

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
    """Print a table of servers with one worker, and of Express if there is Node.js."""
    if program("wrk") is None:
        print("The servers are skipped: install wrk (`apt-get install wrk`).\n")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [*_ours(stack, folder), *_express(stack, folder)]
        print_table("`/api/me`, one worker, 8 threads, wrk with 16", _COLUMNS, rows)


def _ours(stack: ExitStack, folder: Path) -> Iterator[Row]:
    usual, signed = [*subjects.cookies(subjects.ours())], subjects.quickstart_cookies()
    cases: list[tuple[str, str, str, Sequence[str], str]] = [
        ("a bare sync view", "bare", "/api/me", (), ""),
        ("a bare async view, Flask's own bridge", "bare", "/async", (), ""),
        ("Authlib's quickstart", "quickstart", "/api/me", signed, ""),
        ("ours, sync view", "ours", "/api/me", usual, ""),
        ("ours, async view, loops reused", "demo", "/api/me", usual, ""),
        ("ours, async view, Flask's own bridge", "ours", "/async", usual, ""),
    ]
    if client := redis_client(stack):
        port, app = client.get_connection_kwargs()["port"], subjects.ours(redis=client)
        url, in_redis = f"redis://127.0.0.1:{port}/0", list(subjects.cookies(app))
        cases.append(("ours, sync view, Redis", "ours", "/api/me", in_redis, url))
    for server in ("gunicorn", "granian"):
        for name, app_name, path, cookies, url in cases:
            os.environ["AUTH0_REDIS_URL"] = url
            address = _start(stack, server, app=app_name)
            yield _row(folder, f"{server}, {name}", f"{address}{path}", cookies)


def _express(stack: ExitStack, folder: Path) -> Iterator[Row]:
    npm = program("npm")
    if npm is None or program("node") is None:
        print("Express is skipped: Node.js is not installed.\n")
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
                jar = http.get(f"/make/{number}").cookies
                cookies.append("; ".join(f"{n}={value}" for n, value in jar.items()))
        row = f"Node, express-openid-connect, {name}"
        yield _row(folder, row, f"{address}/api/me", cookies)


def _start(stack: ExitStack, name: str, **arguments: str) -> str:
    """Start a server and return its URL."""
    port = free_port()
    options = _SERVERS[name].format(port=port, **arguments).split()
    stack.enter_context(running([str(program(name)), *options], port))
    return f"http://127.0.0.1:{port}"


def _row(folder: Path, name: str, url: str, cookies: Sequence[str]) -> Row:
    """Return a row that runs wrk, after a check of the first user's response."""
    if cookies:
        text = httpx.get(url, headers={"Cookie": cookies[0]}, trust_env=False).text
        assert f"{0:024}" in text, f"{name}: {text}"  # noqa: S101
    columns = [cookies, cookies[:1]] if cookies else [[""]]
    return Row(name, [_wrk(folder, url, column) for column in columns])


def _wrk(folder: Path, url: str, cookies: Sequence[str]) -> Callable[[], float]:
    file = tempfile.mkstemp(dir=folder)[1]
    Path(file).write_text("\n".join(cookies) + "\n")
    command = [str(program("wrk")), *_LOAD, url, "--", file]

    def rate() -> float:
        output = subprocess.check_output(command, text=True)  # noqa: S603 - ours
        match = _RATE.search(output)
        if match is None or "Non-2xx" in output:
            raise SystemExit(f"{url} did not respond with 200:\n{output}")
        return float(match[1])

    return rate
