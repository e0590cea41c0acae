"""A configuration of gunicorn: a worker that is sent SIGUSR2 counts its event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import Any

#: Names the folder to write to, in the environment.
FOLDER = "SOAK_COUNTS"
#: How the name of a file ends that says that a worker takes requests.
READY = ".ready"


def post_worker_init(_: Any) -> None:
    """Wait for the signal, with the app loaded; called by gunicorn in each worker."""
    signal.signal(signal.SIGUSR2, _count)
    Path(os.environ[FOLDER], f"{os.getpid()}{READY}").touch()


def count_file(folder: Path, pid: int) -> Path:
    """Return where a worker writes to."""
    return folder / f"{pid}.loops"


def _count(*_: object) -> None:
    gc.collect()
    # not isinstance, which asks proxies what they stand for
    loops = sum(
        issubclass(type(o), asyncio.AbstractEventLoop) for o in gc.get_objects()
    )
    file = count_file(Path(os.environ[FOLDER]), os.getpid())
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(str(loops))
    unfinished.replace(file)
