"""The two stores: what the SDK keeps in ``flask.session``, and how long it is good."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_urlsafe
from typing import Any

from auth0_server_python.auth_types import TransactionData
from auth0_server_python.error import BackchannelLogoutError
from auth0_server_python.store import StateStore, TransactionStore
from auth0_server_python.store.abstract import AbstractDataStore
from flask import Response, after_this_request, current_app, g, session
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import ServiceUnavailable

from .cookies import TRANSACTION_SECONDS, LoginsUnderWay, bytes_left
from .folding import fold, unfold
from .jwe import MOST_LETTERS, BadSeal, seal, unseal
from .lifetime import Lifetime
from .token_sets import DEFAULT_AUDIENCE, fill_in, fresh_until, shorten, token_sets
from .too_large import SessionTooLarge, too_large

logger = logging.getLogger(__name__)

#: The identifiers that the client gives to the SDK.
STATE_IDENTIFIER = "_a0_session"
TRANSACTION_IDENTIFIER = "_a0_tx"

#: Bytes that the transactions of one browser take together at most.
TRANSACTION_BYTES = 2_000
_NESTS = (dict, list)
_FRESH = "_auth0_fresh"  # in g: what a refresh of this request brought


class _SealingStore(AbstractDataStore[dict[str, Any]]):
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


class FlaskSessionStateStore(_SealingStore, StateStore):
    """Keeps who is signed in, sealed, in ``flask.session``.

    Args:
        secrets: Newest first; the first seals, all open.
        scope: What the client asks for by default (RFC 6749 section 3.3).
        lifetime: How long a session is good for.
    """

    def __init__(
        self, *, secrets: Sequence[str], scope: str, lifetime: Lifetime
    ) -> None:
        super().__init__(secrets=secrets)
        self._scope = scope
        self.lifetime = lifetime

    async def set(
        self,
        identifier: str,
        state: dict[str, Any] | BaseModel,
        remove_if_expires: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Keep a state; called by the SDK after a login and after a refresh.

        Raises:
            SessionTooLarge: It does not fit; what was there before stays.
        """
        self.keep(identifier, state)

    def keep(self, identifier: str, state: dict[str, Any] | BaseModel) -> None:
        """Do what `set` does, without awaiting anything."""
        data = _plain(state)
        if identifier == STATE_IDENTIFIER:
            self._mend(data)
        self._write(identifier, data)

    async def get(
        self, identifier: str, options: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return a state as a plain dict, which the SDK takes as well as a model."""
        data = self.read(identifier)
        if data is None or "user" not in data:
            return data
        return {**data, "user": _copy(data["user"])}  # not for a view to change

    async def delete(
        self, identifier: str, options: dict[str, Any] | None = None
    ) -> None:
        """Forget a state; what else is in ``flask.session`` stays."""
        try:
            _drop(identifier)
        except ServiceUnavailable:
            session.abandon()  # type: ignore[attr-defined]  # of sessions in Redis

    async def delete_by_logout_token(
        self, claims: dict[str, Any], options: dict[str, Any] | None = None
    ) -> None:
        """End what a logout token names: one session at Auth0, or all of a user.

        Raises:
            BackchannelLogoutError: Its ``jti``, where it is given, was taken before.
        """
        named = {name: claims.get(name) for name in ("sub", "sid", "jti")}
        if not self.lifetime.end_all(**named):
            raise BackchannelLogoutError("This logout token was used before.")

    def peek(self) -> dict[str, Any] | None:
        """Return the session without asking whether it is over, to end it."""
        try:
            return unfold(self.decrypt(STATE_IDENTIFIER, self.sealed()))
        except BadSeal:
            return None

    def fresh_until(self, begins: float, seconds: float) -> float:
        """Return until when an access token is used: not to its very end."""
        return fresh_until(begins, seconds)

    def expect(self, fresh: Mapping[str, Any]) -> None:
        """Note what the SDK will leave out when it keeps a refreshed token."""
        setattr(g, _FRESH, fresh)

    def sealed(self) -> str | None:
        """Return the session as it lies in ``flask.session``."""
        return session.get(STATE_IDENTIFIER)

    def restore(self, sealed: str | None) -> None:
        """Put back what `sealed` returned."""
        if sealed is None:
            _drop(STATE_IDENTIFIER)
        elif sealed != self.sealed():
            session[STATE_IDENTIFIER] = sealed

    def read(self, identifier: str = STATE_IDENTIFIER) -> dict[str, Any] | None:
        """Return a state, or None if there is none that holds.

        Whatever a visitor sent, this does not raise.
        It opens a session once a request, and notes that it was used.
        """
        sealed = session.get(identifier)
        if sealed is None:
            return None
        opened: tuple[object, dict[str, Any]] | None = g.get(_memo(identifier))
        if opened and opened[0] is sealed:
            return opened[1]
        try:
            data = unfold(self.decrypt(identifier, sealed))
            if identifier == STATE_IDENTIFIER:
                self.lifetime.check(data)
        except (BadSeal, KeyError) as reason:
            logger.info("A session was put aside: %s.", reason)
            _drop(identifier)
            return None
        self._remember(identifier, sealed, data)
        if identifier == STATE_IDENTIFIER:
            self._note_use(data)
        return data

    def _note_use(self, data: dict[str, Any]) -> None:
        """Write `used_at` seldom, so that most responses set no cookie."""
        kept = current_app.permanent_session_lifetime.total_seconds()
        now = time.time()
        if (
            now - data["session"]["used_at"]
            > min(self.lifetime.idle_seconds, kept) / 20
        ):
            data["session"]["used_at"] = round(now, 3)
            with suppress(SessionTooLarge):  # logged; a read is not to fail for it
                self._write(STATE_IDENTIFIER, data)

    def _mend(self, data: dict[str, Any]) -> None:
        """Add what is ours, and put right what the SDK would trip over later."""
        now = time.time()
        data.setdefault("token_sets", [])
        if own := data.get("session"):
            known = self.read() or {}  # an answer without ID token takes none away
            data["id_token"] = data.get("id_token") or known.get("id_token")
        else:
            own = _new_session(now)
            shorten(data)
        data["session"] = {**own, "used_at": round(now, 3)}
        fill_in(data, g.pop(_FRESH, None))
        data["token_sets"] = token_sets(data["token_sets"], self._scope)
        for tokens in data.setdefault("connection_token_sets", []):
            tokens["audience"] = tokens.get("audience") or DEFAULT_AUDIENCE

    def _write(self, identifier: str, data: dict[str, Any]) -> None:
        sealed, before = self.encrypt(identifier, fold(data)), dict(session)
        session[identifier] = sealed
        if _bytes_left() < 0:
            _forget_transactions()  # they can be begun again
        left = min(MOST_LETTERS - len(sealed), _bytes_left())
        if left < 0:
            session.pop(identifier)
            session.update(before)
            raise too_large(data, left)
        self._remember(identifier, sealed, data)

    def _remember(self, identifier: str, sealed: object, data: dict[str, Any]) -> None:
        setattr(g, _memo(identifier), (sealed, data))


class FlaskSessionTransactionStore(_SealingStore, TransactionStore):
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
        data, held = _plain(state), _held()
        others = [name for name in self._by_age(held) if name != identifier]
        held[identifier] = self.encrypt(identifier, {**data, "created_at": time.time()})
        while (left := min(_room(held), _bytes_left())) < 0 and others:
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
        _forget_transactions()

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


def _new_session(now: float) -> dict[str, Any]:
    """Begin a session; where the interface gives it an id, that one is new, too."""
    if regenerate := getattr(current_app.session_interface, "regenerate", None):
        after_this_request(partial(_renew_id, regenerate))
    return {"id": token_urlsafe(16), "created_at": now}


def _renew_id(regenerate: Callable[[Any], None], response: Response) -> Response:
    regenerate(session)
    return response


def _created_at(data: TransactionData | None) -> float:
    return float(getattr(data, "created_at", 0.0))


def _held() -> MutableMapping[str, Any]:
    """Return where transactions are: beside the session, or within Flask's own."""
    under_way: LoginsUnderWay | None = getattr(session, "under_way", None)
    return session if under_way is None else under_way.transactions


def _drop(identifier: str) -> None:
    session.pop(identifier, None)
    if session.keys() == {"_permanent"}:  # Flask's own mark, of nothing now
        session.clear()


def _forget_transactions() -> None:
    held = _held()
    for identifier in _identifiers(held):
        del held[identifier]


def _room(held: Mapping[str, Any]) -> float:
    """Return how many bytes the transactions leave of what they may take together."""
    sizes = (len(name) + len(held[name]) for name in _identifiers(held))
    return TRANSACTION_BYTES - sum(sizes)


def _bytes_left() -> float:
    left = bytes_left(current_app, session)
    return float("inf") if left is None else left


def _identifiers(held: Mapping[str, Any]) -> list[str]:
    return [name for name in held if name.startswith(f"{TRANSACTION_IDENTIFIER}:")]


def _copy(value: Any) -> Any:
    """Copy what JSON can hold, ten times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        parts = value.items()
        return {n: _copy(v) if isinstance(v, _NESTS) else v for n, v in parts}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _memo(identifier: str) -> str:
    return f"_auth0 {identifier}"


def _plain(state: dict[str, Any] | BaseModel) -> dict[str, Any]:
    if isinstance(state, BaseModel):
        return state.model_dump(exclude_none=True)
    return dict(state)
