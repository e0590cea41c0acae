"""Processes that a measurement needs: servers, and what they are told by."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 20.0


@contextmanager
def set_environment() -> Iterator[None]:
    """Have settings that reach no tenant, and files of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith("AUTH0_")]:
            del os.environ[name]
        os.environ |= {
            "AUTH0_DOMAIN": "tenant.eu.auth0.com",
            "AUTH0_CLIENT_ID": "kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA",
            "AUTH0_CLIENT_SECRET": secrets.token_urlsafe(48),
            "AUTH0_SECRET": secrets.token_hex(32),
            "AUTH0_REDIRECT_URI": "http://localhost:5000/callback",
            "AUTH0_REVOCATIONS_PATH": str(Path(folder, "revocations.sqlite3")),
            "PYTHON_DOTENV_DISABLED": "1",
        }
        yield


def program(name: str) -> str | None:
    """Return the path of a program beside this Python, or anywhere; None for none."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], port: int, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends.

    Args:
        command: How it is started.
        port: Where it listens once it is ready.
        more: What is added to the environment.

    Raises:
        TimeoutError: It did not listen soon.
    """
    process = subprocess.Popen(command, env={**os.environ, **(more or {})})  # noqa: S603 - our own commands
    try:
        _wait_for(port)
        yield process
    finally:
        process.terminate()
        process.wait(_PATIENCE)


@contextmanager
def redis() -> Iterator[str | None]:
    """Run a redis-server; yield its address, or None where there is no program."""
    server = program("redis-server")
    if server is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", folder)
        quiet = ("--save", "", "--logfile", "redis.log")
        with running([server, *where, *quiet], port):
            yield f"redis://127.0.0.1:{port}/0"


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > give_up:
                raise TimeoutError("a server did not start") from None
            time.sleep(0.05)
        else:
            return
