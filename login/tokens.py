"""Access tokens: refreshed once however many want them, and what a refusal means."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from ssl import SSLContext
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
)
from flask import has_request_context, session
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from .errors import LoginError, explain
from .guards import turned_away
from .loops import network
from .one_loop import STATE_IDENTIFIER, StateStore
from .sdk import ServerClient
from .signals import tell, tokens_refreshed
from .turns import PATIENCE, Store, Turns
from .verification import VerifyingClient

logger = logging.getLogger(__name__)

_REFRESHED = "_auth0_refreshed"  # in the notes: this request asked for a new token
#: Seconds that an access token is taken to last if the provider does not say.
_USUAL_LIFE = 3600
_MISSING = AccessTokenForConnectionErrorCode.MISSING_REFRESH_TOKEN
#: Seconds for the token request, and for keys to verify an ID token with; together
#: less than `PATIENCE`, since an answer that has come must not be lost.
_TOKEN_PATIENCE, _KEYS_PATIENCE = 6.0, 1.5
#: Seconds that a logout waits for the refresh token to be revoked.
_REVOCATION_PATIENCE = 2.0
#: What the SDK calls an answer that is none of OAuth's, and OAuth's words for trouble.
_OUTAGES = {
    *("refresh_token_error", "connection_token_error", "configuration_error"),
    *("metadata_error", "server_error", "temporarily_unavailable"),
}


class TokenClient(VerifyingClient):
    """Hands out access tokens, through outages and under load."""

    def __init__(self, *, refreshes: Store, **options: Any) -> None:
        super().__init__(**options)
        self._seal: StateStore = options["state_store"]
        self.share_refreshes(refreshes)

    def share_refreshes(self, refreshes: Store) -> None:
        """Let all who use this store refresh a token once between them."""
        self.refreshes = refreshes
        self._turns = Turns(refreshes, self._seal)

    async def get_access_token(
        self,
        store_options: dict[str, Any] | None = None,
        audience: str | None = None,
        scope: str | None = None,
    ) -> str:
        """Return an access token, refreshed shortly before it ends.

        Args:
            store_options: For the stores; ours take none.
            audience: The API it is for; that of the settings if left out.
            scope: What it is to allow, beyond the scope of the settings.

        Raises:
            AccessTokenError: There is no refresh token, or Auth0 refuses.
            MfaRequiredError: Auth0 asks for a second factor.
            HTTPException: The session was over, and is ended (RFC 6749 section
                5.2, ``invalid_grant``): off to login, or 401 for a program.
            ProviderDown: Nothing has changed; the next try may work.
        """
        self.require_setup()
        self.sessions.notes().pop(_REFRESHED, None)
        try:
            token: str = await super().get_access_token(store_options, audience, scope)
        except AccessTokenError as error:
            if (told := await self._told_apart(error)) is error:
                raise
            raise told from error
        await self._tell_of_refresh()
        return token

    async def get_access_token_for_connection(
        self, options: dict[str, Any], store_options: dict[str, Any] | None = None
    ) -> str:
        """Return an access token of a connection, such as Google's.

        Raises:
            AccessTokenForConnectionError: There is no refresh token, or Auth0 refuses.
            ProviderDown: Nothing has changed; the next try may work.
        """
        self.require_setup()
        try:
            token: str = await super().get_access_token_for_connection(
                options, store_options
            )
        # a TypeError is what the SDK makes of its own error for an outage
        except (AccessTokenForConnectionError, TypeError, TimeoutError) as error:
            code = getattr(error, "code", None)
            is_refusal = code == AccessTokenForConnectionErrorCode.API_ERROR
            if code == _MISSING or (is_refusal and not _is_outage(error.__context__)):
                raise
            raise _down(error) from error
        return token

    async def get_token_by_refresh_token(
        self, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Refresh, or wait for whoever is refreshing the same; see `Turns`.

        An answer without scope grants what was asked for (RFC 6749 section 5.1).
        """
        self.require_setup()
        if not (token := options.get("refresh_token")):
            return dict(await super().get_token_by_refresh_token(options))
        scope = " ".join(sorted((options.get("scope") or "").split()))
        purpose = f"refresh {options.get('audience') or ''} {scope}"
        exchange = partial(self._refresh, options)
        fresh, is_first = await self._turns.take(token, purpose, exchange)
        if has_request_context():
            self._check_user(fresh["claims"])
            self.sessions.expect(fresh)
            self.sessions.notes()[_REFRESHED] = is_first
        answer: dict[str, Any] = fresh["answer"]
        return answer

    async def get_token_for_connection(self, options: dict[str, Any]) -> dict[str, Any]:
        """Exchange a refresh token for a connection's access token.

        The SDK's own answer lacks ``expires_in``, by which it is kept.
        """
        self.require_setup()
        if not (token := options.get("refresh_token")):
            return dict(await super().get_token_for_connection(options))
        purpose = f"connection {options['connection']} {options.get('login_hint')}"
        exchange = partial(self._exchange_for_connection, options)
        found, _ = await self._turns.take(token, purpose, exchange)
        answer: dict[str, Any] = found["answer"]
        left = max(0, int(answer["expires_at"] - time.time()))
        return {**answer, "expires_in": left}

    def keep_newest_token(self, response: Response) -> Response:
        """Take over a refresh token that was replaced meanwhile; for after a view.

        Where a slow answer's cookie brought the old one back, it would be refused
        later, and whoever it belongs to be signed out (RFC 9700 section 4.14.2).
        """
        if self.sessions.is_open() and session.modified:
            try:
                self._catch_up(self.sessions.read() or {})
            except Exception as error:  # the answer itself is good
                kind = type(error).__name__
                logger.error(
                    "Whether a refresh token was replaced is not known: %s", kind
                )
        return response

    def _catch_up(self, state: dict[str, Any]) -> None:
        if token := state.get("refresh_token"):
            newest = self._turns.newest(token)
            if newest != token:
                fresh = {**state, "refresh_token": newest}
                self.sessions.keep(STATE_IDENTIFIER, fresh)

    def _refresh(self, options: Mapping[str, Any], token: str) -> dict[str, Any]:
        options = {**options, "refresh_token": token}
        return network.call(self._refreshed(options), PATIENCE)

    async def _refreshed(self, options: dict[str, Any]) -> dict[str, Any]:
        began, scope = time.time(), options.get("scope") or ""
        request = ServerClient.get_token_by_refresh_token(self, options)
        found = await asyncio.wait_for(request, _TOKEN_PATIENCE)
        if not isinstance(found, dict) or not isinstance(found["access_token"], str):
            raise TypeError("there is no access token in the answer")
        life = _life(found.get("expires_in"))
        answer = {**found, "expires_in": life, "scope": found.get("scope") or scope}
        claims = await self._claims_of(answer)
        if claims is None:
            answer.pop("id_token", None)
        return {
            "answer": answer,
            "scope": f"{scope} {answer['scope']}",  # to be found by either
            "fresh_until": self.sessions.fresh_until(began, life),
            "claims": claims,
        }

    def _exchange_for_connection(
        self, options: Mapping[str, Any], token: str
    ) -> dict[str, Any]:
        options = {**options, "refresh_token": token}
        exchange = ServerClient.get_token_for_connection(self, options)
        answer = dict(network.call(exchange, PATIENCE))
        if not isinstance(answer["access_token"], str):
            raise TypeError("there is no access token in the answer")
        return {"answer": answer, "fresh_until": answer["expires_at"]}

    async def _claims_of(self, answer: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the claims of a refreshed ID token, or None if they do not hold.

        The tokens beside it are good all the same, and must not be lost for it.
        """
        if not (id_token := answer.get("id_token")):
            return None
        try:
            return await asyncio.wait_for(self._verified(id_token), _KEYS_PATIENCE)
        except Exception as error:
            logger.error("A refreshed ID token was put aside: %s", type(error).__name__)
            return None

    def _check_user(self, claims: Mapping[str, Any] | None) -> None:
        """See that a refresh is of the same user (OpenID Connect Core section 12.2)."""
        state = self.sessions.read()
        if claims and state and claims["sub"] != state["user"]["sub"]:
            raise AccessTokenError(
                AccessTokenErrorCode.REFRESH_TOKEN_ERROR,
                "The refresh brought the tokens of another user.",
            )

    async def _tell_of_refresh(self) -> None:
        if (
            self.sessions.notes().pop(_REFRESHED, False)
            and not network.is_running_here()
        ):
            state = self.sessions.read() or {}
            await tell(tokens_refreshed, user=state.get("user"))

    async def _told_apart(self, error: AccessTokenError) -> Exception:
        """Tell what the SDK wraps in one and the same: what is Auth0 saying?"""
        if error.code != AccessTokenErrorCode.REFRESH_TOKEN_ERROR:
            return error
        what = error.cause or error.__context__
        if isinstance(what, HTTPException):
            return what
        if isinstance(what, ApiError) and what.code == "invalid_grant":
            logger.info("A session was ended: Auth0 takes its refresh token no more.")
            await self._end_session()
            return turned_away()
        return _down(error) if _is_outage(what) else error

    async def _end_session(self) -> None:
        if state := self.sessions.read():
            await self.sessions.delete(STATE_IDENTIFIER)
            with suppress(ServiceUnavailable):  # this copy is gone in any case
                await asyncio.to_thread(self.sessions.lifetime.end, state)

    async def revoke_refresh_token(self, token: str) -> None:
        """Have a refresh token be good no more (RFC 7009); log where that fails."""
        try:
            await network.run(
                asyncio.wait_for(self._revoke(token), _REVOCATION_PATIENCE)
            )
        except Exception as error:  # whatever it is, nobody stays signed in for it
            kind = type(error).__name__
            logger.error("A refresh token was not revoked at logout: %s", kind)

    async def _revoke(self, token: str) -> None:
        url = f"https://{self.settings.domain}/oauth/revoke"
        form = {
            "token": token,
            "token_type_hint": "refresh_token",
            **self._credential(),
        }
        async with httpx.AsyncClient(verify=_trusted()) as http:
            (await http.post(url, data=form)).raise_for_status()

    def _credential(self) -> dict[str, str]:
        """Return what proves who we are (RFC 6749 section 2.3.1, RFC 7523)."""
        settings = self.settings
        ours = {"client_id": settings.client_id}
        if key := settings.client_assertion_signing_key:
            issuer = f"https://{settings.domain}/"
            assertion = build_client_assertion(key, settings.client_id, issuer)
            kind = CLIENT_ASSERTION_TYPE
            return {
                **ours,
                "client_assertion": assertion,
                "client_assertion_type": kind,
            }
        return {**ours, "client_secret": settings.client_secret or ""}


def _down(error: Exception) -> HTTPException:
    explained = explain(error, doing="Getting an access token")
    if isinstance(explained, LoginError):
        explained.title = "That did not work just now"
    return explained


def _is_outage(error: object) -> bool:
    """Tell whether an answer was none that Auth0 gives on purpose."""
    return not isinstance(error, ApiError) or error.code in _OUTAGES


def _life(expires_in: object) -> int:
    """Return how many seconds an access token lasts (RFC 6749 section 5.1)."""
    try:
        return int(expires_in)  # type: ignore[call-overload,no-any-return]  # whatever came
    except (TypeError, ValueError):
        return _USUAL_LIFE


@lru_cache(maxsize=1)
def _trusted() -> SSLContext:
    return httpx.create_ssl_context()
