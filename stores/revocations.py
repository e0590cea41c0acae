"""What workers of one machine share, in a SQLite file; see `SharedStore`."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from secrets import token_urlsafe
from typing import Any, TypeVar

from auth0_flask.errors import StoreUnavailable

from .shared import Device, SharedStore, digest

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Seconds to wait for another process that writes.
_PATIENCE = 5.0
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
_CACHE_UPKEEP = (
    """CREATE TABLE IF NOT EXISTS refreshes
    (key TEXT PRIMARY KEY, owner TEXT, result TEXT, until REAL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS devices (id TEXT PRIMARY KEY, owner TEXT,
    sid TEXT, browser TEXT, created_at REAL, used_at REAL, until REAL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS devices_owner ON devices (owner)",
    "DELETE FROM refreshes WHERE until <= :now",
    "DELETE FROM devices WHERE until <= :now",
)
_TIDY = ("DELETE FROM ended WHERE until <= ?", "DELETE FROM taken WHERE until <= ?")
_IDENTITY = "SELECT inode, birth FROM identity"
_ENDED_AFTER = "SELECT number, key, at FROM ended WHERE number > ? AND until > ?"
_END = "INSERT INTO ended (key, at, until) VALUES (?, ?, ?)"
_TAKE = "INSERT OR IGNORE INTO taken VALUES (?, ?)"
_LOCK = """
    INSERT INTO refreshes VALUES (?, ?, NULL, ?) ON CONFLICT (key) DO UPDATE
    SET owner = excluded.owner, result = NULL, until = excluded.until WHERE until <= ?
"""
_KEEP_RESULT = "INSERT OR REPLACE INTO refreshes VALUES (?, '', ?, ?)"
_UNLOCK = "DELETE FROM refreshes WHERE key = ? AND owner = ?"
_RESULT = "SELECT result FROM refreshes WHERE key = ? AND until > ?"
_REGISTER = "INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?)"
_UNREGISTER = """
    DELETE FROM devices WHERE owner = ? AND id IN (SELECT value FROM json_each(?))
"""
_DEVICES = """
    SELECT id, sid, browser, created_at, used_at, until FROM devices
    WHERE owner = ? AND until > ? ORDER BY used_at DESC
"""

#: Tells one state of the file from another: device, inode, time.
_State = tuple[int, int, int]
_Row = tuple[str | float, ...]
_Rows = Sequence[_Row]


@dataclass(frozen=True)
class _Snapshot:
    """What a process has read of the file."""

    file: _State
    birth: float  # sessions created before this time are over
    number: int = 0  # of the last row that was read
    times: dict[str, float] = field(default_factory=dict)  # of the ends, by key
    reload_at: float = 0.0  # when to read all anew, on the monotonic clock


class SqliteStore(SharedStore):
    """Shares revocations and refresh results among processes, in a SQLite file.

    A second file beside it, ``-cache``, holds what may be lost in a power cut, or when
    a process is killed while it writes: locks, refresh results and devices. Writes to
    it do not wait for the disk.

    Each process keeps the revocations in memory, and reads the new ones when the
    modification time of the file changes.
    A file that was deleted or replaced may have held logouts: sessions older than the
    present file are over.
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
        taken = None if jti is None else (digest(jti), until)
        return self._write(_END, [(digest(key), at, until) for key in keys], taken)

    def revoked_at(self, keys: Sequence[str]) -> float:
        """See `SharedStore.revoked_at`; never less than the birth of the file."""
        known, file = self._snapshot, None
        with suppress(OSError):
            found = os.stat(self.path)
            file = found.st_dev, found.st_ino, found.st_mtime_ns
        if known is None or known.file != file or time.monotonic() > known.reload_at:
            known = self._read(known)
        if not (times := known.times):
            return known.birth
        return max([known.birth, *[times.get(digest(key), 0.0) for key in keys]])

    def check(self) -> None:
        """See `SharedStore.check`."""
        # a page that changes is really written, also on a disk that is full
        self._write("UPDATE identity SET birth = birth + ?", [(1e-6,), (-1e-6,)])
        if release := self.lock("check", 1.0):
            release()

    def register(self, owner: str, device: Device) -> None:
        """See `SharedStore.register`."""
        self._cache(_REGISTER, device.id, digest(owner), *astuple(device)[1:])

    def unregister(self, owner: str, session_ids: Sequence[str]) -> None:
        """See `SharedStore.unregister`."""
        self._cache(_UNREGISTER, digest(owner), json.dumps(session_ids))

    def devices(self, owner: str) -> list[Device]:
        """See `SharedStore.devices`."""
        rows, _ = self._cache(_DEVICES, digest(owner), time.time())
        return [Device(*row) for row in rows]

    def lock(self, key: str, seconds: float) -> Callable[[], object] | None:
        """See `SharedStore.lock`."""
        owner, now = token_urlsafe(12), time.time()
        _, locked = self._cache(_LOCK, key, owner, now + seconds, now)
        return partial(self._cache, _UNLOCK, key, owner) if locked else None

    def result(self, key: str) -> str | None:
        """See `SharedStore.result`."""
        rows, _ = self._cache(_RESULT, key, time.time())
        return rows[0][0] if rows else None

    def keep_result(self, key: str, encrypted: str, seconds: float) -> None:
        """See `SharedStore.keep_result`."""
        self._cache(_KEEP_RESULT, key, encrypted, time.time() + seconds)

    def _read(self, previous: _Snapshot | None) -> _Snapshot:
        """Read new rows; or all, of another file or after a long time."""

        def read(sql: sqlite3.Connection) -> _Snapshot:
            known, (birth, file) = previous, _identify(sql, self.path)
            now = time.monotonic()
            if known is None or known.birth != birth or now > known.reload_at:
                known = _Snapshot(file, birth, reload_at=now + _RELOAD_SECONDS)
            rows = sql.execute(_ENDED_AFTER, (known.number, time.time())).fetchall()
            # other threads read the one that is there
            number, times = known.number, dict(known.times) if rows else known.times
            for row, key, at in rows:
                number, times[key] = max(number, row), max(times.get(key, 0.0), at)
            return replace(known, file=file, number=number, times=times)

        self._snapshot = found = _use(self.path, read)
        if previous is not None and previous.birth != found.birth:
            mine = object()
            if self._logged.setdefault(found.birth, mine) is mine:  # the first thread
                logger.error(
                    "%s was deleted or replaced: all sessions older than the new file "
                    "have ended.",
                    self.path,
                )
        return found

    def _write(self, statement: str, rows: _Rows, taken: _Row | None = None) -> bool:
        """Write all rows durably, or none; other processes notice."""

        def write(sql: sqlite3.Connection) -> bool:
            _, (_, inode, _) = _identify(sql, self.path)
            sql.execute("PRAGMA synchronous=EXTRA")
            sql.execute("BEGIN IMMEDIATE")
            for expired in _TIDY:
                sql.execute(expired, (time.time(),))
            if taken and not sql.execute(_TAKE, taken).rowcount:
                return False
            sql.executemany(statement, rows)
            sql.execute("COMMIT")
            if os.stat(self.path).st_ino != inode:
                raise FileNotFoundError("deleted or replaced while it was written to")
            try:  # file systems keep coarse times: two commits may have one time
                now = time.time_ns()
                os.utime(self.path, ns=(now, now))
            except PermissionError:  # the file is another user's
                time.sleep(0.02)  # the kernel's own clock is as coarse
                os.utime(self.path)
            return True

        return _use(self.path, write)

    def _cache(self, statement: str, *parameters: object) -> tuple[list[Any], int]:
        """Execute a statement in the second file; return rows, and how many changed."""

        def work(sql: sqlite3.Connection) -> tuple[list[Any], int]:
            sql.execute("PRAGMA synchronous=OFF")
            sql.execute("PRAGMA journal_mode=MEMORY")
            is_new = not os.stat(self._cache_path).st_size
            if is_new or time.monotonic() - self._tidied_at > 60:
                sql.execute("BEGIN IMMEDIATE")
                for upkeep in _CACHE_UPKEEP:
                    sql.execute(upkeep, {"now": time.time()})
                sql.execute("COMMIT")
                self._tidied_at = time.monotonic()
            done = sql.execute(statement, parameters)
            return done.fetchall(), done.rowcount

        try:
            return _use(self._cache_path, work)
        except StoreUnavailable as error:
            if type(error.__cause__) is sqlite3.DatabaseError:  # it cannot be read
                with suppress(OSError):
                    os.unlink(self._cache_path)
            self._tidied_at = -60.0  # it may be a file without our tables
            raise


def _use(path: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Do some work on a new connection; repeat it while another process writes.

    SQLite's own waiting starves where many write. A connection is opened for each use,
    so none is carried into a forked child or stays on a deleted file; what was begun
    and not committed is rolled back. What fails is a `StoreUnavailable`.
    """
    give_up = time.monotonic() + _PATIENCE
    with _door:
        _inside.append(None)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        opened = sqlite3.connect(path, timeout=0.004, isolation_level=None)
        with closing(opened) as sql:
            if not os.stat(path).st_size:  # SQLite has made it
                with suppress(PermissionError):
                    os.chmod(path, 0o600)  # its journal follows it
            while True:
                try:
                    return work(sql)
                except sqlite3.OperationalError as error:
                    is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if not is_busy or time.monotonic() > give_up:
                        raise
                    sql.rollback()
    except (sqlite3.Error, OSError) as error:
        where = sqlite3.OperationalError(f"{path}: {error}")
        raise StoreUnavailable("revocations_unavailable", where) from error
    finally:
        _inside.pop()


def _identify(sql: sqlite3.Connection, path: str) -> tuple[float, _State]:
    """Return since when a file remembers, and its state; make tables where it is new.

    A file of another inode than it had is a copy, and may lack what was ended after
    it was made.
    """
    found, row = os.stat(path), None
    inode = found.st_ino
    file = found.st_dev, inode, found.st_mtime_ns
    try:
        row = sql.execute(_IDENTITY).fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:  # there is no such table
            raise
    if row is None or row[0] != inode:
        sql.execute("PRAGMA auto_vacuum=FULL")  # before the first table
        sql.execute("BEGIN IMMEDIATE")
        for create in _SCHEMA:
            sql.execute(create)
        row = sql.execute(_IDENTITY).fetchone()
        if row is None or row[0] != inode:
            birth = time.time()
            if row is None:
                with suppress(sqlite3.OperationalError):  # where version 1.0 made it
                    total = sql.execute("SELECT total(at) FROM birth").fetchone()
                    birth = float(total[0]) or birth
            row = inode, birth
            sql.execute("DELETE FROM identity")
            sql.execute("INSERT INTO identity VALUES (?, ?)", row)
        sql.execute("COMMIT")
    # workers of version 1.0 write a log of their own beside the file, so its time says
    # nothing while they are there
    if os.path.exists(f"{path}-wal"):
        file = 0, inode, 0
        with suppress(sqlite3.OperationalError):
            sql.execute("PRAGMA journal_mode=DELETE")
    return float(row[1]), file


# SQLite notes its locks in the process, and a child that is forked while a thread has
# one inherits the note for ever: a fork waits until no connection is open.
_door = threading.Lock()
_inside: deque[None] = deque()


def _before_fork() -> None:
    _door.acquire()
    give_up = time.monotonic() + 2 * _PATIENCE  # more than any of them takes
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
