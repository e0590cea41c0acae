"""A SQLite file for many threads and processes, that may be deleted under them."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Connections kept idle at most; more are closed when they come back.
MOST_IDLE = 16
#: Seconds to wait for somebody else's lock.
_PATIENCE = 1.0
#: Seconds for which a fork waits for the uses that are under way.
_FORK_PATIENCE = 5.0


class _File(NamedTuple):
    """What tells one file from another; inodes are given out again."""

    inode: tuple[int, int] | None  # with its device
    birth: float


class _Opened(NamedTuple):
    connection: sqlite3.Connection
    file: _File
    takes_writes: bool


class SqliteFile:
    """A file that is made, opened and watched, and connections to it.

    Args:
        path: Where; it and its folder are made at the first use.
        tables: What belongs into it: names, and the statements that make them.
        lost: A sentence for the log that says what a file that was deleted took along.
    """

    def __init__(
        self, path: str | os.PathLike[str], tables: Mapping[str, str], *, lost: str
    ) -> None:
        self._lost = lost
        self.path = os.path.abspath(path)
        self._tables = tables
        self._file: _File | None = None
        self._log: tuple[int, int] | None = None  # its inode, while we keep it open
        self._idle: deque[_Opened] = deque()
        weakref.finalize(self, _close_all, self._idle)
        with _door:
            _files.add(self)

    def use(self, work: Callable[[sqlite3.Connection, float], T]) -> T:
        """Do something with a connection that nobody else has.

        Args:
            work: Is given a connection in autocommit mode and the birth of the file,
                in seconds since 1970. What it leaves undone is undone if it raises.

        Raises:
            sqlite3.Error: It cannot be used, or stayed locked for a second.
            OSError: Likewise.
        """
        with _door:
            _inside.append(self)
        try:
            opened = self._take()
            try:
                answer = work(opened.connection, opened.file.birth)
            except BaseException:
                opened.connection.close()
                raise
            self._put_back(opened)
            return answer
        except (sqlite3.Error, OSError):
            self.close_idle()  # they may know the file as it was before a cure
            raise
        finally:
            _inside.pop()

    def inode(self) -> tuple[int, int] | None:
        """Return what tells one file from another, with its device; None for none."""
        with suppress(OSError):
            return _inode(self.path)
        return None

    def close_idle(self) -> None:
        """Close what is not in use; what is wanted later is opened anew."""
        _close_all(self._idle)
        self._log = None

    def _take(self) -> _Opened:
        if self._file and self._file.inode == _inode(self.path):
            with suppress(IndexError):
                return self._idle.pop()
        return self._open()

    def _put_back(self, opened: _Opened) -> None:
        is_good = opened.takes_writes and opened.file == self._file
        if is_good and len(self._idle) < MOST_IDLE:
            self._idle.append(opened)
        else:
            opened.connection.close()

    def _open(self) -> _Opened:
        """Open one more connection, to a file made anew if there is none."""
        target = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with _alone(os.path.dirname(target)):
            known, found = self._file, _inode(target)
            is_other = known is not None and known.inode != found
            _clear_away(target, self._log if is_other else None)
            inode = _inode(target)
            connection, birth, takes_writes = _connect(target, self._tables)
            if inode is None or inode != _inode(target):
                connection.close()
                raise FileNotFoundError("deleted or replaced while it was opened")
            file = _File(inode, birth)
            if was_replaced := self._file not in (None, file):
                self.close_idle()
            self._file, self._log = file, _inode(f"{target}-wal")
        if was_replaced:  # said outside: a log may ask who is signed in
            logger.error(
                "%s was deleted or replaced under the running app. %s",
                self.path,
                self._lost,
            )
        return _Opened(connection, file, takes_writes)


def begin(connection: sqlite3.Connection) -> None:
    """Begin to write, as soon as nobody else does.

    SQLite's own waiting tries ten times a second, and never gets in among many.

    Raises:
        sqlite3.OperationalError: Others wrote for a second, or it cannot be written.
    """
    give_up = time.monotonic() + _PATIENCE
    connection.execute("PRAGMA busy_timeout=4")  # milliseconds
    while not connection.in_transaction:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up:
                raise
    connection.execute(f"PRAGMA busy_timeout={_PATIENCE * 1000:.0f}")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keep other processes and threads out while a file is made or opened."""
    held = os.open(folder, os.O_RDONLY)
    give_up = time.monotonic() + _PATIENCE
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > give_up:
                raise TimeoutError("another process keeps the folder locked")
            time.sleep(0.002)
        yield
    finally:
        os.close(held)


def _clear_away(target: str, old_log: tuple[int, int] | None) -> None:
    """Make an empty file if there is none, without what another one left behind.

    SQLite would take its log for the new file's.
    """
    is_new = not os.path.exists(target) or not os.path.getsize(target)
    if is_new or (old_log and old_log == _inode(f"{target}-wal")):
        for ending in ("-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.remove(target + ending)
    if is_new:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT, 0o600))


def _connect(
    target: str, tables: Mapping[str, str]
) -> tuple[sqlite3.Connection, float, bool]:
    """Return a connection, the file's birth, and whether it takes writes."""
    uri, folder = Path(target).as_uri(), os.path.dirname(target)
    takes_writes = os.access(target, os.W_OK) and os.access(folder, os.W_OK)
    if takes_writes or os.path.exists(f"{target}-wal"):
        return *_prepared(f"{uri}?mode=rw", tables), takes_writes
    # nobody writes; a log made now would be read-only, too, and outlast the cure
    return *_prepared(f"{uri}?mode=ro&immutable=1", tables), False


def _prepared(uri: str, tables: Mapping[str, str]) -> tuple[sqlite3.Connection, float]:
    connection = sqlite3.connect(
        uri, _PATIENCE, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        if not _is_made(connection, tables):
            _make(connection, tables)
        connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL would be enough for a process that is killed; a power cut could then
        # bring back whoever signed out in the last half minute (0.1 against 0.3 ms)
        connection.execute("PRAGMA synchronous=FULL")
        birth: float = connection.execute("SELECT total(at) FROM birth").fetchone()[0]
    except BaseException:
        connection.close()
        raise
    return connection, birth


def _make(connection: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    connection.execute("PRAGMA auto_vacuum=FULL")
    begin(connection)
    with connection:
        if not _is_made(connection, tables):
            for statement in tables.values():
                connection.execute(statement)
            connection.execute("CREATE TABLE IF NOT EXISTS birth (at REAL)")
            connection.execute("DELETE FROM birth")  # that of an older layout
            connection.execute("INSERT INTO birth VALUES (?)", (time.time(),))


def _is_made(connection: sqlite3.Connection, tables: Mapping[str, str]) -> bool:
    found = connection.execute("SELECT name FROM sqlite_master").fetchall()
    return {*tables, "birth"} <= {name for (name,) in found}


def _close_all(idle: deque[_Opened]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().connection.close()


# SQLite's locks are of no use in a child that was forked in the middle of something.
# So a fork waits until nobody uses a connection, and idle ones are closed before it.
_door = threading.Lock()
_inside: deque[SqliteFile] = deque()
_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


def _before_fork() -> None:
    _door.acquire()
    give_up = time.monotonic() + _FORK_PATIENCE
    while _inside and time.monotonic() < give_up:
        time.sleep(0.001)
    for file in _files:
        file.close_idle()


def _after_fork_in_child() -> None:
    _inside.clear()
    _door.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_door.release,
    after_in_child=_after_fork_in_child,
)
