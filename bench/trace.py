"""How many calls of ours a request takes; ``python -m bench.trace [--calls]``.

A call from a module of ours into another one is a switch, whatever code of others
lies between. A task of an event loop begins with no caller.
"""

from __future__ import annotations

import dis
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from flask import Flask
from flask.testing import FlaskClient

from auth0_flask.tenant import Tenant

from . import subjects
from .logins import get, settings, sign_in

_ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = {"auth0_flask", "stores"}
_REQUESTS = {
    "`/login`": "/login",
    "`/callback`": "/callback",
    "`/api/me`, signed in": "/api/me",
    "a refresh": "/token",
    "`/logout`": "/logout",
}


class Call(NamedTuple):
    """A call of ours, and the modules of those that led there, the nearest first."""

    module: str
    function: str
    callers: tuple[str, ...]


class Calls:
    """Notes calls of ours while a request is counted, in all threads."""

    def __init__(self) -> None:
        self._seen: list[Call] | None = None

    def watch(self) -> None:
        """Begin, in this thread and in all that are yet to start."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def during(self, request: Callable[[], object]) -> list[Call]:
        """Return the calls of a request, in order."""
        seen = self._seen = []
        request()
        self._seen = None
        return seen

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        seen, code = self._seen, frame.f_code
        if seen is None or event != "call" or not (module := _module(code)):
            return
        if frame.f_lasti == _beginning(code):
            seen.append(Call(module, code.co_qualname, tuple(_callers(frame))))


def main(*options: str) -> None:
    """Print the table; with ``--calls``, before it all calls, switches marked."""
    calls = Calls()
    calls.watch()
    with Tenant() as tenant, tempfile.TemporaryDirectory() as folder:
        os.environ.update(settings(tenant))
        os.environ["AUTH0_REVOCATIONS_PATH"] = str(Path(folder, "r.sqlite3"))
        app = subjects.demo()
        app.add_url_rule("/token", view_func=subjects.token)
        counted = {n: _count(calls, app, tenant, p) for n, p in _REQUESTS.items()}
    if "--calls" in options:
        for name, seen in counted.items():
            print(f"{name}:\n", *map(_line, seen), "", sep="\n")
    print("| Request | Calls | Modules | Switches |\n|---|--:|--:|--:|")
    for name, seen in counted.items():
        modules, switches = len({c.module for c in seen}), sum(map(_is_switch, seen))
        print(f"| {name} | {len(seen)} | {modules} | {switches} |")
    print()


def _is_switch(call: Call) -> bool:
    return call.callers[:1] not in {(), (call.module,)}


def _line(call: Call) -> str:
    indent = "  " * len(call.callers)
    return f"{' *'[_is_switch(call)]} {indent}{call.module}: {call.function}"


def _callers(frame: FrameType | None) -> Iterator[str]:
    while frame := frame and frame.f_back:
        if module := _module(frame.f_code):
            yield module


def _module(code: CodeType) -> str | None:
    """Name the module of ours that a function is of; None for what is not counted."""
    return None if code.co_name.startswith("<") else _module_at(code.co_filename)


@cache
def _module_at(file: str) -> str | None:
    path = Path(file).resolve()  # stores/ may be reached by a link
    parts = path.relative_to(_ROOT).parts if path.is_relative_to(_ROOT) else ()
    is_ours = parts == ("auth.py",) or _FOLDERS.intersection(parts[:1])
    if not is_ours or "tenant" in parts[:-1]:
        return None
    return ".".join(parts).removesuffix(".py")


@cache
def _beginning(code: CodeType) -> int:
    """Return where a call is reported; that a coroutine goes on is so elsewhere."""
    steps = dis.get_instructions(code)
    return next(step.offset for step in steps if step.opname == "RESUME")


def _count(calls: Calls, app: Flask, tenant: Tenant, path: str) -> list[Call]:
    """Do a request twice, each time as somebody new; return the calls of the second."""
    for _ in range(2):
        client = app.test_client()
        path_now = _get_ready(client, tenant, path)
        seen = calls.during(partial(get, client, path_now))
    return seen


def _get_ready(client: FlaskClient, tenant: Tenant, path: str) -> str:
    """Do what comes before a request; return its path."""
    usual = tenant.access_token_lifetime
    if path == "/login":
        return path
    if path == "/token":
        tenant.access_token_lifetime = 0
    callback = sign_in(get(client, "/login"))
    if path == "/callback":
        return callback
    get(client, callback)
    tenant.access_token_lifetime = usual
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
