"""Run an app without an Auth0 account: ``python -m auth0_flask.tenant``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click
from flask.cli import ScriptInfo, load_dotenv
from flask.helpers import get_load_dotenv
from werkzeug.serving import WSGIRequestHandler

from .server import HOST, serve_on
from .tenant import Tenant

_NO_APP = (
    "There is no app.py in this folder. Run this in the folder of your app.py, or give "
    "a command that runs your app: python -m auth0_flask.tenant flask --app NAME run"
)
_HELP = (
    "Run an app with a local stand-in for an Auth0 tenant. No Auth0 account is needed. "
    "Without a command, this runs the app.py of this folder. A command gets the "
    "settings, such as AUTH0_DOMAIN, as environment variables. AUTH0_REDIRECT_URI is "
    "kept if it is set; otherwise it is http://localhost:5000/callback."
)

_Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


def main() -> int:
    """Serve the app, or run the given command; return the exit code."""
    name, usage = "python -m auth0_flask.tenant", "%(prog)s [-h] [COMMAND ARG ...]"
    parser = argparse.ArgumentParser(prog=name, usage=usage, description=_HELP)
    what = "a program to run: flask run, gunicorn app:app, ..."
    options: dict[str, Any] = {"nargs": argparse.REMAINDER, "metavar": "COMMAND ARG"}
    parser.add_argument("command", help=what, **options)
    command = parser.parse_args().command
    try:
        return run_command(command) if command else serve_app()
    except KeyboardInterrupt:
        return 130 if command else 0
    except click.ClickException as error:
        error.show()
    except ModuleNotFoundError as error:
        if error.name != "trustme":
            raise
        print(error, file=sys.stderr)
    return 1


def serve_app() -> int:
    """Serve this folder's ``app.py`` with a tenant until interrupted."""
    if not Path("app.py").is_file():
        raise click.ClickException(_NO_APP)
    _on_signals(signal.default_int_handler)
    with Tenant() as tenant:
        # The app reads AUTH0_REDIRECT_URI on import, so the port is chosen first.
        url = f"http://localhost:{(port := _free_port())}"
        os.environ.update(tenant.environ(f"{url}/callback"))
        if get_load_dotenv():  # as "flask run" does; it overrides no variable
            load_dotenv()
        server = serve_on(port, ScriptInfo("app.py").load_app(), _QuietHandler)
        print(f"Open {url} and sign in as anybody. Press Ctrl+C to stop.")
        print(_furnish(tenant), flush=True)
        server.serve_forever(poll_interval=0.1)
        _on_signals(signal.SIG_IGN)  # a second Ctrl+C would print a traceback
    return 0


def run_command(command: Sequence[str]) -> int:
    """Run a program with a tenant's settings; return its exit code."""
    with Tenant() as tenant:
        print(_furnish(tenant), file=sys.stderr)  # the other is the program's own
        settings = tenant.environ(os.environ.get("AUTH0_REDIRECT_URI"))
        # Find the programs of this virtual environment first, even if not activated.
        path = [os.path.dirname(sys.executable), *os.get_exec_path()]
        environment = {**os.environ, "PATH": os.pathsep.join(path), **settings}
        try:
            child = subprocess.Popen(command, env=environment)  # noqa: S603  # the user's command
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126

        def forward(number: int, _: FrameType | None) -> None:
            # In the foreground, the terminal has sent Ctrl+C to the child already.
            if not (number == signal.SIGINT and _in_foreground()):
                child.send_signal(number)

        _on_signals(forward)
        code = child.wait()
    return code if code >= 0 else 128 - code  # ended by a signal, as in shells


def _furnish(tenant: Tenant) -> str:
    """Add what the README's examples need; return where to look in the tenant."""
    tenant.change_user("alice", roles=["admin"])
    tenant.add_organization("acme")
    session = f"Session at the stand-in for Auth0: {tenant.origin}/u/session"
    return f"{session}\nMessages and one-time codes: {tenant.origin}/u/inbox"


def _free_port() -> int:
    for port in (*range(5000, 5100), 0):
        if port and _answers_on_ipv6(port):
            continue
        with suppress(OSError), socket.create_server((HOST, port)) as free:
            return int(free.getsockname()[1])
    raise click.ClickException("There is no free port.")


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do not log requests."""


def _answers_on_ipv6(port: int) -> bool:
    # Browsers try ::1 first for "localhost": macOS has a service on [::1]:5000.
    try:
        with socket.create_connection(("::1", port), timeout=0.2):
            return True
    except OSError:
        return False


def _on_signals(handler: _Handler) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
