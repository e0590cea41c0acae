"""Which sessions were ended before their time, until they would have ended anyway."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import sha256
from typing import Protocol, TypeVar

from werkzeug.exceptions import ServiceUnavailable

from .news import News
from .sqlite_file import SqliteFile, begin

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Entries removed in one transaction, so that other writers get their turn.
_BATCH = 2_000
_MOST_BATCHES = 100
#: Seconds after which a process reads what is new even if it was not told: whoever
#: ended a session may have been killed before that, and a file may be deleted.
_UNTOLD = 1.0
#: Seconds after which it reads all anew, and so forgets what is past.
_ANEW = 3_600.0
_TABLES = {
    # AUTOINCREMENT: a number that was tidied away is never given out again
    "ended": """CREATE TABLE ended
        (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, at REAL, until REAL)""",
    "ended_until": "CREATE INDEX ended_until ON ended (until)",
    "taken": "CREATE TABLE taken (jti TEXT PRIMARY KEY, until REAL) WITHOUT ROWID",
    "taken_until": "CREATE INDEX taken_until ON taken (until)",
}
_NEWS = "SELECT number, key, at FROM ended WHERE number > ? AND until > ?"
_NOTE = "INSERT INTO ended (key, at, until) VALUES (?, ?, ?)"
_NOTE_JTI = """
    INSERT INTO taken VALUES (?, ?) ON CONFLICT (jti) DO UPDATE
    SET until = excluded.until WHERE until <= ?
"""
_TIDY = (
    """DELETE FROM ended WHERE number IN
    (SELECT number FROM ended WHERE until <= ? LIMIT ?)""",
    """DELETE FROM taken WHERE jti IN
    (SELECT jti FROM taken WHERE until <= ? LIMIT ?)""",
)
#: Seconds that a thread leaves it to another one to read the file.
_MOST_WAIT = 1.0
_reading, _noting = threading.Lock(), threading.Lock()
# held while a process forks, so that no child begins with them locked for ever
for _lock in (_noting, _reading):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )


class RevocationsUnavailable(ServiceUnavailable):
    """Nobody can say which sessions were ended, or end one; its cause says why."""

    error = "revocations_unavailable"
    description = "This site cannot look up who has signed out right now."
    hint = "Please try again in a moment. If you were signed in, you still are."

    def __init__(self) -> None:
        super().__init__(retry_after=5)


class Revocations(Protocol):
    """Remembers until when the sessions of a key are over.

    Keys are opaque: a session's id, a user, everybody. A session is over if it was
    created at or before the time noted for one of its keys.
    """

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """End the sessions of all these keys, or of none if it fails.

        Args:
            keys: Whose sessions.
            at: Those created at or before this time, in seconds since 1970; a later
                time noted before stands.
            until: When it may be forgotten, in seconds since 1970.
            jti: The id of the token that asks for it, which counts once.

        Returns:
            False, and nothing is changed, if that ``jti`` was recorded before.

        Raises:
            RevocationsUnavailable: Nothing was recorded; the ``jti`` is good again.
        """

    def revoked_at(self, keys: Sequence[str]) -> float:
        """Return the latest time noted for any of the keys, in one look-up.

        Returns:
            Seconds since 1970, and never less than when a store began to remember,
            if it can know that; 0.0 if there is none.

        Raises:
            RevocationsUnavailable: It cannot be known.
        """

    def open(self) -> None:
        """Make sure that it is there and takes writes; may be called again.

        Raises:
            RevocationsUnavailable: It is not, or does not.
        """


class NoRevocations:
    """Takes everything and knows nothing: sessions last until they expire."""

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """Forget it at once."""
        return True

    def revoked_at(self, keys: Sequence[str]) -> float:
        """Return 0.0."""
        return 0.0

    def open(self) -> None:
        """Do nothing."""


@lru_cache(maxsize=4_096)
def digest(key: str) -> str:
    """Return what stands for a key, so that a store names no users."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class _Known:
    """What a process has read of a file, and when it must look again."""

    def __init__(self, inode: tuple[int, int] | None, birth: float = 0.0) -> None:
        self.inode = inode
        self.birth = birth
        self.number = 0
        self.times: dict[str, float] = {}
        self.word: bytes | None = None
        self.again_at = 0.0
        self.anew_at = time.time() + _ANEW

    def holds(self, word: bytes | None) -> bool:
        in_time = time.monotonic() < self.again_at
        return in_time and word is not None and word == self.word


