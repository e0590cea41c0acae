"""The store of logins under way: for an hour, and in little room."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from auth0_server_python.auth_types import TransactionData
from auth0_server_python.store import TransactionStore
from flask import session
from pydantic import BaseModel, ValidationError

from .cookies import TRANSACTION_SECONDS, LoginsUnderWay
from .jwe import BadSeal
from .sealing_store import SealingStore, plain, room_left
from .too_large import too_large

logger = logging.getLogger(__name__)

#: What the identifiers that the SDK gives begin with.
TRANSACTION_IDENTIFIER = "_a0_tx"
#: Bytes that the transactions of one browser take together at most.
TRANSACTION_BYTES = 2_000


class FlaskSessionTransactionStore(SealingStore, TransactionStore):
    """Keeps logins under way, sealed: for an hour, in 2,000 bytes together.

    Args:
        secrets: Newest first; the first seals, all open.
    """

    async def set(
        self,
        identifier: str,
        state: dict[str, Any] | BaseModel,
        remove_if_expires: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Keep a transaction; the oldest go where there is no room for all.

        Raises:
            SessionTooLarge: It takes more than all may take together.
        """
        data, held = plain(state), _held()
        others = [name for name in self._by_age(held) if name != identifier]
        held[identifier] = self.encrypt(identifier, {**data, "created_at": time.time()})
        while (left := min(_room(held), room_left())) < 0 and others:
            del held[others.pop()]
        if left < 0:
            del held[identifier]
            raise too_large(data, left)

    # the SDK reads attributes of it, although it promises a dict
    async def get(  # type: ignore[override]
        self, identifier: str, options: dict[str, Any] | None = None
    ) -> TransactionData | None:
        """Return a transaction, or None if there is none that holds."""
        held = _held()
        if identifier not in held:
            return None
        data = self._open(identifier, held[identifier])
        if data is None:
            del held[identifier]
        return data

    async def delete(
        self, identifier: str, options: dict[str, Any] | None = None
    ) -> None:
        """Forget a transaction."""
        _held().pop(identifier, None)

    def forget_all(self) -> None:
        """Forget every login under way in this browser."""
        forget_transactions()

    def _open(self, identifier: str, sealed: object) -> TransactionData | None:
        try:
            data = TransactionData.model_validate(self.decrypt(identifier, sealed))
        except (BadSeal, ValidationError):
            logger.info("A login under way was put aside: its cookie does not open.")
            return None
        fresh = time.time() - _created_at(data) < TRANSACTION_SECONDS
        return data if fresh else None

    def _by_age(self, held: Mapping[str, Any]) -> list[str]:
        """Name the transactions, newest first; what does not open counts as oldest."""
        opened = {name: self._open(name, held[name]) for name in _identifiers(held)}
        ages = {name: _created_at(data) for name, data in opened.items()}
        return sorted(ages, key=lambda name: ages[name], reverse=True)


def forget_transactions() -> None:
    """Forget every login under way in this browser; they can be begun again."""
    held = _held()
    for identifier in _identifiers(held):
        del held[identifier]


def _created_at(data: TransactionData | None) -> float:
    return float(getattr(data, "created_at", 0.0))


def _held() -> MutableMapping[str, Any]:
    """Return where transactions are: beside the session, or within Flask's own."""
    under_way: LoginsUnderWay | None = getattr(session, "under_way", None)
    return session if under_way is None else under_way.transactions


def _room(held: Mapping[str, Any]) -> float:
    """Return how many bytes the transactions leave of what they may take together."""
    sizes = (len(name) + len(held[name]) for name in _identifiers(held))
    return TRANSACTION_BYTES - sum(sizes)


def _identifiers(held: Mapping[str, Any]) -> list[str]:
    return [name for name in held if name.startswith(f"{TRANSACTION_IDENTIFIER}:")]
