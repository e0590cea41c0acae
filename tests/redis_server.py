"""A real redis-server, that tests may kill and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from servers import free_port
from services import path_of

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """A redis-server on loopback, with its files in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._program = path_of("redis-server")
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start it, on what it wrote before."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--save", "", *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 20
        while not self._says_pong():
            assert time.monotonic() < give_up, "redis-server did not start"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Let it go on listening, and answer nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def say(self, command: str) -> bytes:
        """Send a command; return the first of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            line.sendall(f"{command}\r\n".encode())
            return line.recv(4096)

    def _says_pong(self) -> bool:
        try:
            return self.say("PING").startswith(b"+PONG")
        except OSError:
            return False
