"""Try an app without an Auth0 account: ``python -m auth0_flask.tenant``."""

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
    "There is no app.py in this folder. Run this in the folder of your app.py, or add "
    "your app's own command: python -m auth0_flask.tenant flask --app NAME run"
)
_HELP = (
    "Run an app with a local stand-in for an Auth0 tenant, which needs no Auth0 "
    "account. Without a command, the app is the app.py of this folder. A command gets "
    "AUTH0_DOMAIN and the other settings in its environment. AUTH0_REDIRECT_URI stays "
    "as it is set; otherwise it is http://localhost:5000/callback."
)


def main() -> int:
    """Serve the app, or run the command given; return the exit code."""
    name, usage = "python -m auth0_flask.tenant", "%(prog)s [-h] [COMMAND ARG ...]"
    parser = argparse.ArgumentParser(prog=name, usage=usage, description=_HELP)
    shown: dict[str, Any] = {"nargs": argparse.REMAINDER, "metavar": "COMMAND ARG"}
    about = "a program to run: flask run, gunicorn app:app, ..."
    parser.add_argument("command", help=about, **shown)
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
    """Serve this folder's ``app.py`` with a tenant, until interrupted."""
    if not Path("app.py").is_file():
        raise click.ClickException(_NO_APP)
    _on_signals(signal.default_int_handler)
    with Tenant() as tenant:
        # The app reads its own address when it is imported, so the port comes first.
        url = f"http://localhost:{(port := _free_port())}"
        os.environ.update(tenant.environ(f"{url}/callback"))
        if get_load_dotenv():  # as "flask run" does; what is set already stays
            load_dotenv()
        server = serve_on(port, ScriptInfo("app.py").load_app(), _QuietHandler)
        print(f"Open {url} and sign in as anybody. Press Ctrl+C to stop.")
        print(
            "The local tenant stands in for Auth0. Who is signed in there, and what it "
            f"has sent:\n{tenant.origin}/u/session\n{tenant.origin}/u/inbox",
            flush=True,
        )
        server.serve_forever(poll_interval=0.1)
        # A second Ctrl+C, from somebody impatient, would leave a traceback.
        _on_signals(signal.SIG_IGN)
    return 0


def run_command(command: Sequence[str]) -> int:
    """Run a program with a tenant and its variables; return the exit code."""
    with Tenant() as tenant:
        given = os.environ.get("AUTH0_REDIRECT_URI")
        settings = tenant.environ(given) if given else tenant.environ()
        # programs of this environment first, whether or not it is activated
        path = [os.path.dirname(sys.executable), *os.get_exec_path()]
        environment = {**os.environ, "PATH": os.pathsep.join(path), **settings}
        try:
            child = subprocess.Popen(command, env=environment)  # noqa: S603  # as asked
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126

        def pass_on(number: int, _: FrameType | None) -> None:
            # The terminal sends Ctrl+C to the child as well: once is enough.
            if not (number == signal.SIGINT and _in_foreground()):
                child.send_signal(number)

        _on_signals(pass_on)
        code = child.wait()
    return code if code >= 0 else 128 - code  # as shells tell of a signal


def _free_port() -> int:
    for port in (*range(5000, 5100), 0):
        if port and _answers_on_ipv6(port):
            continue
        with suppress(OSError), socket.create_server((HOST, port)) as free:
            return int(free.getsockname()[1])
    raise click.ClickException("There is no free port.")


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: no line on the terminal for each request."""


def _answers_on_ipv6(port: int) -> bool:
    # "localhost" leads a browser there first: macOS has a service on [::1]:5000.
    try:
        with socket.create_connection(("::1", port), timeout=0.2):
            return True
    except OSError:
        return False


def _on_signals(
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
