"""The store of sessions: one a browser, encrypted into ``flask.session``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from secrets import token_urlsafe
from typing import Any

from auth0_server_python.error import BackchannelLogoutError
from auth0_server_python.store import StateStore
from flask import Response, after_this_request, current_app, request, session
from pydantic import BaseModel

from auth0_flask.errors import StoreUnavailable

from .base import (
    EncryptedStore,
    RequestState,
    SessionTooLarge,
    as_dict,
    copy_json,
    drop_duplicate_claims,
    is_slow,
    request_state,
    restore_claims,
)
from .cookies import STATE_KEY, is_ours, room_left
from .encryption import MAX_CHARACTERS, DecryptionError, Json
from .shared import Lifetime, SessionRejected, shared_store
from .transactions import forget_transactions

logger = logging.getLogger(__name__)

_DEFAULT_AUDIENCE = "default"  # what the SDK calls a token without audience
#: Seconds before its end that a token is not used any more, or a tenth of its life.
_MARGIN = 30
#: What an ID token says of the login; a refresh does not change it.
_CLAIMS_OF_THE_LOGIN = ("acr", "amr", "auth_time", "org_id", "org_name", "sid")


class FlaskSessionStateStore(EncryptedStore, StateStore):
    """Keeps the session of a browser, encrypted, in ``flask.session``.

    The SDK calls `get`, `set`, `delete` and `delete_by_logout_token`; everything else
    calls `load`, `load_unchecked`, `save`, `clear` and `rollback`.

    Args:
        secrets: Newest first; the first encrypts, all decrypt.
        scope: What the client asks for by default (RFC 6749 section 3.3).
        keep_id_token: Whether the raw ID token is kept; its claims are in any case.
        lifetime: When a session is over.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str],
        scope: str,
        lifetime: Lifetime,
        keep_id_token: bool = True,
    ) -> None:
        super().__init__(secrets=secrets)
        self._scope, self._keep_id_token = scope, keep_id_token
        self.lifetime = lifetime

    async def set(
        self,
        identifier: str,
        state: Json | BaseModel,
        remove_if_expires: bool = False,
        options: Json | None = None,
    ) -> None:
        """Keep a state; see `save`. What is not a session is stored unchanged."""
        if identifier == STATE_KEY:
            self.save(as_dict(state))
        else:
            session[identifier] = self.encrypt(identifier, as_dict(state))

    async def get(self, identifier: str, options: Json | None = None) -> Json | None:
        """Return a state as a plain dict of the caller's own, or None."""
        if identifier != STATE_KEY:
            return self.read(identifier)
        known = request_state()
        if (data := self.load(known)) is None:
            return None
        copied: Json = copy_json(data)
        if known.renewing:  # whatever tokens there are, are old
            copied["token_sets"] = []
        return copied

    async def delete(self, identifier: str, options: Json | None = None) -> None:
        """Forget a state; what else is in ``flask.session`` stays."""
        if identifier == STATE_KEY:
            self.clear()
        else:
            session.pop(identifier, None)

    async def delete_by_logout_token(
        self, claims: Json, options: Json | None = None
    ) -> None:
        """End what a logout token names: one session at Auth0, or all of a user.

        Raises:
            BackchannelLogoutError: Its ``jti``, where it is given, was taken before.
        """
        named = {name: claims.get(name) for name in ("sub", "sid", "jti")}
        if not self.lifetime.end_all(**named):
            raise BackchannelLogoutError("This logout token was used before.")

    def load(self, known: RequestState | None = None) -> Json | None:
        """Return the session, or None if there is none that is valid.

        It is decrypted and checked once a request, and noted as used. Whatever a
        browser sent, this does not raise; `StoreUnavailable` it may.
        """
        known, data = known or request_state(), None
        if known.outage:  # each look would wait again
            raise known.outage
        try:
            encrypted = session.get(STATE_KEY)
            if encrypted is None:
                return None
            if known.encrypted == encrypted:
                return known.session
            found = restore_claims(self.decrypt(STATE_KEY, encrypted))
            self.lifetime.check(found)
            data = found
        except DecryptionError as reason:
            # perhaps another machine's, which has a newer secret: it stays
            logger.info("Session ignored: %s.", reason)
        except SessionRejected as reason:
            logger.info("Session rejected: %s.", reason)
            # else it says whose data is left, or an answer that comes late, as one to
            # a script in another tab may, would delete the cookies of a newer session
            is_page = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
            if is_page and not (_app_keys() or is_slow(known)):
                self.clear()
                return None
        except StoreUnavailable as outage:
            known.outage = outage
            raise
        known.session, known.copy = data, None
        known.encrypted = encrypted  # last, since a view may have threads
        return data

    def load_unchecked(self) -> Json | None:
        """Return the session without asking whether it is over, to end it."""
        data = self.read(STATE_KEY)
        return restore_claims(data) if data else None

    def save(self, state: Json) -> Json:
        """Keep what the SDK made of a login or a refresh, and return that.

        A session without an id begins. Where it does not fit, `SessionTooLarge` is
        raised, and what was there before stays.
        """
        data, known = dict(state), request_state()
        if is_new := (own := data.get("session")) is None:
            own = self._begin()
        else:  # a response without ID token takes none away
            kept = (known.session or {}).get("id_token")
            data["id_token"] = data.get("id_token") or kept
        used = {"used_at": round(time.time(), 3)}
        data["session"] = {**used, **own} if known.passive else {**own, **used}
        _fix_sdk_state(data, self._scope, known.refresh, is_new=is_new)
        known.refresh = None
        if not self._keep_id_token:
            data.pop("id_token", None)
        self._write(data, is_new)
        if is_new:
            self.lifetime.register(data, request.user_agent.string)
        return data

    def adopt(self, state: Json, app_part: Json | None) -> Json:
        """Keep a session, and the app's data if known, as another request began it."""
        before = self.load_unchecked()
        is_other = before and before["user"]["sub"] != state["user"]["sub"]
        is_new = not before or before["session"]["id"] != state["session"]["id"]
        if is_new:
            if is_other or app_part is not None:
                self.forget_app_data()
            session.update(app_part or {})
            renew_id()
        self._write(state, is_new)
        return state

    def clear(self) -> None:
        """Forget the session; what else is in ``flask.session`` stays.

        Where the store behind ``flask.session`` is unavailable, the browser forgets
        the whole of it.
        """
        known = request_state()
        known.session = known.copy = known.encrypted = None
        with suppress(StoreUnavailable):
            session.pop(STATE_KEY, None)
        if getattr(session, "outage", None):  # of Redis
            session.is_signed_out = True  # type: ignore[attr-defined]  # so it has that
            return
        known.outage = None
        if not _app_keys():
            session.pop("_permanent", None)  # Flask's own mark, of nothing now

    def rollback(self, before: Json) -> None:
        """Put back what ``flask.session`` held before."""
        if before == dict(session):
            return
        known = request_state()
        known.session = known.copy = known.encrypted = None
        for key in session.keys() - before.keys():
            del session[key]
        for key, value in before.items():
            if session.get(key) != value:
                session[key] = value

    def forget_app_data(self) -> None:
        """Forget what the app keeps in ``flask.session``: it is another user's."""
        for key in [*_app_keys(), "_permanent"]:
            session.pop(key, None)

    def note_use(self, known: RequestState) -> None:
        """Write `used_at`, at the end of a request that has loaded the session.

        Seldom, so that most responses set no cookie, and not in a slow request,
        which may have loaded a session that another one has changed meanwhile.
        """
        if (data := known.session) is None or known.passive:
            return
        kept = current_app.permanent_session_lifetime.total_seconds()
        idle_seconds = min(self.lifetime.idle_seconds, kept)
        unused = time.time() - data["session"]["used_at"]
        if unused <= idle_seconds / (2 if is_slow(known) else 20):
            return
        data["session"]["used_at"] = round(time.time(), 3)
        # both are logged; the response does not fail for them
        with suppress(SessionTooLarge, StoreUnavailable):
            self._write(data)
            self.lifetime.register(data, request.user_agent.string)

    def view(self) -> Json | None:
        """Return a copy of the session, one a request, for views to read."""
        known = request_state()
        if (data := self.load(known)) is None:
            return None
        if known.copy is None:
            copied = {name: v for name, v in data.items() if name != "internal"}
            copied = copy_json(copied)
            idle_until = data["session"]["used_at"] + self.lifetime.idle_seconds
            ends_at = min(self.lifetime.expires_at(data), idle_until)
            copied["session"]["ends_at"] = float(ends_at)
            known.copy = copied  # last, since a view may have threads
        return known.copy

    def _begin(self) -> Json:
        """Begin a session; where the interface gives it an id, that is new, too."""
        renew_id()
        known, shared = request_state(), shared_store()
        began = known.began or shared.now()
        return {
            "id": token_urlsafe(16),
            "created_at": time.time(),
            # a logout that came while the login was being completed ends it
            # and not before the file that remembers logouts, should clocks be set back
            "begun_at": max(began, shared.revoked_at(()) + 1e-6),
            "max_seconds": self.lifetime.max_seconds,
            **({} if known.wanted.get("remember", True) else {"persistent": False}),
        }

    def _write(self, data: Json, is_new: bool = False) -> None:
        """Write a session; where it is too large, without what it can do without."""
        before = session.get(STATE_KEY)
        encrypted, left = self._fit(data)
        while left < 0 and (name := _surplus(data)):
            data = {**data, name: data[name][1:]}
            encrypted, left = self._fit(data)
        if left < 0:
            forget_transactions()  # they can be started again
            encrypted, left = self._fit(data)
        if left < 0 and data.get("id_token"):
            data = {name: value for name, value in data.items() if name != "id_token"}
            encrypted, left = self._fit(data)
        if left < 0:
            session.pop(STATE_KEY)
            if before is not None:
                session[STATE_KEY] = before
            raise SessionTooLarge(data, -left)
        known = request_state()
        known.encrypted, known.session, known.copy = encrypted, data, None
        if known.responded:
            logger.error(
                "A token was refreshed after the response had begun, so its cookie "
                "could not be sent. Call get_access_token before a response streams."
            )
        persistent = data["session"].get("persistent", True)
        if hasattr(session, "expires_at"):  # in cookies of our own
            expires_at = self.lifetime.expires_at(data)
            session.expires_at = expires_at if persistent else None
        elif is_new and session.permanent != persistent:
            session.permanent = persistent
        if hasattr(session, "ended_by"):  # in Redis
            session.ended_by(self.lifetime.keys(data))

    def _fit(self, data: Json) -> tuple[str, float]:
        """Put a session into ``flask.session``; return it and the room that is left."""
        encrypted = self.encrypt(STATE_KEY, drop_duplicate_claims(data))
        session[STATE_KEY] = encrypted
        return encrypted, min(MAX_CHARACTERS - len(encrypted), room_left())


