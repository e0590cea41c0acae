"""Turns and results of refreshes in Redis, for all machines that share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import Redis, RedisError

from .refreshes import Claim, RefreshesUnavailable

_TURN = "turn "
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RefreshesInRedis:
    """Keeps them in Redis.

    Args:
        client: Of redis-py, not of a cluster.
    """

    def __init__(self, client: Redis) -> None:
        self._redis = client
        self._release = client.register_script(_RELEASE)

    def claim(self, key: str, owner: str, seconds: float) -> Claim:
        """See `Refreshes.claim`."""
        if found := self._get(key):
            return Claim(found == _TURN + owner, _result(found))
        turn, lasts = _TURN + owner, _milliseconds(seconds)
        taken = _ask(lambda: self._redis.set(_name(key), turn, nx=True, px=lasts))
        return Claim(bool(taken))

    def find(self, key: str) -> str | None:
        """See `Refreshes.find`."""
        return _result(self._get(key))

    def keep(self, key: str, sealed: str, seconds: float) -> None:
        """See `Refreshes.keep`."""
        lasts = _milliseconds(seconds)
        _ask(lambda: self._redis.set(_name(key), sealed, px=lasts))

    def release(self, key: str, owner: str) -> None:
        """See `Refreshes.release`."""
        _ask(lambda: self._release([_name(key)], [_TURN + owner]))

    def _get(self, key: str) -> str:
        found = _ask(lambda: self._redis.get(_name(key)))
        return found.decode() if isinstance(found, bytes) else found or ""


def _result(found: str) -> str | None:
    return None if not found or found.startswith(_TURN) else found


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _name(key: str) -> str:
    return f"auth0-flask:refresh:{key}"


def _ask(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except RedisError as error:
        raise RefreshesUnavailable from error
