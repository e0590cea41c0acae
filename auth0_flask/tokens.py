"""Access tokens: refreshed once however many ask, and what a refusal means."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
from auth0_server_python.auth_schemes.client_assertion import (
    CLIENT_ASSERTION_TYPE,
    build_client_assertion,
)
from auth0_server_python.error import (
    AccessTokenError,
    AccessTokenErrorCode,
    AccessTokenForConnectionError,
    AccessTokenForConnectionErrorCode,
    ApiError,
    MissingRequiredArgumentError,
)
from flask import Response, has_request_context, session
from flask.sessions import SessionMixin
from werkzeug.exceptions import HTTPException

from .errors import OUTAGES, StoreUnavailable, login_error
from .redirects import login_again
from .refresh_lock import EXCHANGE_SECONDS, newest_refresh, refresh_once
from .settings import Settings
from .signals import send, tokens_refreshed
from .stores import FlaskSessionStateStore, request_state
from .stores.base import RequestState, SessionTooLarge
from .stores.cookies import STATE_KEY, SplitSession
from .stores.session import apply_expiry_margin
from .stores.shared import SessionRejected, shared_store
from .verification import Verifier, token_responses

logger = logging.getLogger(__name__)

Options = dict[str, Any]
AskAuth0 = Callable[[Options], Coroutine[Any, Any, Any]]  # a method of the SDK's

#: Seconds that an access token is taken to last if the provider does not say.
_USUAL_LIFE = 3600
_TEN_YEARS = 315_360_000
#: Seconds for the token request, and for keys to verify an ID token with; together
#: less than `EXCHANGE_SECONDS`, since an answer that has come must not be lost.
_TOKEN_SECONDS, _KEYS_SECONDS = 6.0, 1.5
#: Seconds that a logout waits for the refresh token to be revoked.
_REVOCATION_SECONDS = 2.0


class Refresher:
    """Refreshes and exchanges tokens, through outages and under load."""

    def __init__(self, sessions: FlaskSessionStateStore, verifier: Verifier) -> None:
        self._sessions, self._verifier = sessions, verifier

    async def refresh(self, options: Options, ask: AskAuth0) -> Options:
        """Return the answer; one without scope grants what was asked for."""
        scope = " ".join(sorted((options.get("scope") or "").split()))
        purpose = f"refresh {options.get('audience') or ''} {scope}"
        work = partial(self._refreshed, ask)
        is_request, since = has_request_context(), 0.0
        known = request_state() if is_request else RequestState()
        mine: set[str] = set()
        if state := self._sessions.load() if is_request else None:
            since = state["session"].get("renewed_at", 0.0)
            # and what another call of this request has replaced
            mine = {state.get("refresh_token", ""), *known.seen}
        if known.renewing:
            since = max(known.renewing, since + 1e-6)
        found, is_new = await self._once(options, purpose, work, since)
        if options["refresh_token"] in mine:
            state, claims = self._sessions.load(), found["claims"]
            # OpenID Connect Core section 12.2
            if claims and state and claims.get("sub") != state["user"]["sub"]:
                raise AccessTokenError(
                    AccessTokenErrorCode.REFRESH_TOKEN_ERROR,
                    "The refresh brought the tokens of another user.",
                )
            known.refresh, known.refreshed = found, is_new
        if known.renewing:
            known.renewing = found["began"]
            if not found["claims"]:
                raise ApiError("missing_id_token", "There was no ID token to verify.")
        answer: Options = found["answer"]
        return {**answer, "expires_at": int(found["began"]) + answer["expires_in"]}

    async def exchange_for_connection(self, options: Options, ask: AskAuth0) -> Options:
        """Return the answer, with ``expires_in``, which that of the SDK lacks."""
        purpose = f"connection {options.get('connection')} {options.get('login_hint')}"
        work = partial(self._exchanged, ask)
        found, _ = await self._once(options, purpose, work)
        answer: Options = found["answer"]
        left = max(0, int(answer["expires_at"] - time.time()))
        return {**answer, "expires_in": left}

    async def finish(self) -> None:
        """Tell the receivers of `tokens_refreshed` where this request refreshed."""
        known = request_state()
        if known.refreshed:
            known.refreshed = False
            state = self._sessions.load() or {}
            await send(tokens_refreshed, user=state.get("user"))

    async def failed(self, error: AccessTokenError) -> Exception:
        """Return what stands for a failed refresh: the error itself for a refusal."""
        if error.code != AccessTokenErrorCode.REFRESH_TOKEN_ERROR:
            return error
        cause = error.cause or error.__context__
        if isinstance(cause, HTTPException):
            return cause
        if isinstance(cause, ApiError) and cause.code == "invalid_grant":
            logger.info(
                "Refresh token revoked or expired (invalid_grant); session ended."
            )
            known, again = request_state(), login_again()  # by the session that ends
            with suppress(StoreUnavailable):  # this copy is gone in any case
                if state := self._sessions.load(known):
                    self._sessions.lifetime.end(state)
                    known.encrypted = None
                if self._sessions.load(known) is None:  # it says whose data is left
                    return again
            self._sessions.clear()
            return again
        return _outage(error) if _is_outage(cause) else error

    def after_view(self, response: Response) -> Response:
        """Note the use of a session, and take over its newest refresh token.

        One that is over by now is not written, nor what the app keeps with it.

        Where a slow response's cookie brought the old one back, it would be refused
        later, and its user signed out (RFC 9700 section 4.14.2).
        """
        known = request_state()
        if known.session:  # else looking at `session` would say "Vary: Cookie"
            opened = session._get_current_object()  # type: ignore[attr-defined]  # Flask documents it
            if opened.get(STATE_KEY) != known.encrypted:
                known.session = None  # the app has cleared `session` since
            elif not known.outage:
                self._sessions.note_use(known)
            is_written = opened.modified or getattr(opened, "ours_changed", False)
            if known.session and (known.refreshed or is_written):
                self._check_written(known, known.session, opened)
        known.responded = True
        return response

    def _check_written(
        self, known: RequestState, state: Options, opened: SessionMixin
    ) -> None:
        """Write nothing of a session that is over by now, and no old token."""
        # one that this login began has it, one that an account was linked to need not
        begun_at = state["session"].get("begun_at", 0)
        is_new = begun_at >= (known.began or float("inf"))
        if is_new and not known.refreshed:
            return
        received = getattr(opened, "received", opened)  # with Redis without a session
        try:
            if STATE_KEY in received and not (is_new or known.has_ended):
                self._sessions.lifetime.check(state)
            if known.refreshed or getattr(opened, "ours_changed", True):
                self._take_newest_token(known, state)
        except SessionRejected:  # a newer one may have begun in this browser
            opened[STATE_KEY], opened.modified = received[STATE_KEY], False
            if isinstance(opened, SplitSession):
                opened.is_over = True
        except Exception as error:  # the response itself is good
            kind = type(error).__name__
            logger.error("A session could not be checked before its write: %s", kind)

    def _take_newest_token(self, known: RequestState, state: Options) -> None:
        token = state.get("refresh_token")
        since = state["session"].get("renewed_at", 0.0)
        newest = token and newest_refresh(shared_store(), self._sessions, token, since)
        if not newest:
            return
        claims = newest.get("claims") or {}
        if claims.get("sub", state["user"]["sub"]) != state["user"]["sub"]:
            raise ValueError("it is another user's")
        known.refresh = newest  # its claims are newer, too
        # access tokens from before it are not used again
        sets = [
            t if t["access_token"] in known.brought else {**t, "expires_at": 0}
            for t in state["token_sets"]
        ]
        token = newest["answer"].get("refresh_token", token)
        new = {**state, "refresh_token": token, "token_sets": sets}
        try:
            self._sessions.save(new)
        except SessionTooLarge:  # with the new claims; without them it may fit
            self._sessions.save(new)

    async def _once(
        self, options: Options, purpose: str, work: AskAuth0, since: float = 0.0
    ) -> tuple[Options, bool]:
        def exchange(token: str) -> Options:
            asking = work({**options, "refresh_token": token})
            return asyncio.run(asyncio.wait_for(asking, EXCHANGE_SECONDS))

        if not (token := options.get("refresh_token")):
            raise MissingRequiredArgumentError("refresh_token")
        return await refresh_once(
            shared_store(), self._sessions, token, purpose, exchange, since
        )

    async def _refreshed(self, ask: AskAuth0, options: Options) -> Options:
        began, scope = time.time(), options.get("scope") or ""
        found = await _answer_to(ask, options)
        life = _life(found.get("expires_in"))
        granted = found.get("scope")
        granted = granted if granted and isinstance(granted, str) else scope
        answer = {**found, "expires_in": life, "scope": granted}
        if not answer.get("refresh_token"):
            answer.pop("refresh_token", None)  # that which there is goes on
        claims = await self._claims_of(answer)
        if claims is None:
            answer.pop("id_token", None)
        return {
            "answer": answer,
            "scope": f"{scope} {granted}",  # to be found by either
            "fresh_until": apply_expiry_margin(began, life),
            "claims": claims,
        }

    async def _exchanged(self, ask: AskAuth0, options: Options) -> Options:
        answer = dict(await ask(options))
        if not isinstance(answer["access_token"], str):
            raise TypeError("the response has no access token")
        return {"answer": answer, "fresh_until": answer["expires_at"]}

    async def _claims_of(self, answer: Mapping[str, Any]) -> Options | None:
        """Return the claims of a refreshed ID token, or None if it is not valid.

        The tokens beside it are good all the same, and must not be lost for it.
        """
        if not (id_token := answer.get("id_token")):
            return None
        try:
            async with asyncio.timeout(_KEYS_SECONDS):
                return await self._verifier.verify(id_token)
        except Exception as error:
            kind = type(error).__name__
            logger.error("A refreshed ID token was rejected: %s", kind)
            return None


async def revoke(
    settings: Settings, open_client: Callable[[], httpx.AsyncClient], token: str
) -> None:
    """Revoke a refresh token (RFC 7009); log where that fails."""
    client_id, issuer = settings.client_id, f"https://{settings.domain}/"
    form = {"token": token, "token_type_hint": "refresh_token", "client_id": client_id}
    try:
        if key := settings.client_assertion_signing_key:  # RFC 7523 section 2.2
            form["client_assertion_type"] = CLIENT_ASSERTION_TYPE
            form["client_assertion"] = build_client_assertion(key, client_id, issuer)
        else:
            form["client_secret"] = settings.client_secret or ""
        async with asyncio.timeout(_REVOCATION_SECONDS), open_client() as http:
            (await http.post(f"{issuer}oauth/revoke", data=form)).raise_for_status()
    except Exception as error:  # whatever it is, nobody stays signed in for it
        kind = type(error).__name__
        logger.error("A refresh token was not revoked at logout: %s", kind)


async def _answer_to(ask: AskAuth0, options: Options) -> Options:
    """Return what the token endpoint answered, also where the SDK trips over it.

    An answer with a token is never thrown away: the refresh token that was replaced
    is good no more.
    """
    collected: list[Options] = []
    reset = token_responses.set(collected)
    try:
        found = await asyncio.wait_for(ask(options), _TOKEN_SECONDS)
    except (AccessTokenError, TypeError, ValueError, OverflowError):
        found = collected[-1] if collected else None
        if not isinstance(found, dict) or "access_token" not in found:
            raise
    finally:
        token_responses.reset(reset)
    if not isinstance(found, dict) or not isinstance(found["access_token"], str):
        raise TypeError("the response has no access token")
    return found


def connection_failure(error: Exception) -> Exception:
    """Return what stands for a failed exchange: the error itself for a refusal."""
    codes, code = AccessTokenForConnectionErrorCode, getattr(error, "code", None)
    refused = code == codes.API_ERROR and not _is_outage(error.__context__)
    if refused or code == codes.MISSING_REFRESH_TOKEN:
        return error
    return _outage(error)


#: What the SDK raises there; a TypeError is what it makes of its own error.
CONNECTION_ERRORS = (AccessTokenForConnectionError, TypeError, TimeoutError)


def _outage(error: Exception) -> Exception:
    """Return the page for an outage while a token was asked for."""
    found = login_error(error, doing="Getting an access token")
    if found is not None:
        found.title = "That did not work just now"
    return found or error


def _is_outage(error: object) -> bool:
    """Tell whether an answer was none that Auth0 gives on purpose."""
    return not isinstance(error, ApiError) or error.code in OUTAGES


def _life(expires_in: Any) -> int:
    """Return how many seconds an access token lasts (RFC 6749 section 5.1)."""
    try:
        return max(1, min(int(expires_in), _TEN_YEARS))
    except (TypeError, ValueError, OverflowError):
        return _USUAL_LIFE