class SqliteRevocations:
    """Keeps them in a SQLite file, for all processes of one machine.

    Each process has read all of it (about 300 bytes an entry) and is told of news
    through a second file beside it; a query for every request would hold up the other
    threads of its process. That a file was deleted or replaced is noticed within a
    second.
    Sessions older than the file are over: what an earlier one held is not known.

    Args:
        path: The file; it and its folder are made by `open` or at the first use.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        lost = "Sessions older than the file that is there now are over."
        self._file = SqliteFile(path, _TABLES, lost=lost)
        self._news = News(f"{self._file.path}-news")
        self._known: _Known | None = None
        self._tidied_at = self._said_at = 0.0

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """See `Revocations.revoke`."""
        rows = [(digest(key), at, until) for key in keys]
        seen = None if jti is None else (digest(jti), until, time.time())
        noted = self._use(lambda connection, _: self._note(connection, rows, seen))
        self._news.change()
        return noted

    def revoked_at(self, keys: Sequence[str]) -> float:
        """See `Revocations.revoked_at`; never less than the birth of the file."""
        known = self._known
        if known is None or not known.holds(self._news.word()):
            known = self._read()
        times = known.times
        return max([known.birth, *(times.get(digest(key), 0.0) for key in keys)])

    def _read(self) -> _Known:
        """Read what is new, one thread for all.

        None waits for ever: whoever reads may have to log, and a log may ask this.
        """
        is_alone = _reading.acquire(timeout=_MOST_WAIT)
        try:
            known = self._known
            if known is None or not known.holds(self._news.word()):
                known = self._read_on()
            return known
        finally:
            if is_alone:
                _reading.release()

    def _read_on(self) -> _Known:
        """Read what is new; threads that do so at once all note the same."""
        self._news.open()
        word, known = self._news.word(), self._on(self._file.inode())
        birth, rows = self._use(partial(_rows_after, known.number))
        if birth != known.birth:
            if known.number:  # which was of another file
                birth, rows = self._use(partial(_rows_after, 0))
            known = _Known(known.inode, birth)
        with _noting:
            for _, key, at in rows:
                known.times[key] = max(known.times.get(key, 0.0), at)
            known.number = max([known.number, *(number for number, _, _ in rows)])
            known.word, known.again_at = word, time.monotonic() + _UNTOLD
            self._known = known
        return known

    def _on(self, inode: tuple[int, int] | None) -> _Known:
        """Return what to go on from: nothing, where it is old or of another file."""
        known = self._known
        if known is None or known.inode != inode:
            return _Known(inode)
        left = known.anew_at - time.time()  # more than there can be, if clocks jumped
        return known if 0 < left <= _ANEW else _Known(inode)

    def open(self) -> None:
        """See `Revocations.open`."""

        def write(connection: sqlite3.Connection, _: float) -> None:
            begin(connection)
            with connection:
                connection.execute("UPDATE birth SET at = at")

        self._use(write)
        self._news.open()  # now, lest a command that root runs be first, and own it

    def _use(self, work: Callable[[sqlite3.Connection, float], T]) -> T:
        try:
            return self._file.use(work)
        except (sqlite3.Error, OSError) as error:
            self._say(error)
            raise RevocationsUnavailable from error

    def _note(
        self,
        connection: sqlite3.Connection,
        rows: list[tuple[str, float, float]],
        seen: tuple[str, float, float] | None,
    ) -> bool:
        begin(connection)
        with connection:
            if seen and not connection.execute(_NOTE_JTI, seen).rowcount:
                return False
            connection.executemany(_NOTE, rows)
        # what was asked for is written by now, and must not fail for this
        with suppress(sqlite3.Error):
            self._tidy(connection)
        return True

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Remove what is past, at most once a minute."""
        now = time.time()
        if now - self._tidied_at < 60:
            return
        self._tidied_at = now
        batches = sum(_remove_past(connection, statement, now) for statement in _TIDY)
        if batches:  # so much that the file is worth shrinking
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _say(self, error: Exception) -> None:
        now = time.time()
        if now - self._said_at >= 60:
            self._said_at = now
            reason = type(error).__name__
            logger.error("%s cannot be used: %s: %s", self._file.path, reason, error)


def _rows_after(
    number: int, connection: sqlite3.Connection, birth: float
) -> tuple[float, list[tuple[int, str, float]]]:
    return birth, connection.execute(_NEWS, (number, time.time())).fetchall()


def _remove_past(connection: sqlite3.Connection, statement: str, now: float) -> int:
    """Return how many times as much was removed as one transaction may."""
    for batch in range(_MOST_BATCHES):
        if connection.execute(statement, (now, _BATCH)).rowcount < _BATCH:
            return batch
    return _MOST_BATCHES
