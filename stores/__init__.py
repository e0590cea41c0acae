"""The stores: what the SDK keeps between requests, sealed into ``flask.session``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cookies import SpanningSessionInterface
from .jwe import derive
from .lifetime import Lifetime
from .refreshes import Refreshes, RefreshesInProcess, RefreshesInSqlite
from .revocations import (
    NoRevocations,
    Revocations,
    RevocationsUnavailable,
    SqliteRevocations,
)
from .session import FlaskSessionStateStore
from .transactions import FlaskSessionTransactionStore

if TYPE_CHECKING:
    from flask import Flask
    from redis import Redis

__all__ = [
    "FlaskSessionStateStore",
    "FlaskSessionTransactionStore",
    "Lifetime",
    "NoRevocations",
    "Refreshes",
    "RefreshesInProcess",
    "RefreshesInSqlite",
    "Revocations",
    "RevocationsUnavailable",
    "SpanningSessionInterface",
    "SqliteRevocations",
    "connect_redis",
    "derive",
    "keep_in_redis",
    "keep_refreshes_in_redis",
]


def connect_redis(url: str) -> Redis:
    """Return a client for an address such as ``redis://localhost:6379/0``.

    Raises:
        ImportError: The package redis, which only this needs, is not installed.
    """
    from .in_redis import connect

    return connect(url)


def keep_in_redis(
    app: Flask, redis: Redis, *, secrets: Sequence[str], seconds: int
) -> Revocations:
    """Keep an app's sessions in Redis; return where to write down what was ended.

    Args:
        app: The app; its session interface is replaced.
        redis: A client of redis-py.
        secrets: Newest first.
        seconds: How long a session is kept after it was last written.
    """
    from .in_redis import RedisSessionInterface
    from .revocations_in_redis import RedisRevocations

    app.session_interface = RedisSessionInterface(
        redis, secrets=secrets, seconds=seconds
    )
    return RedisRevocations(redis)


def keep_refreshes_in_redis(redis: Redis) -> Refreshes:
    """Return where all machines write down who refreshes a token.

    Args:
        redis: A client of redis-py.
    """
    from .refreshes_in_redis import RefreshesInRedis

    return RefreshesInRedis(redis)
