"""Servers for benchmarks, their settings, and the resources of a process."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

_TIMEOUT = 20.0


class Resources(NamedTuple):
    """The resources of a process; RSS is in MB, and ``files`` includes sockets."""

    rss: float
    threads: int
    sockets: int
    files: int


def resources(pid: int) -> Resources:
    """Return the resources of a process; on Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status, links = dict(line.split(":", 1) for line in lines), list[str]()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(file))
    sockets = sum(link.startswith("socket:") for link in links)
    rss = int(status["VmRSS"].split()[0]) / 1024
    return Resources(rss, int(status["Threads"]), sockets, len(links))


@contextmanager
def set_environment() -> Iterator[None]:
    """Set the app's settings, for a tenant that does not exist and a new folder."""
    for name in [name for name in os.environ if name.startswith("AUTH0_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "AUTH0_DOMAIN": "tenant.eu.auth0.com",
            "AUTH0_CLIENT_ID": "kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA",
            "AUTH0_CLIENT_SECRET": secrets.token_urlsafe(48),
            "AUTH0_SECRET": secrets.token_hex(32),
            "AUTH0_REDIRECT_URI": "http://localhost:5000/callback",
            "AUTH0_REVOCATIONS_PATH": f"{folder}/revocations.sqlite3",
            "PYTHON_DOTENV_DISABLED": "1",
        }
        yield


def program(name: str) -> str | None:
    """Return the path of a program, from this Python's folder or PATH, or None."""
    folder = Path(sys.executable).parent
    return shutil.which(name, path=f"{folder}{os.pathsep}{os.environ['PATH']}")


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: list[str], port: int, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that listens on a port, until the block ends."""
    process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own commands
    try:
        _wait_for(port, b"")
        yield process
    finally:
        process.terminate()
        process.wait(_TIMEOUT)


class RedisServer:
    """A redis-server that keeps its data when it is killed."""

    def __init__(self, stack: ExitStack) -> None:
        self._port = free_port()
        self._folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.switch(True)
        stack.callback(self.switch, False)

    def switch(self, on: bool) -> None:
        """Start it with its earlier data, or kill it."""
        if on:
            options = f"--port {self._port} --bind 127.0.0.1 --save  --logfile log"
            options += " --appendonly yes --appendfsync no"  # fsync is for power cuts
            command = [str(program("redis-server")), *options.split(" ")]
            self._process = subprocess.Popen(command, cwd=self._folder)  # noqa: S603 - our own command
            _wait_for(self._port, b"PING\r\n")
        else:
            self._process.kill()
            self._process.wait()


def redis_client(stack: ExitStack) -> Any:
    """Run a redis-server and return a client, or None if it is not installed."""
    if program("redis-server") is None:
        print("Redis is skipped: redis-server is not installed.\n")
        return None
    from auth0_flask.stores.redis import connect

    return connect(RedisServer(stack).url)


def _wait_for(port: int, command: bytes) -> None:
    """Wait until a server listens, and until it responds if there is a command."""
    deadline, address = time.monotonic() + _TIMEOUT, ("127.0.0.1", port)
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(address, 1) as connection:
            connection.sendall(command)
            if not command or connection.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    raise TimeoutError("a server did not start")