def _app_keys() -> list[str]:
    """Return the keys of what the app keeps in ``flask.session``."""
    return [key for key in session if not is_ours(key) and key != "_permanent"]


def _surplus(data: Json) -> str | None:
    """Name a list of several tokens that can be had again, or None."""
    names = ("connection_token_sets", "token_sets") if data.get("refresh_token") else ()
    return next((name for name in names if len(data[name]) > 1), None)


def renew_id() -> None:
    """Have the interface give the session a new id, if it gives it one."""
    if regenerate := getattr(current_app.session_interface, "regenerate", None):

        @after_this_request
        def renew(response: Response) -> Response:
            regenerate(session)
            return response


# Access tokens: what the SDK writes wrongly, corrected


def apply_expiry_margin(begins: float, seconds: float) -> int:
    """Return until when a token is used: a little less than it is valid."""
    return int(begins + seconds - min(_MARGIN, seconds / 10))


def _fix_sdk_state(
    data: Json, scope: str, refresh: Mapping[str, Any] | None, *, is_new: bool
) -> None:
    """Correct what the SDK writes about access tokens, in place.

    It files a token without audience under None, and one without scope (which means
    "as requested", RFC 6749 sections 3.3 and 5.1) under nothing, and finds neither.
    """
    now = time.time()
    found = data.setdefault("token_sets", [])
    for tokens in found if is_new else []:
        tokens["expires_at"] = apply_expiry_margin(now, tokens["expires_at"] - now)
    if refresh:
        _apply_refresh(data, refresh)
    # of each audience and scope the newest, or a wider one, if it has not expired; and
    # one of the My Account API, since each of its methods wants a scope of its own
    account = f"https://{data['domain']}/me/"
    kept: dict[tuple[str, frozenset[str]], Json] = {}
    for tokens in found:
        if tokens["expires_at"] > now or tokens is found[-1]:
            audience = tokens.get("audience") or _DEFAULT_AUDIENCE
            scopes = dict.fromkeys(f"{scope} {tokens.get('scope') or ''}".split())
            kind = audience, frozenset(() if audience == account else scopes)
            kept = {k: t for k, t in kept.items() if k[0] != audience or k[1] - kind[1]}
            kept[kind] = tokens | {"audience": audience, "scope": " ".join(scopes)}
    data["token_sets"] = list(kept.values())
    data["connection_token_sets"] = [
        {**tokens, "audience": tokens.get("audience") or _DEFAULT_AUDIENCE}
        for tokens in data.get("connection_token_sets", [])
        if tokens["expires_at"] > now
    ]


def _apply_refresh(data: Json, refresh: Mapping[str, Any]) -> None:
    """Add what the SDK leaves out of a state after a refresh.

    Claims are renewed, so that a role that was taken away does not stay; what is
    said of the login stays as it was (OpenID Connect Core section 12.2).
    """
    for tokens in data["token_sets"]:
        if tokens["access_token"] == refresh["answer"]["access_token"]:
            tokens["scope"] = refresh["scope"]
            tokens["expires_at"] = refresh["fresh_until"]
    if claims := refresh.get("claims"):
        renewed = {n: v for n, v in claims.items() if n not in _CLAIMS_OF_THE_LOGIN}
        login = {n: v for n, v in data["user"].items() if n in _CLAIMS_OF_THE_LOGIN}
        data["user"] = renewed | login
        data["session"]["renewed_at"] = refresh["began"]
        lower_ceiling(data["internal"], claims)


def lower_ceiling(internal: Json, claims: Mapping[str, Any]) -> None:
    """Note when a session ends at the latest; it may come closer, not move away."""
    if isinstance(ceiling := claims.get("session_expiry"), int):
        known = internal.get("session_expires_at") or ceiling
        internal["session_expires_at"] = min(ceiling, known)
