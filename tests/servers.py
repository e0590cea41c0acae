"""Servers in processes of their own, as anybody starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import randbelow
from subprocess import STDOUT
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

from watch import watch

_folder = TemporaryDirectory(prefix="revocations-")  # goes with this process
REVOCATIONS = str(Path(_folder.name, "revocations.sqlite3"))
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

TENANT = [sys.executable, "-m", "auth0_flask.tenant"]
FLASK_RUN = [str(BIN / "flask"), "run", "--port", "{port}"]
GUNICORN = [
    *(str(BIN / "gunicorn"), "--workers", "2", "--threads", "8", "--preload"),
    # a browser of a test has no second try where a connection ends between two requests
    *("--keep-alive", "600"),
    *("--bind", "127.0.0.1:{port}", "app:create_app()"),
]
GRANIAN = [
    *(str(BIN / "granian"), "--interface", "wsgi", "--factory", "app:create_app"),
    *("--workers", "2", "--blocking-threads", "8", "--port", "{port}"),
    *("--workers-kill-timeout", "3"),
]

#: For an app that reads ``.env`` as usual.
WITH_DOTENV = {"PYTHON_DOTENV_DISABLED": "", "FLASK_SKIP_DOTENV": ""}


class Server(NamedTuple):
    """A server process, and the address to browse to."""

    process: subprocess.Popen[bytes]
    site: str


def free_port() -> int:
    """Find a port that nobody listens on, nor is given to connections meanwhile."""
    while True:
        port = 10_000 + randbelow(20_000)  # each process gets others
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this environment with nothing in it that sets up a login."""
    ours = ("AUTH0_", "FLASK", "PYTEST")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(ours)}
    kept |= {"PYTHON_DOTENV_DISABLED": "1", "FLASK_SKIP_DOTENV": "1"}
    return {**kept, "AUTH0_REVOCATIONS_PATH": REVOCATIONS, **more}


@contextmanager
def serving(
    command: list[str], environment: Mapping[str, str], port: int
) -> Iterator[Server]:
    """Run a server until the block ends."""
    words = [word.format(port=port) for word in command]
    env = clean_environment(environment)
    with TemporaryFile("w+") as log:  # a pipe that nobody reads fills up and blocks
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=log, stderr=STDOUT)
        try:
            assert _answers(port, process), log.seek(0) or log.read()
            yield Server(process, f"http://localhost:{port}")
        finally:
            process.terminate()
            process.wait(timeout=40)
            log.seek(0)
            watch.hear_server("what a server said", log.read())


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.05)
    return False


def until(is_so: Callable[[], object]) -> None:
    """Wait for what another thread or process does, and tells nobody."""
    give_up = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def run(
    *command: str | Path, env: Mapping[str, str], cwd: Path = ROOT, status: int = 0
) -> str:
    """Run a program to its end; return what it printed, and then its complaints."""
    place: Any = {"cwd": cwd, "env": clean_environment(env), "timeout": 300}
    ended = subprocess.run(command, **place, capture_output=True, text=True)
    said = str(ended.stdout + ended.stderr)
    assert ended.returncode == status, said
    return said
