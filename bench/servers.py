"""Requests a second under servers, by wrk, which asks as another user each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx

from . import subjects
from .processes import free_port, program, redis, running
from .rounds import Row, show

CONNECTIONS, THREADS, SECONDS = 16, 8, 2
_COLUMNS = ("3,000 users in turn, requests/s", "one user again, requests/s")
_HERE = Path(__file__).parent
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_PACKAGES = ("express@4", "express-openid-connect@3")


def main() -> None:
    """Print a table of one worker each, and of Express where Node.js is."""
    if program("wrk") is None:
        print("The servers are left out: there is no wrk (`apt-get install wrk`).\n")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(redis())
        rows = [*_ours(stack, folder, url), *_express(stack, folder)]
        title = f"`/api/me`, one worker, {THREADS} threads, wrk with {CONNECTIONS}"
        show(title, _COLUMNS, rows)


def _ours(stack: ExitStack, folder: Path, url: str | None) -> Iterator[Row]:
    usual = subjects.cookies(subjects.ours())
    signed = subjects.quickstart_cookies()
    asked: list[tuple[str, str, str, Sequence[str], str]] = [
        ("a bare sync view", "bare", "/api/me", (), ""),
        ("a bare async view, Flask's own bridge", "bare", "/async", (), ""),
        ("Authlib's quickstart", "quickstart", "/api/me", signed, ""),
        ("ours, sync view", "ours", "/api/me", usual, ""),
        ("ours, async view, loops reused", "demo", "/api/me", usual, ""),
        ("ours, async view, Flask's own bridge", "ours", "/async", usual, ""),
    ]
    if url:
        from auth0_flask.stores.redis import connect

        kept = subjects.cookies(subjects.ours(redis=connect(url)))
        asked.append(("ours, sync view, Redis", "ours", "/api/me", kept, url))
    for server, command in (("gunicorn", _gunicorn), ("granian", _granian)):
        for name, factory, path, cookies, kept_in in asked:
            more = {"AUTH0_REDIS_URL": kept_in}
            address = _start(stack, partial(command, factory), more)
            yield _row(folder, f"{server}, {name}", f"{address}{path}", cookies)


def _express(stack: ExitStack, folder: Path) -> Iterator[Row]:
    npm = program("npm")
    if npm is None or program("node") is None:
        print("Express is left out: there is no Node.js.\n")
        return
    quiet = ("--silent", "--no-audit", "--no-fund", "--prefix", str(folder))
    subprocess.run([npm, "install", *quiet, *_PACKAGES], check=True)  # noqa: S603 - ours
    file = folder / "sessions"
    states = (subjects.state(subjects.claims(n)) for n in range(subjects.USERS))
    names = ("id_token", "refresh_token")
    file.write_text("\n".join(json.dumps({n: s[n] for n in names}) for s in states))
    for name, rolling in (("", ""), (", rolling, as by default", "rolling")):
        command = partial(_node, str(file), rolling)
        more = {"NODE_PATH": str(folder / "node_modules"), "NODE_ENV": "production"}
        address = _start(stack, command, more)
        with httpx.Client(base_url=address, trust_env=False) as http:
            cookies = [_signed_in(http, number) for number in range(subjects.USERS)]
        row = f"Node, express-openid-connect{name}"
        yield _row(folder, row, f"{address}/api/me", cookies)


def _signed_in(http: httpx.Client, number: int) -> str:
    http.cookies.clear()
    made = http.get(f"/make/{number}").cookies
    return "; ".join(f"{name}={value}" for name, value in made.items())


def _gunicorn(factory: str, port: int) -> list[str]:
    size = ["--workers", "1", "--threads", str(THREADS), "--log-level", "error"]
    where = ["--worker-class", "gthread", "--bind", f"127.0.0.1:{port}"]
    return [_needed("gunicorn"), *size, *where, f"bench.subjects:{factory}()"]


def _granian(factory: str, port: int) -> list[str]:
    size = ["--workers", "1", "--blocking-threads", str(THREADS), "--no-log"]
    where = ["--interface", "wsgi", "--port", str(port), "--factory"]
    return [_needed("granian"), *size, *where, f"bench.subjects:{factory}"]


def _node(file: str, rolling: str, port: int) -> list[str]:
    return [_needed("node"), str(_HERE / "express.cjs"), file, str(port), rolling]


def _needed(name: str) -> str:
    if (found := program(name)) is None:
        raise SystemExit(f"This measurement needs {name} (see CONTRIBUTING.md).")
    return found


def _start(
    stack: ExitStack, command: Callable[[int], list[str]], more: dict[str, str]
) -> str:
    """Start a server; return its address."""
    port = free_port()
    stack.enter_context(running(command(port), port, more))
    return f"http://127.0.0.1:{port}"


def _row(folder: Path, name: str, url: str, cookies: Sequence[str]) -> Row:
    """Return a row of loads, once the first user was answered as expected."""
    if cookies:
        told = httpx.get(url, headers={"Cookie": cookies[0]}, trust_env=False).text
        assert f"{0:024}" in told, f"{name}: {told}"  # noqa: S101 - not worth timing
    loads = [cookies, cookies[:1]] if cookies else [[""]]
    return Row(name, [_load(folder, url, each) for each in loads])


def _load(folder: Path, url: str, cookies: Sequence[str]) -> Callable[[], float]:
    descriptor, file = tempfile.mkstemp(dir=folder, text=True)
    with os.fdopen(descriptor, "w") as output:
        output.write("\n".join(cookies) + "\n")
    size = ["-t", "1", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s"]
    script = ["-s", str(_HERE / "cookies.lua"), url, "--", file]
    command = [_needed("wrk"), *size, *script]

    def rate() -> float:
        said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        found = _RATE.search(said.stdout)
        if found is None or "Non-2xx" in said.stdout:
            raise SystemExit(f"{url} answered wrongly:\n{said.stdout}{said.stderr}")
        return float(found[1])

    return rate
