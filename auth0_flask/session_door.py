"""The one door: however the SDK signs somebody in, the session begins here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

import jwt
from auth0_server_python.auth_server import PasswordlessClient
from auth0_server_python.error import ApiError, Auth0Error, MissingTransactionError
from auth0_server_python.store import StateStore
from auth0_server_python.utils.helpers import validate_org_claims
from flask import current_app, redirect, request, session
from flask.sessions import session_json_serializer
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException

from .errors import (
    CallbackError,
    CheckFailed,
    LoginError,
    ProviderDown,
    StoreUnavailable,
    error_chain,
    login_error,
)
from .redirects import after_silent_login, home, login_url
from .settings import Settings
from .signals import Signal, login_failed, send, user_logged_in, user_logged_out
from .stores import FlaskSessionStateStore, request_state
from .stores.base import RequestState, as_dict
from .stores.cookies import STATE_KEY, is_ours
from .stores.encryption import MAX_CHARACTERS, Json
from .stores.session import lower_ceiling, renew_id
from .stores.shared import SessionRejected, digest, shared_store
from .stores.transactions import (
    TRANSACTION_SECONDS,
    forget_transactions,
    transaction_keys,
)
from .verification import Verifier, check_nonce, unproved

logger = logging.getLogger(__name__)
#: Seconds that Auth0 has for all that a login asks it, however slowly bytes arrive.
LOGIN_SECONDS = 8.0
#: Seconds that a second request of a callback gets the result of the first.
_CALLBACK_SECONDS = 30.0


class SessionDoor(StateStore):
    """What the SDK has for a store of sessions; only `set` adds to the store behind."""

    def __init__(
        self, settings: Settings, sessions: FlaskSessionStateStore, verifier: Verifier
    ) -> None:
        self._settings, self._sessions, self._verifier = settings, sessions, verifier

    async def get(self, identifier: str, options: Json | None = None) -> Json | None:
        """Return a state, or None."""
        self._settings.require()
        return await self._sessions.get(identifier)

    async def delete(self, identifier: str, options: Json | None = None) -> None:
        """Forget a state."""
        await self._sessions.delete(identifier)

    async def set(
        self,
        identifier: str,
        state: Json | BaseModel,
        remove_if_expires: bool = False,
        options: Json | None = None,
    ) -> None:
        """Keep a state; one without our own field is that of a login.

        Whatever is raised, also by a receiver of `user_logged_in`, nothing has changed.
        """
        if identifier != STATE_KEY:
            await self._sessions.set(identifier, state)
            return
        data, known = as_dict(state), request_state()
        if (own := data.get("session")) is None:
            if known.links:
                await self._check_same_user(data, known)
            else:
                await self._begin(data, known)
            return
        current = self._sessions.load()
        if current is None or current["session"]["id"] != own["id"]:
            return  # it was ended while the SDK was asking
        answer = (known.refresh or {}).get("answer") or {}
        brought = {value for value in answer.values() if isinstance(value, str)}
        known.seen = known.seen | _tokens(current)
        if not brought and _tokens(data) <= known.seen:
            # perhaps from before another call of this request
            connections = data.get("connection_token_sets") or []
            data = {**current, "connection_token_sets": connections}
        known.brought |= _tokens(data) - _tokens(current)
        if _tokens(data) <= _tokens(current) | brought:
            # at once: parallel calls would be taken for one another
            self._sessions.save(data)
            return
        if data.get("id_token") == current.get("id_token"):
            data["id_token"] = None  # it says nothing of whose the new tokens are
        claims = await self._claims_of(data, known)
        if claims["sub"] == current["user"]["sub"]:
            lower_ceiling(data["internal"], claims)
            renew_id()  # a copy of the old one has no part in it
            self._sessions.save({**data, "user": claims})
        else:
            await self._begin(_new_tokens_only(data, _tokens(current)), known)

    async def _check_same_user(self, state: Json, known: RequestState) -> None:
        """See that a linked account is that of the user whose session stays."""
        claims, current = await self._claims_of(state, known), self._sessions.load()
        if current is None or current["user"]["sub"] != claims["sub"]:
            raise CheckFailed("another_user")

    async def _begin(self, state: Json, known: RequestState) -> None:
        """Begin a session: user and ``sid`` are those of the verified ID token."""
        if not known.transaction:  # a callback noted it before it asked Auth0
            known.began = shared_store().now()
        claims = await self._claims_of(state, known)
        if missing := unproved(claims, known.wanted):
            raise CheckFailed(missing)
        internal = dict(state.get("internal") or {})
        internal["sid"] = claims.get("sid") or internal.get("sid")
        lower_ceiling(internal, claims)
        state = {**state, "user": claims, "internal": internal, "session": None}
        previous = self._sessions.load_unchecked()
        replaced = self._sessions.load() if previous else None
        is_other = replaced and replaced["user"]["sub"] != claims["sub"]
        if is_other and known.wanted.get("transferred"):
            raise CheckFailed("another_user")  # who followed that link chose nobody
        before = dict(session)
        try:
            if previous and previous["user"]["sub"] != claims["sub"]:
                self._sessions.forget_app_data()
            await _tell(user_logged_in, claims)
            state = self._sessions.save(state)
            # perhaps a logout came while the login was being completed
            self._sessions.lifetime.check(state, known.transaction)
        except SessionRejected as reason:
            logger.info("Login rejected: %s.", reason)
            self._sessions.rollback(before)
            with suppress(StoreUnavailable):  # it takes it off the list of devices
                self._sessions.lifetime.end(state)
            raise CheckFailed("logged_out_meanwhile") from None
        except Exception:
            self._sessions.rollback(before)
            raise
        if replaced:
            try:
                self._sessions.lifetime.end(replaced)
            except StoreUnavailable:
                logger.error(
                    "The session before a login could not be ended, see above."
                )
            if replaced["user"]["sub"] != claims["sub"]:
                kept = dict(session)
                try:
                    await _tell(user_logged_out, replaced["user"])
                finally:  # it is the next user's by now
                    self._sessions.rollback(kept)

    async def _claims_of(self, state: Json, known: RequestState) -> Json:
        if not (id_token := state.get("id_token")):
            words = "No ID token, so nobody was signed in. Add openid to the scope."
            raise ApiError("missing_id_token", words)
        claims = known.verified.get(id_token)
        claims = claims or await verify_id_token(self._verifier, id_token)
        if (wanted := self._settings.organization) and not known.transaction:
            validate_org_claims(claims, wanted)  # the SDK does so after a redirect only
        return claims

    async def once(
        self, url: str, work: Callable[[str], Coroutine[Any, Any, Json]]
    ) -> Json:
        """Redeem a code once; a second request of the same callback gets the result."""
        shared, known = shared_store(), request_state()
        name = digest(f"callback {urlsplit(url).query}")
        # held for as long as there is a result
        while (release := shared.lock(name, _CALLBACK_SECONDS)) is None:
            if encrypted := shared.result(name):
                known.nonce, kept = None, self._sessions.decrypt(name, encrypted)
                app_part = session_json_serializer.loads(kept.pop("app"))
                state = self._sessions.adopt(kept.pop("session"), app_part)
                return {"state_data": state, **kept}
            await asyncio.sleep(0.02)
        try:
            known.began = shared.now()
            async with asyncio.timeout(LOGIN_SECONDS) as known.timeout:
                result = await work(url)
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires by itself
                release()
            raise
        kept = {"session": self._sessions.load_unchecked(), "app": "null"}
        with suppress(TypeError):  # an interface of the app's may keep more than JSON
            app_part = {key: v for key, v in session.items() if not is_ours(key)}
            kept["app"] = session_json_serializer.dumps(app_part)
        kept |= {n: v for n, v in result.items() if n == "connected_account"}
        encrypted = self._sessions.encrypt(name, kept)
        if len(encrypted) > MAX_CHARACTERS:  # it would not decrypt
            encrypted = self._sessions.encrypt(name, {**kept, "app": "null"})
        with suppress(StoreUnavailable):  # only a second request needs it
            shared.keep_result(name, encrypted, _CALLBACK_SECONDS)
        return result

    async def fail(self, error: Exception, app_state: Any) -> NoReturn:
        """Raise the `LoginError` that stands for an error; or the app's own error."""
        own, silent = _of_receiver(error), after_silent_login(app_state)
        if silent and isinstance(error, CallbackError):  # a guest at Auth0, too
            raise silent
        found = None if own else login_error(error)
        if found is None:
            raise own or error
        found.app_state = app_state
        found.login_url = login_url(found)
        if isinstance(found, ProviderDown) or found.error == "invalid_token":
            self._verifier.forget()
        await send(login_failed, error=found)
        is_unknown = isinstance(error, MissingTransactionError) and app_state is None
        if is_unknown and "code" in request.args and transaction_keys():
            # most likely another tab's login took its cookie's place
            raise HTTPException(response=redirect(home()))
        raise silent or found from (None if found is error else error)

    def session_to_end(self) -> Json | None:
        """Return the session that a logout ends, or None where it is over already."""
        try:
            state = self._sessions.load()
            if state is None and self._sessions.load_unchecked():
                self._sessions.forget_app_data()  # what says whose it is, goes
            return state
        except StoreUnavailable:
            request_state().logout_incomplete = True
        with suppress(StoreUnavailable):
            return self._sessions.load_unchecked()
        return None

    def end(self, state: Json) -> None:
        """End a session; where that fails its copies live until they expire."""
        try:
            self._sessions.lifetime.end(state)
        except StoreUnavailable:
            request_state().logout_incomplete = True
            logger.error(
                "Logout incomplete: the session ended in its browser only, see above."
            )


