"""The client: the SDK's `ServerClient`, made right for Flask; used like it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import httpx
from auth0_server_python.auth_server import ServerClient
from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.error import (
    AccessTokenError,
    MissingRequiredArgumentError,
    MissingTransactionError,
)
from authlib.integrations.httpx_client import AsyncOAuth2Client

from . import errors, redirects, signals
from .session_door import SessionDoor, end_logins, verify_id_token
from .settings import Settings, network_setup_error
from .stores import FlaskSessionStateStore, FlaskSessionTransactionStore, request_state
from .stores.cookies import TRANSACTION_PREFIX
from .stores.encryption import Json
from .stores.shared import Device, digest, shared_store
from .tokens import CONNECTION_ERRORS, Refresher, connection_failure
from .verification import Verifier, claims_for_sdk, http_options

_NONCE = "_auth0_nonce"  # beside an app_state
#: Seconds for a login, however slowly bytes arrive; for a second request of a callback.
_LOGIN_SECONDS, _CALLBACK_SECONDS = 8.0, 30.0
_oauth_of_login = ContextVar[AsyncOAuth2Client | None]("oauth_of_login", default=None)


class Auth0Client(ServerClient[Any]):
    """The SDK's client with what it leaves open closed.

    Every method that its documentation shows is called in the same way.

    Args:
        settings: Where they are wrong, every use raises `SetupError`.
        state_store: Where sessions are.
        transaction_store: Where transactions are.

    Raises:
        SetupError: ``SSL_CERT_FILE`` or a proxy in the environment is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_store: FlaskSessionStateStore,
        transaction_store: FlaskSessionTransactionStore,
    ) -> None:
        connect = self._get_http_client
        self.settings = settings
        self.sessions, self.transactions = state_store, transaction_store
        self.verifier = Verifier(settings.domain, settings.client_id, connect)
        self.refresher = Refresher(settings, state_store, self.verifier, connect)
        self._door = SessionDoor(settings, state_store, self.verifier)
        audience = {"audience": settings.audience} if settings.audience else {}
        try:
            httpx.AsyncClient(**http_options())  # fails without leaving half a client
            super().__init__(
                domain=settings.domain,
                client_id=settings.client_id,
                client_secret=settings.client_secret or "",
                client_assertion_signing_key=settings.client_assertion_signing_key,
                redirect_uri=settings.redirect_uri,
                secret=settings.secrets[0],
                transaction_store=transaction_store,
                state_store=self._door,
                authorization_params={"scope": settings.scope, **audience},
                pushed_authorization_requests=settings.pushed_authorization_requests,
                organization=settings.organization,
            )
        except (OSError, ImportError, ValueError) as error:
            raise network_setup_error(error) from None

    # Private names of the SDK: it reaches the network through ``_oauth`` in
    # `complete_interactive_login` and through ``_get_http_client`` elsewhere, and
    # verifies through the three below. Nothing public reaches either.

    @property
    def _oauth(self) -> AsyncOAuth2Client:
        """The OAuth client of the login that is being completed.

        The SDK has one for all, whose connections and token belong to the last login;
        Flask runs every async view on an event loop of its own.
        """
        return _oauth_of_login.get() or self._oauth_of_the_sdk

    @_oauth.setter
    def _oauth(self, client: AsyncOAuth2Client) -> None:
        self._oauth_of_the_sdk = client

    def _get_http_client(self, **options: Any) -> httpx.AsyncClient:
        return super()._get_http_client(**{**http_options(), **options})

    async def _get_oidc_metadata_cached(self, domain: str) -> Json:
        return await self.verifier.metadata()

    async def _get_jwks_cached(self, domain: str, metadata: Json | None = None) -> Json:
        return await self.verifier.jwks()

    async def _verify_and_decode_jwt(
        self, token: str, jwks: Json, audience: str | None = None
    ) -> Json:
        return claims_for_sdk(await verify_id_token(self.verifier, token))

    # Login

    async def start_interactive_login(
        self,
        options: StartInteractiveLoginOptions | None = None,
        store_options: Json | None = None,
    ) -> str:
        """Start a login; return the address at Auth0 to send the browser to.

        Raises:
            LoginError: It cannot be started.
        """
        options, nonce = options or StartInteractiveLoginOptions(), None
        # the SDK takes no nonce; where requests are pushed, PKCE serves the same end
        if not self.settings.pushed_authorization_requests:
            nonce = secrets.token_urlsafe(16)
            kept = {_NONCE: nonce, "app_state": options.app_state}
            options = options.model_copy(update={"app_state": kept})
        start = super().start_interactive_login
        try:
            self.settings.require()
            redirects.check_rounds(self.sessions.load)
            async with asyncio.timeout(_LOGIN_SECONDS):
                url: str = await start(options, store_options or {})
        except Exception as error:
            await self._fail(error, None)
        return f"{url}&nonce={nonce}" if nonce else url

    async def complete_interactive_login(
        self, url: str, store_options: Json | None = None
    ) -> Json:
        """Complete a login; its transaction is used up whether it succeeds or not.

        A callback that is requested twice at once signs in twice the same.

        Args:
            url: The address of the callback, with its query.
            store_options: For the stores; ours take none.

        Raises:
            LoginError: It failed; ``app_state`` is what it was started with.
            HTTPException: It is a stale callback of a user who is signed in, who is
                redirected to the app's root.
        """
        query = {name: v[0] for name, v in parse_qs(urlsplit(url).query).items()}
        state, nonce, app_state = query.get("state", ""), None, None
        identifier = f"{TRANSACTION_PREFIX}{state}"
        try:
            self.settings.require()
            if not state:
                raise MissingRequiredArgumentError("state")
            transaction = await self.transactions.get(identifier)
            lost = transaction or self.transactions.load_unchecked(identifier)
            app_state = getattr(lost, "app_state", None)
            if isinstance(app_state, dict) and _NONCE in app_state:
                nonce, app_state = app_state[_NONCE], app_state["app_state"]
            if transaction is None:
                if self.sessions.load():  # the back button, or a tab that was restored
                    raise redirects.to_home()
                raise MissingTransactionError
            if "error" in query:  # RFC 6749 section 4.1.2.1
                words = query.get("error_description", "")
                raise errors.CallbackError(query["error"], words)
            known = request_state()
            known.transaction, known.nonce = identifier, nonce
            if isinstance(app_state, dict):
                known.max_age = app_state.get("max_age")
                known.persistent = bool(app_state.get("remember", True))
            async with asyncio.timeout(_LOGIN_SECONDS):
                result = await self._complete_once(url)
        except Exception as error:
            await self.transactions.delete(identifier)
            await self._fail(error, app_state)
        await self.transactions.delete(identifier)
        redirects.count_round()
        result.pop("app_state", None)
        return {**result, "app_state": app_state} if app_state else result

    async def _complete_once(self, url: str) -> Json:
        """Redeem a code once; a second request of the same callback gets the result."""
        shared, known = shared_store(), request_state()
        name = digest(f"callback {urlsplit(url).query}")
        # held for as long as there is a result
        while (release := shared.lock(name, _CALLBACK_SECONDS)) is None:
            if encrypted := shared.result(name):
                known.nonce, state = None, self.sessions.decrypt(name, encrypted)
                return {"state_data": self.sessions.adopt(state)}
            await asyncio.sleep(0.02)
        try:
            known.began = shared.now()
            result = await self._with_oauth_client(url)
        except BaseException:
            release()
            raise
        encrypted = self.sessions.encrypt(name, known.session or {})
        with suppress(errors.StoreUnavailable):  # only a second request needs it
            shared.keep_result(name, encrypted, _CALLBACK_SECONDS)
        return result

    async def _with_oauth_client(self, url: str) -> Json:
        secret = self._oauth_of_the_sdk.client_secret  # None where there is a key
        options = {"headers": self._telemetry_headers, **http_options()}
        async with AsyncOAuth2Client(self._client_id, secret, **options) as client:  # type: ignore[no-untyped-call]  # of Authlib
            reset = _oauth_of_login.set(client)
            try:
                return dict(await super().complete_interactive_login(url, {}))
            finally:
                _oauth_of_login.reset(reset)

    async def _fail(self, error: Exception, app_state: Any) -> NoReturn:
        """Raise the `LoginError` that stands for an error; or the app's own error."""
        own = request_state().receiver_error
        found = None if error is own else errors.login_error(error)
        if found is None:
            raise error
        found.app_state = app_state
        if isinstance(found, errors.ProviderDown) or found.error == "invalid_token":
            self.verifier.forget()
        await signals.send(signals.login_failed, error=found)
        raise found from (None if found is error else error)

    # Sessions and logout

    def read_session(self) -> Json | None:
        """Return the session without awaiting anything, or None if signed out.

        The same as ``await get_session()``, for sync views, guards and templates.
        """
        self.settings.require()
        return self.sessions.view()

    async def logout(
        self, options: LogoutOptions | None = None, store_options: Json | None = None
    ) -> str:
        """Sign out here, transactions too; return the address to do it at Auth0.

        The refresh token is revoked, and copies of the session are over. Where that
        cannot be noted, this goes on: `logout_incomplete` tells.
        """
        self.settings.require()
        state = self._door.session_to_end()
        end_logins()
        redirects.forget_rounds()
        url: str = await super().logout(options, store_options)
        if state:
            self._door.end(state)
            if token := state.get("refresh_token"):
                await self.refresher.revoke(token)
            await signals.send(signals.user_logged_out, user=state["user"])
        return await redirects.at_browser_origin(url, self.verifier)

    async def logout_everywhere(self) -> None:
        """End all sessions of the user who is signed in, on all devices, this one too.

        Raises:
            StoreUnavailable: It could not be noted; nothing has changed.
        """
        self.settings.require()
        if state := self.sessions.load():
            sub = state["user"]["sub"]
            self.sessions.lifetime.end_all(sub=sub)
            await signals.send(signals.session_revoked, sub=sub, sid=None)

    async def sessions_of(self, sub: str) -> list[Device]:
        """Return the sessions of a user: begun and last used when, in which browser.

        The one of this request has the id ``read_session()["session"]["id"]``.

        Raises:
            StoreUnavailable: It cannot be known.
        """
        return self.sessions.lifetime.devices(sub)

    async def end_session(self, session_id: str) -> None:
        """End a session by the id that `sessions_of` gave.

        Whose it is and who may end it is for the caller to check.

        Raises:
            StoreUnavailable: It could not be noted yet; it is tried on.
        """
        self.sessions.lifetime.end_device(session_id)

    def logout_incomplete(self) -> bool:
        """Tell whether copies of a session may outlive the logout of this request."""
        return request_state().logout_incomplete

    async def handle_backchannel_logout(
        self, logout_token: str, store_options: Json | None = None
    ) -> None:
        """Verify a logout token and end what it names.

        Raises:
            BackchannelLogoutError: It is not valid, or was used before.
            jwt.InvalidTokenError: Likewise.
            StoreUnavailable: It could not be noted; Auth0 may repeat it.
        """
        self.settings.require()
        async with asyncio.timeout(_LOGIN_SECONDS):
            claims = await self.verifier.verify_logout_token(logout_token)
        await self.sessions.delete_by_logout_token(claims)
        named = {name: claims.get(name) for name in ("sub", "sid")}
        await signals.send(signals.session_revoked, **named)

    # Access tokens

    async def get_access_token(
        self,
        store_options: Json | None = None,
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
                5.2, ``invalid_grant``): a redirect to login, or 401 for a program.
            ProviderDown: Nothing has changed; the next try may work.
        """
        try:
            token: str = await super().get_access_token(store_options, audience, scope)
        except AccessTokenError as error:
            raised = await self.refresher.failed(error, redirects.login_again)
            if raised is error:
                raise
            raise raised from error
        await self.refresher.finish()
        return token

    async def get_access_token_for_connection(
        self, options: Json, store_options: Json | None = None
    ) -> str:
        """Return an access token of a connection, such as Google's.

        Raises:
            AccessTokenForConnectionError: There is no refresh token, or Auth0 refuses.
            ProviderDown: Nothing has changed; the next try may work.
        """
        ask = super().get_access_token_for_connection
        try:
            return str(await ask(options, store_options))
        except CONNECTION_ERRORS as error:
            if (raised := connection_failure(error)) is error:
                raise
            raise raised from error

    async def get_token_by_refresh_token(self, options: Json) -> Json:
        """Refresh, or wait for the request that refreshes the same token."""
        ask = super().get_token_by_refresh_token
        if not options.get("refresh_token"):
            return dict(await ask(options))
        return await self.refresher.refresh(options, ask)

    async def get_token_for_connection(self, options: Json) -> Json:
        """Exchange a refresh token for a connection's access token."""
        ask = super().get_token_for_connection
        if not options.get("refresh_token"):
            return dict(await ask(options))
        return await self.refresher.exchange_for_connection(options, ask)


def current_client() -> Auth0Client:
    """Return the client of the current app; raise where it has none."""
    client: Auth0Client = redirects.extension().client
    return client
