"""The stores: what the SDK keeps between requests, sealed into ``flask.session``."""

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
from .session import FlaskSessionStateStore, FlaskSessionTransactionStore

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
    "derive",
]
