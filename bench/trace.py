"""Count the calls of our functions in a request: ``python -m bench.trace [--calls]``.

A call from one of our modules to another is a switch, even through other libraries.
The first call in a task of an event loop has no caller.
"""

from __future__ import annotations

import dis
import os
import sys
import threading
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from flask import Flask

from auth0_flask.tenant import Tenant

from . import subjects
from .logins import get, settings, sign_in
from .processes import set_environment

_ROOT = Path(__file__).resolve().parent.parent
_calls: list[tuple[str, str, bool]] = []  # module, function, whether it is a switch


def main(*options: str) -> None:
    """Print the table; with ``--calls``, print all calls first, switches with "*"."""
    threading.setprofile(_record)  # for threads that start from now on
    sys.setprofile(_record)
    rows = ["| Request | Calls | Modules | Switches |\n|---|--:|--:|--:|"]
    with Tenant() as tenant:
        os.environ |= settings(tenant)
        app = subjects.demo()
        app.add_url_rule("/token", view_func=subjects.token)
        for path in ("/login", "/callback", "/api/me", "/token", "/logout"):
            _trace(app, tenant, path)  # to fill caches
            _trace(app, tenant, path)
            modules = len({module for module, _, _ in _calls})
            switches = sum(is_switch for _, _, is_switch in _calls)
            rows.append(f"| `{path}` | {len(_calls)} | {modules} | {switches} |")
            for module, function, is_switch in _calls if "--calls" in options else []:
                print(f"{path} {' *'[is_switch]} {module}: {function}")
    print(*rows, sep="\n")


def _trace(app: Flask, tenant: Tenant, path: str) -> None:
    """Record the calls of a request by a new user, after the requests it needs."""
    client, lifetime = app.test_client(), tenant.access_token_lifetime
    if path != "/login":
        tenant.access_token_lifetime = 0 if path == "/token" else lifetime
        callback = sign_in(get(client, "/login"))
        if path == "/callback":
            path = callback
        else:
            get(client, callback)
            get(client, "/api/me")  # the first request after a login does more
        tenant.access_token_lifetime = lifetime
    _calls.clear()
    get(client, path)


def _record(frame: FrameType, event: str, _: Any) -> None:
    code, caller = frame.f_code, frame.f_back
    # A coroutine that resumes is a "call" event, too, but not at the first offset.
    if event == "call" and _module(code) and frame.f_lasti == _first_offset(code):
        while caller and not _module(caller.f_code):
            caller = caller.f_back
        source = _module(caller.f_code) if caller else _module(code)
        _calls.append((_module(code), code.co_qualname, source != _module(code)))


@cache
def _module(code: CodeType) -> str:
    """Return our module that defines a function, or "" if it is not counted."""
    path = Path(code.co_filename).resolve()  # auth0_flask/stores is a link
    parts = path.relative_to(_ROOT).parts if path.is_relative_to(_ROOT) else ("",)
    is_ours = parts[0] in {"auth.py", "auth0_flask", "stores"} and "tenant" not in parts
    name = ".".join(parts).removesuffix(".py")
    return name if is_ours and not code.co_name.startswith("<") else ""


@cache
def _first_offset(code: CodeType) -> int:
    steps = dis.get_instructions(code)
    return next(step.offset for step in steps if step.opname == "RESUME")


if __name__ == "__main__":
    with set_environment():
        main(*sys.argv[1:])
