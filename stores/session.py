"""The store of sessions: what the SDK keeps in ``flask.session``, for how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_urlsafe
from typing import Any

from auth0_server_python.error import BackchannelLogoutError
from auth0_server_python.store import StateStore
from flask import Response, after_this_request, current_app, request, session
from pydantic import BaseModel
from werkzeug.exceptions import ServiceUnavailable

from .folding import copied, fold, unfold
from .jwe import MOST_LETTERS, BadSeal
from .lifetime import Lifetime
from .sealing_store import STATE_IDENTIFIER, SealingStore, plain, room_left
from .token_sets import DEFAULT_AUDIENCE, fill_in, fresh_until, shorten, token_sets
from .too_large import SessionTooLarge, too_large
from .transactions import forget_transactions

logger = logging.getLogger(__name__)

_FRESH = "fresh"  # in the notes: what a refresh of this request brought
_SHOWN = "shown"  # the session for views, as nobody else has it


class FlaskSessionStateStore(SealingStore, StateStore):
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
        data = plain(state)
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
        return {**data, "user": copied(data["user"])}  # not for a view to change

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

    def show(self) -> dict[str, Any] | None:
        """Return a copy of the session, one a request, for views to read."""
        data, notes = self.read(), self.notes()
        if data is None:
            return None
        if notes.get(_SHOWN, (None,))[0] is not data:
            notes[_SHOWN] = data, copied(data)
        shown: dict[str, Any] = notes[_SHOWN][1]
        return shown

    def is_open(self) -> bool:
        """Tell whether this request has opened a session."""
        return STATE_IDENTIFIER in self.notes()

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
        self.notes()[_FRESH] = fresh

    def notes(self) -> dict[str, Any]:
        """Return what is noted for this request, and for no other.

        Not ``flask.g``, which outlives a request where an app context is held.
        """
        noted: dict[str, Any] = request.environ.setdefault("auth0.notes", {})
        return noted

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
        notes = self.notes()
        opened: tuple[object, Any] | None = notes.get(identifier)
        if opened and opened[0] is sealed:
            return opened[1]  # type: ignore[no-any-return]  # as it was noted
        try:
            data = unfold(self.decrypt(identifier, sealed))
            if identifier == STATE_IDENTIFIER:
                self.lifetime.check(data)
        except (BadSeal, KeyError) as reason:
            logger.info("A session was put aside: %s.", reason)
            _drop(identifier)
            return None
        notes[identifier] = (sealed, data)
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
            own = _new_session(now, self.lifetime.max_seconds)
            shorten(data)
        data["session"] = {**own, "used_at": round(now, 3)}
        fill_in(data, self.notes().pop(_FRESH, None))
        data["token_sets"] = token_sets(data["token_sets"], self._scope)
        for tokens in data.setdefault("connection_token_sets", []):
            tokens["audience"] = tokens.get("audience") or DEFAULT_AUDIENCE

    def _write(self, identifier: str, data: dict[str, Any]) -> None:
        sealed, before = self.encrypt(identifier, fold(data)), dict(session)
        session[identifier] = sealed
        if room_left() < 0:
            forget_transactions()  # they can be begun again
        left = min(MOST_LETTERS - len(sealed), room_left())
        if left < 0:
            session.pop(identifier)
            session.update(before)
            raise too_large(data, left)
        self.notes()[identifier] = (sealed, data)


def _new_session(now: float, max_seconds: int) -> dict[str, Any]:
    """Begin a session; where the interface gives it an id, that one is new, too."""
    if regenerate := getattr(current_app.session_interface, "regenerate", None):
        after_this_request(partial(_renew_id, regenerate))
    return {"id": token_urlsafe(16), "created_at": now, "max_seconds": max_seconds}


def _renew_id(regenerate: Callable[[Any], None], response: Response) -> Response:
    regenerate(session)
    return response


def _drop(identifier: str) -> None:
    session.pop(identifier, None)
    if session.keys() == {"_permanent"}:  # Flask's own mark, of nothing now
        session.clear()
