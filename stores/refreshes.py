"""Whose turn it is to show a refresh token, and what came of it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from werkzeug.exceptions import ServiceUnavailable

from .sqlite_file import SqliteFile

T = TypeVar("T")

_TABLES = {
    "refresh": """CREATE TABLE refresh
        (key TEXT PRIMARY KEY, owner TEXT, sealed TEXT, until REAL) WITHOUT ROWID""",
    "refresh_until": "CREATE INDEX refresh_until ON refresh (until)",
}
_FIND = "SELECT sealed FROM refresh WHERE key = ? AND until > ?"
_CLAIM = """
    INSERT INTO refresh VALUES (?, ?, NULL, ?) ON CONFLICT (key) DO UPDATE
    SET owner = excluded.owner, sealed = NULL, until = excluded.until WHERE until <= ?
"""
_KEEP = "INSERT OR REPLACE INTO refresh VALUES (?, '', ?, ?)"
_RELEASE = "DELETE FROM refresh WHERE key = ? AND owner = ?"
_TIDY = "DELETE FROM refresh WHERE until <= ?"


class RefreshesUnavailable(ServiceUnavailable):
    """Nobody can say whose turn it is; its cause says why."""

    error = "refreshes_unavailable"
    description = "This site cannot renew its access right now."
    hint = "Please try again in a moment. If you were signed in, you still are."

    def __init__(self) -> None:
        super().__init__(retry_after=5)


class Claim(NamedTuple):
    """The answer to a claim: it is ours, or there is a result, or somebody is at it."""

    is_ours: bool
    kept: str | None = None


class Refreshes(Protocol):
    """Turns and results, each for some seconds. Keys are digests, results sealed."""

    def claim(self, key: str, owner: str, seconds: float) -> Claim:
        """Take the turn of a key, unless somebody has it or there is a result.

        Args:
            key: What it is the turn for.
            owner: Who wants it.
            seconds: When it ends by itself, so that nobody waits for the dead.

        Raises:
            RefreshesUnavailable: So does everything here, where it cannot be known.
        """

    def find(self, key: str) -> str | None:
        """Return what was kept under a key."""

    def keep(self, key: str, sealed: str, seconds: float) -> None:
        """Keep a result under a key; a turn of that key is over."""

    def release(self, key: str, owner: str) -> None:
        """Give a turn back that led to nothing."""


class _Row(NamedTuple):
    owner: str
    sealed: str | None
    until: float


# held while a process forks, so that no child begins with it locked for ever
_lock = threading.Lock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


class RefreshesInProcess:
    """Keeps them in memory: for one process."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def claim(self, key: str, owner: str, seconds: float) -> Claim:
        """See `Refreshes.claim`."""
        now = time.time()
        with _lock:
            row = self._rows.get(key)
            if row and row.until > now:
                return Claim(False, row.sealed)
            self._rows[key] = _Row(owner, None, now + seconds)
            return Claim(True)

    def find(self, key: str) -> str | None:
        """See `Refreshes.find`."""
        row = self._rows.get(key)
        return row.sealed if row and row.until > time.time() else None

    def keep(self, key: str, sealed: str, seconds: float) -> None:
        """See `Refreshes.keep`."""
        now = time.time()
        with _lock:
            self._rows = {k: r for k, r in self._rows.items() if r.until > now}
            self._rows[key] = _Row("", sealed, now + seconds)

    def release(self, key: str, owner: str) -> None:
        """See `Refreshes.release`."""
        with _lock:
            if key in self._rows and self._rows[key].owner == owner:
                del self._rows[key]


class RefreshesInSqlite:
    """Keeps them in a SQLite file, for all processes of one machine.

    Args:
        path: The file; it and its folder are made at the first use.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        lost = "A token that is refreshed just now may be asked for once more."
        self._file = SqliteFile(path, _TABLES, lost=lost)
        self._tidied_at = 0.0

    def claim(self, key: str, owner: str, seconds: float) -> Claim:
        """See `Refreshes.claim`; whoever waits only reads."""

        def take(connection: sqlite3.Connection) -> Claim:
            now = time.time()
            if found := connection.execute(_FIND, (key, now)).fetchone():
                return Claim(False, found[0])
            claim = key, owner, now + seconds, now
            return Claim(connection.execute(_CLAIM, claim).rowcount == 1)

        return self._use(take)

    def find(self, key: str) -> str | None:
        """See `Refreshes.find`."""
        row = self._use(lambda c: c.execute(_FIND, (key, time.time())).fetchone())
        return row[0] if row else None

    def keep(self, key: str, sealed: str, seconds: float) -> None:
        """See `Refreshes.keep`."""
        now = time.time()
        self._use(lambda c: c.execute(_KEEP, (key, sealed, now + seconds)))
        if now - self._tidied_at > 60:
            self._tidied_at = now
            self._use(lambda c: c.execute(_TIDY, (now,)))

    def release(self, key: str, owner: str) -> None:
        """See `Refreshes.release`."""
        self._use(lambda c: c.execute(_RELEASE, (key, owner)))

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._file.use(lambda connection, _: work(connection))
        except (sqlite3.Error, OSError) as error:
            raise RefreshesUnavailable from error
