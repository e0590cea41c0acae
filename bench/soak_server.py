"""The processes of a soak, and what Linux says about the workers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import soak_worker

THREADS = 8
_PATIENCE = 30.0


@dataclass(frozen=True)
class Measure:
    """What one worker takes up."""

    rss: float  # in MB
    threads: int
    sockets: int
    files: int  # sockets among them
    loops: int


class Workers:
    """The app under gunicorn.

    Args:
        process: The master.
        folder: Where workers write their counts.
        log: What they all have said.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path, log: Path
    ) -> None:
        self._process = process
        self._folder = folder
        self._log = log

    def measure(self) -> dict[int, Measure]:
        """Return by its process id what each worker takes up now."""
        return {pid: _measure(pid, self._folder) for pid in self._pids()}

    def said(self) -> str:
        """Return all that was logged until now."""
        return self._log.read_text(errors="replace")

    def _pids(self) -> list[int]:
        master = self._process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return sorted(int(pid) for pid in children.split())


@contextmanager
def serving(
    app: str, workers: int, port: int, environment: Mapping[str, str], folder: Path
) -> Iterator[Workers]:
    """Run the app under gunicorn until the block ends.

    Raises:
        RuntimeError: It did not start.
    """
    command = [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread"),
        *("--workers", str(workers), "--threads", str(THREADS)),
        *("--config", soak_worker.__file__, "--bind", f"127.0.0.1:{port}", app),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # a command of our own
            command,
            cwd=Path(__file__).parents[1],
            env={**environment, soak_worker.FOLDER: str(folder)},
            stdout=output,
            stderr=output,
        )
    try:
        ready = partial(_are_ready, folder, workers)
        _wait(lambda: ready() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"gunicorn ended:\n{log.read_text()}")
        yield Workers(process, folder, log)
    finally:
        process.terminate()
        process.wait(_PATIENCE)


class RedisServer:
    """A redis-server of this run, which keeps all that it was told when it is killed.

    Args:
        folder: For its files.

    Raises:
        FileNotFoundError: There is no redis-server on this machine.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed")
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._command = [
            *(program, "--port", str(self._port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "no"),  # which is for power cuts
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it knew before."""
        self._process = subprocess.Popen(  # noqa: S603  # a command of our own
            self._command, stdout=subprocess.DEVNULL
        )
        _wait(self._says_pong)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _says_pong(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as line:
                line.sendall(b"PING\r\n")
                return line.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _are_ready(folder: Path, workers: int) -> bool:
    return len(list(folder.glob(f"*{soak_worker.READY}"))) >= workers


def _wait(until: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > give_up:
            raise TimeoutError("a server did not start, or a worker does not answer")
        time.sleep(0.02)


def _measure(pid: int, folder: Path) -> Measure:
    loops = _loops(pid, folder)  # first, since it collects garbage
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    links = [_link(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return Measure(
        rss=int(status["VmRSS"].split()[0]) / 1024,
        threads=int(status["Threads"]),
        sockets=sum(link.startswith("socket:") for link in links),
        files=len(links),
        loops=loops,
    )


def _loops(pid: int, folder: Path) -> int:
    file = soak_worker.count_file(folder, pid)
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    _wait(file.exists)
    return int(file.read_text())


def _link(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:
        return ""
