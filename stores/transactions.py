"""The store of transactions: a login from its start to its callback, for an hour."""

from __future__ import annotations

import logging
import time

from auth0_server_python.auth_types import TransactionData
from auth0_server_python.store import TransactionStore
from flask import current_app, session
from pydantic import BaseModel, ValidationError

from .base import EncryptedStore, SessionTooLarge, as_dict
from .cookies import (
    LONG_BYTES,
    SLOT_BYTES,
    SLOTS,
    STATE_KEY,
    TRANSACTION_PREFIX,
    room_left,
)
from .encryption import Json

logger = logging.getLogger(__name__)

#: Seconds that a login may take.
TRANSACTION_SECONDS = 3600
#: Bytes of an encrypted transaction that is no usual one, and at most.
_USUAL_BYTES, _MAX_BYTES = SLOT_BYTES - 100, LONG_BYTES - 200


class FlaskSessionTransactionStore(EncryptedStore, TransactionStore):
    """Keeps transactions, encrypted, in ``flask.session``: for an hour, eight at most.

    Args:
        secrets: Newest first; the first encrypts, all decrypt.
    """

    async def set(
        self,
        identifier: str,
        state: Json | BaseModel,
        remove_if_expires: bool = False,
        options: Json | None = None,
    ) -> None:
        """Keep a transaction; the oldest are dropped where there is no room for all.

        Raises:
            SessionTooLarge: There is no room even for this one alone.
        """
        data = {**as_dict(state), "created_at": round(time.time(), 3)}
        data.pop("domain", None)  # the client has but one, and bytes are few
        encrypted = self.encrypt(identifier, data)
        room = min(_MAX_BYTES, room_left() - 2 * SLOT_BYTES)
        if len(encrypted) > max(_USUAL_BYTES, room) and _drop_return_to(data):
            encrypted = self.encrypt(identifier, data)
        others = [key for key in self._by_age() if key != identifier]
        while len(others) >= SLOTS:
            del session[others.pop()]
        session[identifier] = encrypted
        while (left := room_left()) < 0 and others:
            del session[others.pop()]
        sessions = current_app.extensions["auth0"].client.sessions
        if left < 0 and STATE_KEY in session and not sessions.load():
            session.clear()  # the app's data was that user's; the login replaces it
            session[identifier] = encrypted
            left = room_left()
        if left < 0 or len(encrypted) > _MAX_BYTES:
            del session[identifier]
            raise SessionTooLarge(data, max(-left, len(encrypted) - _MAX_BYTES))

    # the SDK reads attributes of it, although it promises a dict
    async def get(
        self, identifier: str, options: Json | None = None
    ) -> TransactionData | None:
        """Return a transaction, or None if there is none that is valid."""
        data = self.load_unchecked(identifier)
        age = time.time() - getattr(data, "created_at", 0.0)
        return data if age < TRANSACTION_SECONDS else None

    async def delete(self, identifier: str, options: Json | None = None) -> None:
        """Forget a transaction."""
        session.pop(identifier, None)

    def load_unchecked(self, identifier: str) -> TransactionData | None:
        """Return a transaction, also one that took too long."""
        if identifier not in session:
            return None
        try:
            return TransactionData.model_validate(self.read(identifier))
        except ValidationError:  # also where it does not decrypt
            logger.info("Transaction rejected: its cookie cannot be decrypted.")
            return None

    def _by_age(self) -> list[str]:
        """Name the transactions, newest first; what does not decrypt is oldest."""
        found = {key: self.load_unchecked(key) for key in transaction_keys()}
        ages = {key: getattr(data, "created_at", 0.0) for key, data in found.items()}
        return sorted(ages, key=lambda key: ages[key], reverse=True)


def transaction_keys() -> list[str]:
    """Return the keys of this browser's transactions, without asking Redis."""
    held = getattr(session, "transactions", session)
    return [key for key in held if str(key).startswith(TRANSACTION_PREFIX)]


def forget_transactions() -> list[str]:
    """Forget every transaction of this browser, and return their keys."""
    keys = transaction_keys()
    for key in keys:
        del session[key]
    return keys


def _drop_return_to(data: Json) -> bool:
    """Drop the page that a login was started for; tell whether there was one."""
    app_state = data.get("app_state")
    inner = app_state.get("app_state") if isinstance(app_state, dict) else None
    found = inner.pop("return_to", None) if isinstance(inner, dict) else None
    if found is None:
        return False
    logger.warning(
        "return_to dropped: a path of %d bytes does not fit into a cookie.", len(found)
    )
    return True
