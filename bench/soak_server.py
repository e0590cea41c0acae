"""The processes of a soak, and what its workers take up.

A worker imports this, too: gunicorn takes it for its configuration.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import free_port, program

THREADS = 8
# Seconds that a worker keeps an idle connection open: far longer than the users do,
# or on a busy machine a request could arrive just as it closes.
_KEPT_ALIVE = 60
_PATIENCE = 30.0
_FOLDER = "SOAK_COUNTS"  # in the environment: where workers write their counts


@dataclass(frozen=True)
class Measure:
    """What one worker takes up."""

    rss: float  # in MB
    threads: int
    sockets: int
    files: int  # sockets among them
    loops: int
    objects: int  # in thousands


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
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            _gunicorn(app, workers, port),
            cwd=Path(__file__).parents[1],
            env={**environment, _FOLDER: str(folder)},
            stdout=output,
            stderr=output,
        )
    try:
        _wait(lambda: _are_ready(folder, workers) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"gunicorn ended:\n{log.read_text()}")
        yield Workers(process, folder, log)
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _gunicorn(app: str, workers: int, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread"),
        *("--workers", str(workers), "--threads", str(THREADS), "--no-control-socket"),
        *("--keep-alive", str(_KEPT_ALIVE), "--config", f"python:{__name__}"),
        *("--bind", f"127.0.0.1:{port}", app),
    ]


class RedisServer:
    """A redis-server of this run, which keeps all that it was told when it is killed.

    Args:
        folder: For its files.

    Raises:
        FileNotFoundError: There is no redis-server on this machine.
    """

    def __init__(self, folder: Path) -> None:
        server = program("redis-server")
        if server is None:
            raise FileNotFoundError("redis-server is not installed")
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._command = [
            *(server, "--port", str(self._port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "no"),  # which is for power cuts
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it knew before."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command
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


def post_worker_init(_: Any) -> None:
    """Say that this worker is ready, and count when asked; called by gunicorn."""
    signal.signal(signal.SIGUSR2, _write_counts)
    _write_counts()


def _write_counts(*_: object) -> None:
    gc.collect()
    kinds = [type(o) for o in gc.get_objects()]  # asking a proxy would ask for more
    loops = sum(issubclass(kind, asyncio.AbstractEventLoop) for kind in kinds)
    file = _counts_of(os.getpid(), Path(os.environ[_FOLDER]))
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"loops": loops, "objects": len(kinds) // 1000}))
    unfinished.replace(file)


def _counts_of(pid: int, folder: Path) -> Path:
    return folder / f"{pid}.counts"


def _are_ready(folder: Path, workers: int) -> bool:
    return len(list(folder.glob("*.counts"))) >= workers


def _wait(until: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > give_up:
            raise TimeoutError("a server did not start, or a worker does not answer")
        time.sleep(0.02)


def _measure(pid: int, folder: Path) -> Measure:
    counts = _counts_now(pid, folder)  # first, since it collects garbage
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    links = [_link(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return Measure(
        rss=int(status["VmRSS"].split()[0]) / 1024,
        threads=int(status["Threads"]),
        sockets=sum(link.startswith("socket:") for link in links),
        files=len(links),
        **counts,
    )


def _counts_now(pid: int, folder: Path) -> dict[str, int]:
    file = _counts_of(pid, folder)
    file.unlink()
    os.kill(pid, signal.SIGUSR2)
    _wait(file.exists)
    counts: dict[str, int] = json.loads(file.read_text())
    return counts


def _link(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:
        return ""