class Passwordless(PasswordlessClient):
    """The SDK's, which would have ``store_options`` that our stores do not need."""

    async def start(self, options: Any, store_options: Json | None = None) -> Any:
        """Send a code or a link."""
        return await super().start(options, store_options or {})


def end_logins() -> None:
    """End the logins of this browser, also one whose callback is being answered."""
    if keys := forget_transactions():
        until = time.time() + TRANSACTION_SECONDS
        try:
            shared_store().revoke_eventually(keys, until=until)
        except StoreUnavailable:
            request_state().logout_incomplete = True


async def verify_id_token(verifier: Verifier, id_token: str) -> Json:
    """Verify an ID token, and its nonce where this request expects one.

    Its claims are without the nonce, which has served its purpose.
    """
    known = request_state()
    claims = await verifier.verify(id_token)
    if known.nonce is not None:
        check_nonce(claims, known.nonce)
        del claims["nonce"]
        known.nonce = None
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise jwt.InvalidTokenError("it has no sub")
    known.verified = {**known.verified, id_token: claims}
    return dict(claims)


async def _tell(signal: Signal, user: Json) -> None:
    """Tell the app's receivers, however long they take; what they raise is theirs."""
    known = request_state()
    with suppress(RuntimeError):  # it was that of another login
        if known.timeout:
            known.timeout.reschedule(None)
    try:
        await send(signal, user=user)
    except Exception as error:
        if not isinstance(error, HTTPException):
            known.receiver_error = error
        raise


