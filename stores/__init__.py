"""The stores: what the SDK keeps between requests, sealed into ``flask.session``."""

from .cookies import SpanningSessionInterface
from .jwe import derive
from .session import FlaskSessionStateStore, FlaskSessionTransactionStore

__all__ = [
    "FlaskSessionStateStore",
    "FlaskSessionTransactionStore",
    "SpanningSessionInterface",
    "derive",
]
