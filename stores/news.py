"""A word in a file, by which processes of one machine tell each other of news."""

from __future__ import annotations

import mmap
import os
import secrets
from contextlib import suppress

_BYTES = 16


class News:
    """Says whether anything has changed since it was last asked, for next to nothing.

    The file is mapped into memory, so that asking is no call of the system: around
    one, Python would hand its lock to another thread.

    Args:
        path: The file, made by `open`; it may be deleted.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._inode: tuple[int, int] | None = None

    def word(self) -> bytes | None:
        """Return what every `change` changes; None where that cannot be known."""
        return self._map[:] if self._map else None

    def change(self) -> None:
        """Tell everybody."""
        self.open()
        if self._map:
            self._map[:] = secrets.token_bytes(_BYTES)

    def open(self) -> None:
        """Find the file that is there now, or make one; do nothing if that fails."""
        with suppress(OSError):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._take(file)
            finally:
                os.close(file)

    def _take(self, file: int) -> None:
        found = os.fstat(file)
        inode = found.st_dev, found.st_ino
        if inode == self._inode:
            return
        if found.st_size != _BYTES:  # written, lest the disk be full when it is used
            os.pwrite(file, bytes(_BYTES), 0)
        self._map = mmap.mmap(file, _BYTES)
        self._inode = inode
