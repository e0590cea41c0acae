"""The client: the SDK's `ServerClient`, made right for Flask; used like it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from copy import copy
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from auth0_server_python import error as sdk
from auth0_server_python.auth_server import ServerClient
from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.utils import State
from flask import abort, has_request_context, redirect

from . import errors, redirects, signals
from .session_door import (
    LOGIN_SECONDS,
    Passwordless,
    SessionDoor,
    end_logins,
    verify_id_token,
)
from .settings import Settings, SetupError, is_loopback, network_setup_error
from .stores import FlaskSessionStateStore, FlaskSessionTransactionStore, request_state
from .stores.cookies import STATE_KEY, TRANSACTION_PREFIX
from .stores.encryption import Json
from .stores.shared import Device, shared_store
from .tokens import CONNECTION_ERRORS, Refresher, connection_failure, revoke
from .verification import HttpxOAuthClient, Verifier, claims_for_sdk, http_options

_NONCE = "_auth0_nonce"  # beside an app_state
_NO_OPTION = "Auth0Client takes settings and two stores, not {}. See docs/sdk.md."


class Auth0Client(ServerClient[Any]):
    """The SDK's client, made to work in Flask.

    Every method that its documentation shows is called in the same way.

    Args:
        settings: If they are wrong, every use raises `SetupError`.
        state_store: Stores sessions.
        transaction_store: Stores transactions.

    Raises:
        SetupError: ``SSL_CERT_FILE`` or a proxy in the environment is wrong, or another
            option of the SDK's client is given: `docs/sdk.md` says which and why.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_store: FlaskSessionStateStore,
        transaction_store: FlaskSessionTransactionStore,
        **options: object,
    ) -> None:
        if options:
            raise SetupError((_NO_OPTION.format(", ".join(sorted(options))),))
        connect = self._get_http_client
        self.settings = settings
        self.sessions, self.transactions = state_store, transaction_store
        self.verifier = Verifier(settings, connect)
        self.refresher = Refresher(state_store, self.verifier)
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
                anonymous_store=state_store,
                authorization_params={"scope": settings.scope, **audience},
                pushed_authorization_requests=settings.pushed_authorization_requests,
                organization=settings.organization,
            )
        except (OSError, ImportError, ValueError) as error:
            raise network_setup_error(error) from None
        self.my_account = self._my_account_client  # the SDK has no public name for it
        self._passwordless_client = Passwordless(self)
        for part in (self._mfa_client, self.my_account, self._anonymous_client):
            part._get_http_client = connect  # type: ignore[method-assign]  # no public seam

    # Private names of the SDK: it reaches the network through ``_oauth`` in
    # `complete_interactive_login` and through ``_get_http_client`` elsewhere, and
    # verifies through the three below. Nothing public reaches either.

    def _get_http_client(self, **options: Any) -> httpx.AsyncClient:
        self.settings.require()
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
        app_state = options.app_state
        # the SDK takes no nonce; where requests are pushed, PKCE serves the same end
        if not self.settings.pushed_authorization_requests:
            nonce = secrets.token_urlsafe(16)
            kept = {_NONCE: nonce, "app_state": app_state}
            options = options.model_copy(update={"app_state": kept})
        try:
            redirects.check_rounds(self.sessions.load)
            async with asyncio.timeout(LOGIN_SECONDS):
                url: str = await super().start_interactive_login(options, {})
        except Exception as error:
            await self._door.fail(error, app_state)
        return f"{url}&nonce={nonce}" if nonce else url

    async def complete_interactive_login(
        self, url: str, store_options: Json | None = None
    ) -> Json:
        """Complete a login, by the callback's address with its query.

        Or an account that was linked, unlinked or connected; then the session stays.
        A login that fails uses up its transaction; a repeated callback has its result.

        Returns:
            What the SDK returns; with ``connected_account`` where one was connected.

        Raises:
            LoginError: It failed; ``app_state`` is what it was started with.
            HTTPException: The callback is stale, and the user is signed in already: a
                redirect to the app's root.
        """
        query = {n: v[0] for n, v in parse_qs(urlsplit(url).query).items()}
        state, known = query.get("state", ""), request_state()
        nonce = app_state = connects = None
        identifier = f"{TRANSACTION_PREFIX}{state}"
        try:
            self.settings.require()
            if not state:
                raise sdk.MissingRequiredArgumentError("state")
            transaction = await self.transactions.get(identifier)
            lost = transaction or self.transactions.load_unchecked(identifier)
            app_state = getattr(lost, "app_state", None)
            if isinstance(app_state, dict) and _NONCE in app_state:
                nonce, app_state = app_state[_NONCE], app_state["app_state"]
            if transaction is None:
                if self.sessions.load():  # the back button, or a tab that was restored
                    abort(redirect(redirects.home()))
                raise sdk.MissingTransactionError
            if code := query.get("error"):  # RFC 6749 section 4.1.2.1
                raise errors.CallbackError(code, query.get("error_description", ""))
            known.transaction, known.nonce = identifier, nonce
            # the SDK notes one for a login, a magic link and a connected account
            known.links = transaction.redirect_uri is None
            known.wanted = app_state if isinstance(app_state, dict) else {}
            connects = transaction.auth_session  # an account
            work = self._connect if connects else self._with_oauth_client
            result = await self._door.once(url, work)
        except Exception as error:
            if not connects:  # of such the SDK drops it when Auth0 has answered
                await self.transactions.delete(identifier)
            await self._door.fail(error, app_state)
        await self.transactions.delete(identifier)
        redirects.count_round()
        result.pop("app_state", None)
        return {**result, "app_state": app_state} if app_state else result

    async def _connect(self, url: str) -> Json:
        account = (await self.complete_connect_account(url)).model_dump()
        return {"state_data": await self.get_session(), "connected_account": account}

    async def _with_oauth_client(self, url: str) -> Json:
        """Redeem a code with an OAuth client of this login.

        The SDK has one for all, whose connections and token belong to the last login;
        Flask runs every async view on an event loop of its own.
        """
        login, secret = copy(self), self._oauth.client_secret  # None: there is a key
        login._oauth = HttpxOAuthClient(self._get_http_client, self._client_id, secret)  # type: ignore[assignment, no-untyped-call]  # of Authlib
        return dict(await super(Auth0Client, login).complete_interactive_login(url, {}))

    async def login_backchannel(
        self, options: Json, store_options: Json | None = None
    ) -> Json:
        """Sign in the user who approves it on their device (OpenID Connect CIBA).

        The SDK would merge what comes into the session of who was signed in before.
        """
        answer = await self.backchannel_authentication(options)
        audience = self.settings.audience or self.DEFAULT_AUDIENCE_STATE_KEY
        state = State.update_state_data(audience, None, answer)
        try:
            await self._door.set(STATE_KEY, {**state, "domain": self.settings.domain})
        except jwt.PyJWTError as error:
            if request_state().receiver_error is error:
                raise
            raise sdk.ApiError("invalid_token", "Invalid ID token", error) from error
        await self._clear_anonymous_session_after_login()
        return {"authorization_details": answer.get("authorization_details")}

    # Sessions and logout

    def read_session(self) -> Json | None:
        """Return what ``await get_session()`` does, for sync views and templates."""
        return self.sessions.view() if self.load_session() else None

    def load_session(self) -> Json | None:
        """Return the session itself, not a copy: only to be read."""
        self.settings.require()
        known = request_state()
        if (state := self.sessions.load(known)) and known.began is None:
            redirects.forget_rounds(known)
        return state

    async def logout(
        self, options: LogoutOptions | None = None, store_options: Json | None = None
    ) -> str:
        """End the session and all transactions; return the logout address of Auth0.

        The refresh token is revoked, and copies of the session end. If that cannot be
        stored, logout goes on, and `logout_incomplete` returns True.
        """
        self.settings.require()
        state = self._door.session_to_end()
        end_logins()
        redirects.forget_rounds(request_state())
        url: str = await super().logout(options)
        if state:
            self._door.end(state)
            if token := state.get("refresh_token"):
                await revoke(self.settings, self._get_http_client, token)
            await signals.send(signals.user_logged_out, user=state["user"])
        if is_loopback((address := urlsplit(url)).hostname):
            # the local tenant serves browsers at a plain http port beside this one
            with suppress(Exception):  # it is not running: nothing to sign out of
                async with asyncio.timeout(2):
                    found = await self.verifier.metadata()
                page = urlsplit(str(found["authorization_endpoint"]))
                url = address._replace(scheme=page.scheme, netloc=page.netloc).geturl()
        return url

    async def logout_everywhere(self) -> None:
        """End all sessions of the user who is signed in, on all devices, this one too.

        Raises:
            StoreUnavailable: It could not be stored; nothing has changed.
        """
        if state := self.load_session():
            sub = state["user"]["sub"]
            self.sessions.lifetime.end_all(sub=sub)
            request_state().has_ended = True
            await signals.send(signals.session_revoked, sub=sub, sid=None)

    async def sessions_of(self, sub: str) -> list[Device]:
        """Return the sessions of a user, with their times and browsers.

        The one of this request has the id ``read_session()["session"]["id"]``.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return self.sessions.lifetime.devices(sub)

    async def end_session(self, *session_ids: str) -> None:
        """End sessions by the ids that `sessions_of` gave.

        The caller checks whose sessions these are and who may end them.

        Raises:
            StoreUnavailable: It is not stored yet; this is retried.
        """
        self.sessions.lifetime.end_devices(session_ids)
        if has_request_context():
            request_state().has_ended = True

    def logout_incomplete(self) -> bool:
        """Tell whether copies of a session may outlive the logout of this request."""
        return request_state().logout_incomplete

    async def handle_backchannel_logout(
        self, logout_token: str, store_options: Json | None = None
    ) -> None:
        """Verify a logout token and end the sessions it names.

        Raises:
            BackchannelLogoutError: What it says is not valid, or it was used before.
            jwt.InvalidTokenError: It is not valid.
            StoreUnavailable: It could not be stored; Auth0 may send it again.
        """
        self.settings.require()
        async with asyncio.timeout(LOGIN_SECONDS):
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
        """Return an access token, refreshed shortly before it expires.

        Args:
            store_options: Not needed.
            audience: The API it is for; that of the settings if left out.
            scope: Scopes beyond those of the settings.

        Raises:
            AccessTokenError: There is no refresh token, or Auth0 refuses.
            MfaRequiredError: Auth0 asks for a second factor.
            HTTPException: The refresh token was revoked or expired (``invalid_grant``),
                so the session ended: a redirect to login, or 401 for a program.
            ProviderDown: Nothing has changed; the next try may work.
        """
        try:
            token: str = await super().get_access_token(None, audience, scope)
        except sdk.AccessTokenError as error:
            raised = await self.refresher.failed(error)
            raise raised from (None if raised is error else error)
        await self.refresher.finish()
        return token

    async def refresh_user(self) -> Json:
        """Fetch new claims and tokens of the user from Auth0; return the claims.

        Call it after a change of role, for example. It returns nothing older than the
        call; calls at the same time share a response, also among workers. It raises
        what `get_access_token` raises.
        """
        known = request_state()
        known.renewing = shared_store().now()
        try:
            await self.get_access_token()
        finally:
            known.renewing = None
        return dict((self.read_session() or {}).get("user") or {})

    async def get_access_token_for_connection(
        self, options: Json, store_options: Json | None = None
    ) -> str:
        """Return an access token of a connection, such as Google's.

        Raises:
            AccessTokenForConnectionError: There is no refresh token, or Auth0 refuses.
            ProviderDown: Nothing has changed; the next try may work.
        """
        try:
            return str(await super().get_access_token_for_connection(options))
        except CONNECTION_ERRORS as error:
            raised = connection_failure(error)
            raise raised from (None if raised is error else error)

    async def get_token_by_refresh_token(self, options: Json) -> Json:
        """Refresh, or wait for the request that refreshes the same token."""
        return await self.refresher.refresh(options, super().get_token_by_refresh_token)

    async def get_token_for_connection(self, options: Json) -> Json:
        """Exchange a refresh token for a connection's access token."""
        ask = super().get_token_for_connection
        return await self.refresher.exchange_for_connection(options, ask)


def current_client() -> Auth0Client:
    """Return the client of the current app; raise where it has none."""
    return cast(Auth0Client, redirects.extension().client)
