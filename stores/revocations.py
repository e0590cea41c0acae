"""What workers of one machine share, in a SQLite file; see `SharedStore`."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, field
from secrets import token_urlsafe
from typing import Any

from auth0_flask.errors import StoreUnavailable

from .shared import Device, SharedStore, digest

logger = logging.getLogger(__name__)

#: Seconds to wait for another process that writes.
_PATIENCE = 2.0
#: Seconds after which a process reads all anew, and so forgets what has expired.
_RELOAD_SECONDS = 3_600.0
_SCHEMA = (
    # AUTOINCREMENT: the number of a row that was deleted is never used again
    """CREATE TABLE IF NOT EXISTS ended
    (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, at REAL, until REAL)""",
    "CREATE INDEX IF NOT EXISTS ended_until ON ended (until)",
    """CREATE TABLE IF NOT EXISTS taken
    (jti TEXT PRIMARY KEY, until REAL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS taken_until ON taken (until)",
    "CREATE TABLE IF NOT EXISTS identity (inode INTEGER, birth REAL)",
)
_CACHE_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS refreshes
    (key TEXT PRIMARY KEY, owner TEXT, result TEXT, until REAL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS devices (id TEXT PRIMARY KEY, owner TEXT,
    sid TEXT, browser TEXT, created_at REAL, used_at REAL, until REAL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS devices_owner ON devices (owner)",
)
_IDENTITY = "SELECT inode, birth FROM identity"
_ENDED_AFTER = "SELECT number, key, at FROM ended WHERE number > ? AND until > ?"
_END = "INSERT INTO ended (key, at, until) VALUES (?, ?, ?)"
_TAKE = """
    INSERT INTO taken VALUES (?, ?) ON CONFLICT (jti) DO UPDATE
    SET until = excluded.until WHERE until <= ?
"""
_LOCK = """
    INSERT INTO refreshes VALUES (?, ?, NULL, ?) ON CONFLICT (key) DO UPDATE
    SET owner = excluded.owner, result = NULL, until = excluded.until WHERE until <= ?
"""
_UNLOCK = "DELETE FROM refreshes WHERE key = ? AND owner = ?"
_RESULT = "SELECT result FROM refreshes WHERE key = ? AND until > ?"
_REGISTER = """
    INSERT OR REPLACE INTO devices (id, sid, browser, created_at, used_at, until, owner)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_UNREGISTER = "DELETE FROM devices WHERE id = ? AND owner = ?"
_DEVICES = """
    SELECT id, sid, browser, created_at, used_at, until FROM devices
    WHERE owner = ? AND until > ? ORDER BY used_at DESC
"""
_TIDY_CACHE = (
    "DELETE FROM refreshes WHERE until <= ?",
    "DELETE FROM devices WHERE until <= ?",
)
_KEEP_RESULT = "INSERT OR REPLACE INTO refreshes VALUES (?, '', ?, ?)"


#: Tells one state of the file from another: device, inode, time.
_State = tuple[int, int, int]


@dataclass(frozen=True)
class _Snapshot:
    """What a process has read of the file."""

    file: _State
    birth: float  # sessions created before this time are over
    number: int = 0  # of the last row that was read
    times: dict[str, float] = field(default_factory=dict)  # of the ends, by key
    reload_at: float = 0.0  # when to read all anew, on the monotonic clock


class SqliteStore(SharedStore):
    """Shares both among all processes of one machine, in a SQLite file.

    A second one beside it, ``-cache``, has what may be lost in a power cut: locks,
    refresh results and devices. Writing that waits for no disk.

    Each process keeps the ended sessions in memory and reads on when the file's time
    has changed. A connection is opened for each use, so none is ever carried into a
    forked child or into a file that was deleted.
    A file that is deleted or replaced may have known of logouts: sessions older than
    the one that is there now are over.
    """

    remembers = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = os.path.abspath(path)
        self.name = f"the file {self.path}, for one machine; several need Redis"
        self._cache_path = f"{self.path}-cache"
        self._snapshot: _Snapshot | None = None
        self._logged: dict[float, object] = {}
        self._tidied_at = -60.0

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """See `SharedStore.revoke`."""
        with self._ending() as sql:
            if jti is not None:
                taken = sql.execute(_TAKE, (digest(jti), until, time.time()))
                if not taken.rowcount:
                    return False
            sql.executemany(_END, [(digest(key), at, until) for key in keys])
        return True

    def revoked_at(self, keys: Sequence[str]) -> float:
        """See `SharedStore.revoked_at`; never less than the birth of the file."""
        known = self._snapshot
        if known is None or known.file != self._file() or _is_old(known):
            known = self._read(known)
        if not (times := known.times):
            return known.birth
        return max([known.birth, *[times.get(digest(key), 0.0) for key in keys]])

    def check(self) -> None:
        """See `SharedStore.check`."""
        with self._ending() as sql:
            # a page that changes is really written, also on a disk that is full
            sql.execute("UPDATE identity SET birth = birth + 1e-6")
            sql.execute("UPDATE identity SET birth = birth - 1e-6")
        if release := self.lock("check", 1.0):
            release()

    def register(self, owner: str, device: Device) -> None:
        """See `SharedStore.register`."""
        with self._caching() as sql:
            sql.execute(_REGISTER, (*astuple(device), digest(owner)))

    def unregister(self, owner: str, session_ids: Sequence[str]) -> None:
        """See `SharedStore.unregister`."""
        with self._caching() as sql:
            rows = [(session_id, digest(owner)) for session_id in session_ids]
            sql.executemany(_UNREGISTER, rows)

    def devices(self, owner: str) -> list[Device]:
        """See `SharedStore.devices`."""
        with self._caching() as sql:
            rows = sql.execute(_DEVICES, (digest(owner), time.time())).fetchall()
        return [Device(*row) for row in rows]

    def lock(self, key: str, seconds: float) -> Callable[[], object] | None:
        """See `SharedStore.lock`."""
        owner, now, key = token_urlsafe(12), time.time(), f"lock {key}"
        with self._caching() as sql:
            locked = sql.execute(_LOCK, (key, owner, now + seconds, now)).rowcount

        def release() -> None:
            with self._caching() as sql:
                sql.execute(_UNLOCK, (key, owner))

        return release if locked else None

    def result(self, key: str) -> str | None:
        """See `SharedStore.result`."""
        with self._caching() as sql:
            row = sql.execute(_RESULT, (key, time.time())).fetchone()
        return row[0] if row else None

    def keep_result(self, key: str, encrypted: str, seconds: float) -> None:
        """See `SharedStore.keep_result`."""
        with self._caching() as sql:
            sql.execute(_KEEP_RESULT, (key, encrypted, time.time() + seconds))

    def _read(self, previous: _Snapshot | None) -> _Snapshot:
        """Read on, or all anew where that is another file or was long ago."""
        known = previous
        with self._open() as (sql, birth, file):
            if known is None or known.birth != birth or _is_old(known):
                reload_at = time.monotonic() + _RELOAD_SECONDS
                known = _Snapshot(file, birth, reload_at=reload_at)
            rows = sql.execute(_ENDED_AFTER, (known.number, time.time())).fetchall()
        # other threads read the one that is there
        number, times = known.number, dict(known.times) if rows else known.times
        for row, key, at in rows:
            number, times[key] = max(number, row), max(times.get(key, 0.0), at)
        if previous is not None and previous.birth != birth:
            self._log_replaced(birth)
        self._snapshot = _Snapshot(file, birth, number, times, known.reload_at)
        return self._snapshot

    def _log_replaced(self, birth: float) -> None:
        mine = object()
        if self._logged.setdefault(birth, mine) is mine:  # the first thread to notice
            logger.error(
                "%s was deleted or replaced: sessions older than the file that is "
                "there now are over.",
                self.path,
            )

    def _file(self) -> _State | None:
        with suppress(OSError):
            found = os.stat(self.path)
            return found.st_dev, found.st_ino, found.st_mtime_ns
        return None

    @contextmanager
    def _open(self) -> Iterator[tuple[sqlite3.Connection, float, _State]]:
        """Open the file; yield a connection, the file's birth, and its state before."""
        with _connection(self.path) as sql:
            found = os.stat(self.path)
            file = found.st_dev, found.st_ino, found.st_mtime_ns
            birth = _birth(sql, found.st_ino)
            # workers of version 1.0 write a log of their own beside the file, so its
            # time says nothing while they are there
            if os.path.exists(f"{self.path}-wal"):
                file = 0, found.st_ino, 0
                with suppress(sqlite3.OperationalError):
                    sql.execute("PRAGMA journal_mode=DELETE")
            yield sql, birth, file

    @contextmanager
    def _ending(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that a power cut leaves whole; tell other processes."""
        with self._open() as (sql, _, file):
            sql.execute("PRAGMA synchronous=EXTRA")
            with _transaction(sql):
                yield sql
                sql.execute("DELETE FROM ended WHERE until <= ?", (time.time(),))
                sql.execute("DELETE FROM taken WHERE until <= ?", (time.time(),))
            if os.stat(self.path).st_ino != file[1]:
                raise FileNotFoundError("deleted or replaced while it was written to")
            try:  # file systems keep coarse times: two commits may have one time
                now = time.time_ns()
                os.utime(self.path, ns=(now, now))
            except PermissionError:  # the file is another user's
                time.sleep(0.02)  # the kernel's own clock is as coarse
                os.utime(self.path)

    @contextmanager
    def _caching(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction on the second file; what cannot be read is made anew."""
        with _connection(self._cache_path) as sql:
            try:
                sql.execute("PRAGMA synchronous=OFF")
                sql.execute("PRAGMA journal_mode=TRUNCATE")
                with _transaction(sql):
                    is_new = not os.stat(self._cache_path).st_size
                    if is_new or time.monotonic() - self._tidied_at > 60:
                        self._tidied_at = time.monotonic()
                        for statement in _CACHE_SCHEMA:
                            sql.execute(statement)
                        for statement in _TIDY_CACHE:
                            sql.execute(statement, (time.time(),))
                    yield sql
            except sqlite3.DatabaseError as error:
                if type(error) is sqlite3.DatabaseError:  # malformed
                    os.unlink(self._cache_path)
                self._tidied_at = -60.0  # it may be a file without our tables
                raise


class _Connection(sqlite3.Connection):
    """Tries often while others write; SQLite's own waiting starves among many."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                return super().execute(sql, parameters)
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > give_up:
                    raise


@contextmanager
def _connection(path: str) -> Iterator[sqlite3.Connection]:
    """Open a connection.

    Where anything in the block fails, `StoreUnavailable` is raised.
    """
    with _door:
        _inside.append(None)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        opened = sqlite3.connect(
            path, timeout=0.004, isolation_level=None, factory=_Connection
        )
        with closing(opened) as sql:
            if not os.stat(path).st_size:  # SQLite has made it
                with suppress(PermissionError):
                    os.chmod(path, 0o600)  # its journal follows it
            yield sql
    except (sqlite3.Error, OSError) as error:
        where = sqlite3.OperationalError(f"{path}: {error}")
        raise StoreUnavailable("revocations_unavailable", where) from error
    finally:
        _inside.pop()


def _is_old(known: _Snapshot) -> bool:
    return time.monotonic() > known.reload_at


@contextmanager
def _transaction(sql: sqlite3.Connection) -> Iterator[None]:
    sql.execute("BEGIN IMMEDIATE")
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        sql.rollback()
        raise


def _birth(sql: sqlite3.Connection, inode: int) -> float:
    """Return since when the file remembers; make its tables where it is new.

    A file of another inode than it had is a copy, and may lack what was ended after
    it was made.
    """
    with suppress(sqlite3.OperationalError):
        row = sql.execute(_IDENTITY).fetchone()
        if row and row[0] == inode:
            return float(row[1])
    sql.execute("PRAGMA auto_vacuum=FULL")  # before the first table
    with _transaction(sql):
        for statement in _SCHEMA:
            sql.execute(statement)
        row = sql.execute(_IDENTITY).fetchone()
        if row and row[0] == inode:
            return float(row[1])
        birth = time.time()
        if row is None:
            with suppress(sqlite3.OperationalError):  # where version 1.0 made it
                found = sql.execute("SELECT total(at) FROM birth").fetchone()
                birth = float(found[0]) or birth
        sql.execute("DELETE FROM identity")
        sql.execute("INSERT INTO identity VALUES (?, ?)", (inode, birth))
    return birth


# SQLite notes its locks in the process, and a child that is forked while a thread has
# one inherits the note for ever: a fork waits until no connection is open.
_door = threading.Lock()
_inside: deque[None] = deque()


def _before_fork() -> None:
    _door.acquire()
    give_up = time.monotonic() + _PATIENCE
    while _inside and time.monotonic() < give_up:
        time.sleep(0.001)


def _after_fork_in_child() -> None:
    _inside.clear()
    _door.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_door.release,
    after_in_child=_after_fork_in_child,
)
