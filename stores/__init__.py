"""The stores: what the SDK keeps between requests, encrypted into ``flask.session``."""

from .base import SessionTooLarge, request_state
from .cookies import SplitSessionInterface
from .encryption import derive_key
from .revocations import SqliteStore
from .session import FlaskSessionStateStore
from .shared import Lifetime, SharedStore
from .transactions import FlaskSessionTransactionStore

__all__ = [
    "FlaskSessionStateStore",
    "FlaskSessionTransactionStore",
    "Lifetime",
    "SessionTooLarge",
    "SharedStore",
    "SplitSessionInterface",
    "SqliteStore",
    "derive_key",
    "request_state",
]