def _tokens(state: Mapping[str, Any]) -> set[str]:
    found = {state.get("id_token"), state.get("refresh_token")}
    found |= {tokens["access_token"] for tokens in state.get("token_sets") or []}
    return {token for token in found if token}


def _new_tokens_only(state: Json, old: set[str]) -> Json:
    """Return a state without what is another user's."""
    sets, refresh = state.get("token_sets") or [], state.get("refresh_token")
    return {
        **state,
        "refresh_token": None if refresh in old else refresh,
        "token_sets": [t for t in sets if t["access_token"] not in old],
        "connection_token_sets": [],
        "internal": {},
    }


def answer_uncaught(error: Auth0Error | LoginError) -> Any:
    """Answer what the SDK raised, or wrapped, and no view caught."""
    if own := _of_receiver(error):
        return current_app.handle_user_exception(own)
    chain, found = list(error_chain(error)), login_error(error, doing="The SDK")
    if found is not None and found not in chain:
        found.title = "That did not work just now"
    answer = found or next((c for c in chain if isinstance(c, HTTPException)), None)
    if answer is None:
        raise error
    return current_app.handle_http_exception(answer)


def _of_receiver(error: Exception) -> Exception | None:
    """Return the error of a receiver of the app's that is behind another, or None."""
    own = request_state().receiver_error
    return own if own in list(error_chain(error)) else None
