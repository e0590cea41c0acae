"""The client: the SDK's `ServerClient`, made to hold up under Flask."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.error import ApiError
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from .errors import CheckFailed, ProviderDown, explain
from .one_loop import STATE_IDENTIFIER, StateStore, TransactionStore
from .settings import Settings
from .signals import (
    login_failed,
    session_revoked,
    tell,
    user_logged_in,
    user_logged_out,
)
from .tokens import TokenClient
from .turns import Store as RefreshStore
from .verification import is_fresh

logger = logging.getLogger(__name__)

#: What the stores know a login under way by.
TRANSACTION_IDENTIFIER = "_a0_tx"
_NONCE = "_auth0_nonce"  # beside an app_state
_HERE_ONLY = "_auth0_here_only"  # in the notes: a session was ended in its browser only


class Auth0Client(TokenClient):
    """The SDK's client with what it leaves open closed; used like it.

    Args:
        settings: Where they are wrong, every use raises `SetupError`.
        state_store: Where sessions are.
        transaction_store: Where logins under way are.
        refreshes: What tells who refreshes a token, and what came of it.
        options: What else `ServerClient` takes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_store: StateStore,
        transaction_store: TransactionStore,
        refreshes: RefreshStore,
        **options: Any,
    ) -> None:
        self._options = {
            "state_store": state_store,
            "state_identifier": STATE_IDENTIFIER,
            "transaction_store": transaction_store,
            "transaction_identifier": TRANSACTION_IDENTIFIER,
            **options,
        }
        super().__init__(refreshes=refreshes, **self._options)
        _clients.add(self)
        self.settings = settings
        self.sessions = state_store
        self.transactions = transaction_store

    async def start_interactive_login(
        self,
        options: StartInteractiveLoginOptions | None = None,
        store_options: dict[str, Any] | None = None,
    ) -> str:
        """Start a login; return the address at Auth0 to send the browser to."""
        options, nonce = self._with_nonce(options or StartInteractiveLoginOptions())
        try:
            url: str = await super().start_interactive_login(
                options, store_options or {}
            )
        except Exception as error:
            error.asked_directly = True  # type: ignore[attr-defined]  # for explain()
            self._forget_what_was_discovered()
            raise
        return f"{url}&nonce={nonce}" if nonce else url

    def _with_nonce(
        self, options: StartInteractiveLoginOptions
    ) -> tuple[StartInteractiveLoginOptions, str | None]:
        """Keep a nonce beside what the app keeps until the login is completed.

        The SDK takes none in its parameters, so it is put into the address. What a
        pushed request asks for is out of reach; PKCE serves the same end there.
        """
        if self.settings.pushed_authorization_requests:
            return options, None
        nonce = secrets.token_urlsafe(16)
        kept = {_NONCE: nonce, "app_state": options.app_state}
        return options.model_copy(update={"app_state": kept}), nonce

    async def complete_interactive_login(
        self, url: str, store_options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Complete a login; its transaction is used up whether it succeeds or not.

        An exception carries the ``app_state`` of the login it ended, where that is
        known, so that trying again can lead to the same page.
        """
        query = parse_qs(urlsplit(url).query)
        identifier = f"{TRANSACTION_IDENTIFIER}:{query.get('state', [''])[0]}"
        transaction = await self.transactions.get(identifier)
        before, replaced = self.sessions.sealed(), self.sessions.read()
        nonce, app_state = _apart(getattr(transaction, "app_state", None))
        self.expect_verification(nonce)
        try:
            result = await super().complete_interactive_login(url, store_options or {})
            if not self.was_verified():
                raise ApiError("missing_id_token", "There was no ID token to verify.")
            if result.pop("app_state", None) and app_state:
                result["app_state"] = app_state
            _check_freshness(result)
        except Exception as error:
            await self.transactions.delete(identifier)
            self.sessions.restore(before)
            self.expect_verification()
            error.app_state = app_state  # type: ignore[attr-defined]  # see above
            await self._tell_of_failure(error)
            raise
        await self._welcome(result["state_data"]["user"], before)
        if replaced:
            self._end(replaced)
        return result

    async def _tell_of_failure(self, error: Exception) -> None:
        explained = explain(error)
        wrong_answer = getattr(explained, "error", "") == "invalid_token"
        if wrong_answer or isinstance(explained, ProviderDown):
            self._forget_what_was_discovered()
        await tell(login_failed, error=explained)

    async def _welcome(self, user: dict[str, Any], before: str | None) -> None:
        """Tell the app's receivers; one that raises signs nobody in."""
        try:
            await tell(user_logged_in, user=user)
        except Exception as error:
            self.sessions.restore(before)
            error.is_the_apps_own = not isinstance(error, HTTPException)  # type: ignore[attr-defined]  # for failed_callback
            raise

    async def get_user(
        self, store_options: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the claims of whoever is signed in, or None."""
        self.require_setup()
        # the store has checked all that the SDK's method would check once more
        state = await self.sessions.get(STATE_IDENTIFIER)
        return None if state is None else state.get("user")

    async def get_session(
        self, store_options: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return the session of whoever is signed in, or None."""
        self.require_setup()
        return await super().get_session(store_options)

    async def logout(
        self,
        options: LogoutOptions | None = None,
        store_options: dict[str, Any] | None = None,
    ) -> str:
        """Sign out here, logins under way too; return the address to do it there.

        Auth0 takes the refresh token no more.
        Copies of the session are over, too. Where that cannot be written down, this
        goes on: `was_ended_here_only` tells.
        """
        self.require_setup()
        state = self._what_is_to_end()
        self.transactions.forget_all()
        url = await super().logout(options, store_options)
        if state:
            self._end(state)
            if token := state.get("refresh_token"):
                await self.revoke_refresh_token(token)
            await tell(user_logged_out, user=state["user"])
        return url

    async def logout_everywhere(self) -> None:
        """End all sessions of whoever is signed in, on all devices, this one too.

        Raises:
            RevocationsUnavailable: It could not be written down; nothing has changed.
        """
        self.require_setup()
        if state := self.sessions.read():
            sub = state["user"]["sub"]
            self.sessions.lifetime.end_all(sub=sub)
            await tell(session_revoked, sub=sub, sid=None)

    def was_ended_here_only(self) -> bool:
        """Tell whether copies of a session may outlive the logout of this request."""
        return bool(self.sessions.notes().get(_HERE_ONLY, False))

    def _what_is_to_end(self) -> dict[str, Any] | None:
        try:
            return self.sessions.peek()
        except ServiceUnavailable:
            self.sessions.notes()[_HERE_ONLY] = True
            return None

    def _end(self, state: dict[str, Any]) -> None:
        """End a session; where that fails its copies live until they expire."""
        try:
            self.sessions.lifetime.end(state)
        except ServiceUnavailable:
            self.sessions.notes()[_HERE_ONLY] = True
            logger.error("A session was ended in its browser only: see above.")

    def begin_anew(self) -> None:
        """Let go of the connections of the parent, in a forked child."""
        super().__init__(refreshes=self.refreshes, **self._options)


_clients: WeakSet[Auth0Client] = WeakSet()


def _begin_anew() -> None:
    for client in _clients:
        client.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


def _apart(kept: Any) -> tuple[str | None, Any]:
    """Return the nonce of a login, if it sent one, and what the app kept with it."""
    if isinstance(kept, dict) and _NONCE in kept:
        return kept[_NONCE], kept["app_state"]
    return None, kept


def _check_freshness(result: Mapping[str, Any]) -> None:
    """Hold a login that asked for ``max_age`` to it, lest it be asked for for ever."""
    app_state = result.get("app_state")
    max_age = app_state.get("max_age") if isinstance(app_state, dict) else None
    if max_age is not None and not is_fresh(result["state_data"]["user"], max_age):
        raise CheckFailed("not_fresh")
