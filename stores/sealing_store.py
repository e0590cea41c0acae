"""What both stores are: they seal what they keep, and know what room there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auth0_server_python.store.abstract import AbstractDataStore
from flask import current_app, session
from pydantic import BaseModel

from .cookies import bytes_left
from .jwe import seal, unseal

#: The identifier that the client gives to the SDK for a session.
STATE_IDENTIFIER = "_a0_session"


class SealingStore(AbstractDataStore[dict[str, Any]]):
    """Seals and opens.

    Args:
        secrets: Newest first; the first seals, all open.
    """

    def __init__(self, *, secrets: Sequence[str]) -> None:
        super().__init__({"secret": secrets[0]})
        self._secrets = tuple(secrets)

    # the SDK types what is sealed like what is plain
    def encrypt(  # type: ignore[override]
        self, identifier: str, state_data: dict[str, Any]
    ) -> str:
        """Seal under the newest secret, instead of the way the SDK would."""
        return seal(identifier, state_data, self._secrets)

    def decrypt(self, identifier: str, encrypted_data: object) -> dict[str, Any]:
        """Open what was sealed for this identifier; raise `BadSeal` otherwise."""
        comes_again = identifier == STATE_IDENTIFIER
        return unseal(identifier, encrypted_data, self._secrets, remember=comes_again)


def room_left() -> float:
    """Return how many bytes what is kept in cookies may grow by; negative if none."""
    left = bytes_left(current_app, session)
    return float("inf") if left is None else left


def plain(state: dict[str, Any] | BaseModel) -> dict[str, Any]:
    """Return what the SDK hands over as a dict of its own."""
    if isinstance(state, BaseModel):
        return state.model_dump(exclude_none=True)
    return dict(state)
