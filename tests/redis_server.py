"""A real redis-server, that tests may kill and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from servers import free_port
from services import path_of

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """A redis-server on loopback, with its files in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._process: subprocess.Popen[bytes]
        self.port = free_port()
        self._command = [
            *(path_of("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", *options),
        ]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start it, on what it wrote before."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            with suppress(OSError):
                if self.say("PING").startswith(b"+PONG"):
                    return self
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Let it go on listening, and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def say(self, command: str) -> bytes:
        """Send a command; return the first of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            line.sendall(f"{command}\r\n".encode())
            return line.recv(4096)
