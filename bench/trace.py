"""How many calls of ours a request takes; ``python -m bench.trace [--calls]``.

A call from a module of ours into another one is a switch, whatever code of others
lies between. A task of an event loop begins with no caller.
"""

from __future__ import annotations

import dis
import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from flask import Flask

from auth0_flask.tenant import Tenant

from . import subjects
from .logins import get, settings, sign_in
from .processes import set_environment

_ROOT = Path(__file__).resolve().parent.parent
_PATHS = ("/login", "/callback", "/api/me", "/token", "/logout")


class Call(NamedTuple):
    """A call of ours, and the modules of those that led there, the nearest first."""

    module: str
    function: str
    callers: tuple[str, ...]

    @property
    def is_switch(self) -> bool:
        """Whether it came from another module of ours."""
        return self.callers[:1] not in {(), (self.module,)}


def main(*options: str) -> None:
    """Print the table; with ``--calls``, before it all calls, switches marked."""
    calls: list[Call] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_call = event == "call" and frame.f_lasti == _beginning(code)
        if is_call and (module := _module(code)):
            calls.append(Call(module, code.co_qualname, tuple(_callers(frame))))

    threading.setprofile(note)  # in threads that are yet to start
    sys.setprofile(note)
    rows = ["| Request | Calls | Modules | Switches |\n|---|--:|--:|--:|"]
    with Tenant() as tenant:
        os.environ |= settings(tenant)
        app = subjects.demo()
        app.add_url_rule("/token", view_func=subjects.token)
        for path in _PATHS:
            _count(app, tenant, path, calls)  # once, to fill caches
            seen = _count(app, tenant, path, calls)
            modules, switches = {c.module for c in seen}, sum(c.is_switch for c in seen)
            rows.append(f"| `{path}` | {len(seen)} | {len(modules)} | {switches} |")
            for call in seen if "--calls" in options else ():
                indent = "  " * len(call.callers)
                print(f"{' *'[call.is_switch]} {indent}{call.module}: {call.function}")
    print(*rows, sep="\n")


def _count(app: Flask, tenant: Tenant, path: str, calls: list[Call]) -> list[Call]:
    """Return the calls of a request of somebody new, who did what comes before it."""
    client, address = app.test_client(), path
    usual = tenant.access_token_lifetime
    if path != "/login":
        tenant.access_token_lifetime = 0 if path == "/token" else usual
        callback = sign_in(get(client, "/login"))
        address = callback if path == "/callback" else path
        if path != "/callback":
            get(client, callback)
        tenant.access_token_lifetime = usual
    calls.clear()
    get(client, address)
    return [*calls]


def _callers(frame: FrameType | None) -> Iterator[str]:
    while frame := frame and frame.f_back:
        if module := _module(frame.f_code):
            yield module


@cache
def _module(code: CodeType) -> str:
    """Name the module of ours that a function is of; "" for what is not counted."""
    path = Path(code.co_filename).resolve()  # stores/ may be reached by a link
    parts = path.relative_to(_ROOT).parts if path.is_relative_to(_ROOT) else ("",)
    is_ours = parts[0] in {"auth.py", "auth0_flask", "stores"} and "tenant" not in parts
    name = ".".join(parts).removesuffix(".py")
    return name if is_ours and not code.co_name.startswith("<") else ""


@cache
def _beginning(code: CodeType) -> int:
    """Return where a call is reported; that a coroutine goes on is so elsewhere."""
    steps = dis.get_instructions(code)
    return next(step.offset for step in steps if step.opname == "RESUME")


if __name__ == "__main__":
    with set_environment():
        main(*sys.argv[1:])
