"""The client: the SDK's `ServerClient`, made to hold up under Flask."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

import jwt
from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.error import ApiError
from flask import current_app, g, has_request_context
from werkzeug.exceptions import HTTPException

from .errors import CheckFailed, ProviderDown, explain
from .loops import network
from .sdk import ServerClient
from .settings import Settings, SetupError
from .signals import login_failed, tell, user_logged_in, user_logged_out

#: What the stores know a session and a login under way by.
STATE_IDENTIFIER = "_a0_session"
TRANSACTION_IDENTIFIER = "_a0_tx"
_VERIFIED = "_auth0_verified"  # in g: an ID token was, in this request
#: Seconds that the provider's clock and ours may differ by.
CLOCK_TOLERANCE = 60

_STAY_ON_THE_CALLERS_LOOP = {"get_user", "get_session", "logout"}


def is_fresh(user: Mapping[str, Any], max_age: float) -> bool:
    """Tell whether somebody proved who they are that many seconds ago at most.

    OpenID Connect Core section 3.1.3.7, step 13; clocks may differ.
    """
    auth_time = user.get("auth_time")
    if not isinstance(auth_time, int | float):
        return False
    return time.time() - auth_time <= max_age + CLOCK_TOLERANCE


class StateStore(Protocol):
    """What the client asks of a store of sessions, beyond what the SDK does."""

    def read(self) -> dict[str, Any] | None:
        """Return the session, or None."""

    def sealed(self) -> str | None:
        """Return the session as it lies in ``flask.session``."""

    def restore(self, sealed: str | None) -> None:
        """Put back what `sealed` returned."""

    def ends_at(self, state: Mapping[str, Any]) -> float:
        """Return when a session ends, if it is not used again."""

    def keep(self, identifier: str, state: dict[str, Any]) -> None:
        """Keep one."""

    async def delete(self, identifier: str) -> None:
        """Forget it."""


class TransactionStore(Protocol):
    """What the client asks of a store of logins under way."""

    async def get(self, identifier: str) -> Any:
        """Return one, or None."""

    async def delete(self, identifier: str) -> None:
        """Forget one."""

    def forget_all(self) -> None:
        """Forget all."""


class _OneLoopClient(ServerClient[Any]):
    """Runs what can reach the network on one loop, whichever loop it is called from.

    The methods are set below: every public coroutine method but those that only
    look into the session.
    """

    settings: Settings
    sessions: StateStore

    def require_setup(self) -> None:
        """Raise `SetupError` where the settings are wrong, but not in tests."""
        if self.settings.problems and not (current_app and current_app.testing):
            raise SetupError(self.settings.problems)

    def read_session(self) -> dict[str, Any] | None:
        """Return the session without awaiting anything, or None if signed out.

        The same as ``await get_session()``, for sync views, guards and templates.
        """
        self.require_setup()
        return self.sessions.read()


def _on_the_network_loop(
    method: Callable[..., Awaitable[Any]],
) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def call(self: _OneLoopClient, *args: Any, **kwargs: Any) -> Any:
        if network.is_running_here():  # the SDK calls itself
            return await method(self, *args, **kwargs)
        self.require_setup()
        if has_request_context():
            self.read_session()  # what may block is done here, not on that loop
        return await network.run(_coroutine(method(self, *args, **kwargs)))

    return call


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


for _name, _method in inspect.getmembers(ServerClient, inspect.iscoroutinefunction):
    if not _name.startswith("_") and _name not in _STAY_ON_THE_CALLERS_LOOP:
        setattr(_OneLoopClient, _name, _on_the_network_loop(_method))


class Auth0Client(_OneLoopClient):
    """The SDK's client with what it leaves open closed; used like it.

    Args:
        settings: Where they are wrong, every use raises `SetupError`.
        state_store: Where sessions are.
        transaction_store: Where logins under way are.
        options: What else `ServerClient` takes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_store: StateStore,
        transaction_store: TransactionStore,
        **options: Any,
    ) -> None:
        self._options = {
            "state_store": state_store,
            "state_identifier": STATE_IDENTIFIER,
            "transaction_store": transaction_store,
            "transaction_identifier": TRANSACTION_IDENTIFIER,
            **options,
        }
        super().__init__(**self._options)
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
        try:
            return await super().start_interactive_login(options, store_options or {})
        except Exception as error:
            error.asked_directly = True  # type: ignore[attr-defined]  # for explain()
            self._forget_what_was_discovered()
            raise

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
        before = self.sessions.sealed()
        g.pop(_VERIFIED, None)
        try:
            result = await super().complete_interactive_login(url, store_options or {})
            if not g.pop(_VERIFIED, False):
                raise ApiError("missing_id_token", "There was no ID token to verify.")
            _check_freshness(result)
        except Exception as error:
            await self.transactions.delete(identifier)
            self.sessions.restore(before)
            error.app_state = getattr(transaction, "app_state", None)  # type: ignore[attr-defined]  # see above
            await self._tell_of_failure(error)
            raise
        await self._welcome(result["state_data"]["user"], before)
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
        return await super().get_user(store_options)

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
        """Sign out here, logins under way too; return the address to do it there."""
        self.require_setup()
        state = self.sessions.read()
        self.transactions.forget_all()
        url = await super().logout(options, store_options)
        if state:
            await tell(user_logged_out, user=state["user"])
        return url

    async def get_token_by_refresh_token(
        self, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Refresh; an answer without scope grants what was asked for.

        RFC 6749 section 5.1.
        """
        answer: dict[str, Any] = await super().get_token_by_refresh_token(options)
        return {**answer, "scope": answer.get("scope") or options.get("scope") or ""}

    async def _verify_and_decode_jwt(
        self, token: str, jwks: dict[str, Any], audience: str | None = None
    ) -> dict[str, Any]:
        """Verify an ID token or logout token (OpenID Connect Core section 3.1.3.7).

        The one private method of the SDK we override, since nothing public reaches
        what it decides: it allows the clocks no difference, does not require
        ``iat``, does not hold ``iss`` against the configured domain, and knows no
        key that is newer than ten minutes. The private names it needs are used here
        only.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        if (key := _key_of(jwks, kid)) is None:
            self._forget_what_was_discovered()
            key = _key_of(await self._get_jwks_cached(self.settings.domain), kid)
        if key is None:
            raise jwt.InvalidTokenError("no key of the provider has this kid")
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK.from_dict(key).key,
            algorithms=["RS256"],
            audience=audience,
            leeway=CLOCK_TOLERANCE,
            options={"require": ["iss", "aud", "exp", "iat"], "verify_iss": False},
        )
        ours = self._normalize_url(self.settings.domain)
        if self._normalize_url(claims["iss"]) != ours:
            raise jwt.InvalidIssuerError("issued by another domain than AUTH0_DOMAIN")
        if claims.get("azp", audience) != audience:
            raise jwt.InvalidAudienceError("issued to another client")
        if has_request_context():
            setattr(g, _VERIFIED, True)
        return claims

    def begin_anew(self) -> None:
        """Let go of the connections of the parent, in a forked child."""
        super().__init__(**self._options)

    def _forget_what_was_discovered(self) -> None:
        """Fetch discovery and keys anew next time: the SDK keeps nonsense, too."""
        self._discovery_cache.clear()


_clients: WeakSet[Auth0Client] = WeakSet()


def _begin_anew() -> None:
    for client in _clients:
        client.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


def _check_freshness(result: Mapping[str, Any]) -> None:
    """Hold a login that asked for ``max_age`` to it, lest it be asked for for ever."""
    app_state = result.get("app_state")
    max_age = app_state.get("max_age") if isinstance(app_state, dict) else None
    if max_age is not None and not is_fresh(result["state_data"]["user"], max_age):
        raise CheckFailed("not_fresh")


def _key_of(jwks: Any, kid: Any) -> dict[str, Any] | None:
    """Find a key by its id (RFC 7517 section 4.5) in whatever the provider sent."""
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    for key in keys if isinstance(keys, list) else []:
        if isinstance(key, dict) and key.get("kid") == kid:
            return key
    return None
