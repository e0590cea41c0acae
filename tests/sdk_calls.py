"""A browser of an app whose one view does what a test asks of the SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from auth0_server_python import auth_types as types
from auth0_server_python.error import MfaRequiredError
from flask import Flask, session
from werkzeug.test import TestResponse

from auth import auth0
from auth0_flask import Auth0Client
from auth0_flask.tenant import Tenant
from passkey import Passkey
from visitor import Shopper, http_browser

Work = Callable[[], Awaitable[Any]]
LEGACY = "urn:acme:legacy"
#: To sign in by a call; each is a method below.
WAYS = ("by_code", "by_passkey", "by_exchange", "by_approval", "by_second_factor")


class Caller(Shopper):
    """Somebody at a browser, and what the last call for them returned or raised."""

    def __init__(self, app: Flask, tenant: Tenant, client: Auth0Client = auth0) -> None:
        super().__init__(app)
        self.tenant, self.auth0 = tenant, client
        self.found: Any = None
        self.raised: Exception | None = None
        self.passkeys: dict[str, Passkey] = {}
        if "call" not in app.view_functions:
            app.add_url_rule("/call", "call", lambda: app.extensions["call"]())
            app.add_url_rule("/cart", "cart", _cart)

    def call(self, work: Work) -> TestResponse:
        """Do something of the SDK in a view; return what the browser gets."""
        self.found = self.raised = None

        async def view() -> str:
            try:
                self.found = await work()
            except Exception as error:
                self.raised = error
                raise
            return "done"

        app = self.client.application
        app.extensions["call"] = app.ensure_sync(view)
        return self.client.get("/call")

    def ask(self, work: Work) -> Any:
        """Do something of the SDK that works; return what it returns."""
        assert self.call(work).text == "done", self.raised
        return self.found

    def twin(self, at: Flask | None = None) -> Caller:
        twin = Caller(at or self.client.application, self.tenant, self.auth0)
        twin.client = super().twin(at).client
        return twin

    def confirm(self, url: str, action: str = "login") -> str:
        """Allow, at the tenant, what an address of its asks; return the way back."""
        with http_browser() as http:
            page = http.get(url, follow_redirects=True).url
            form = {"ticket": page.params["ticket"], "action": action}
            answer = http.post(page.copy_with(query=None), data=form)
        return path_of(answer.headers["Location"])

    def come_in(self, way: str, who: str) -> TestResponse:
        """Sign in by one of the ways below, or by a link that is mailed."""
        if way != "by_link":
            return self.call(lambda: getattr(self, way)(who))
        email = f"{who}@example.com"
        start = types.StartPasswordlessEmailOptions(email=email, send="link")
        self.ask(lambda: self.auth0.passwordless.start(start))
        with http_browser() as http:
            back = http.get(self.tenant.passwordless_link(email))
        return self.client.get(path_of(back.headers["Location"]))

    async def by_code(self, who: str) -> Any:
        email = f"{who}@example.com"
        start = types.StartPasswordlessEmailOptions(email=email)
        await self.auth0.passwordless.start(start)
        code = self.tenant.passwordless_code(email)
        shown = types.VerifyPasswordlessOtpOptions(
            connection="email", email=email, verification_code=code
        )
        return await self.auth0.passwordless.verify(shown)

    async def by_passkey(self, who: str) -> Any:
        if key := self.passkeys.get(who):
            asked = await self.auth0.passkey_login_challenge()
            shown = key.get(asked.authn_params_public_key)
            return await self.auth0.signin_with_passkey(asked.auth_session, shown)
        profile = types.PasskeyUserProfile(email=f"{who}@passkey.example")
        begun = await self.auth0.passkey_signup_challenge(profile)
        key = self.passkeys[who] = Passkey()
        shown = key.create(begun.authn_params_public_key)
        return await self.auth0.signin_with_passkey(begun.auth_session, shown)

    async def by_exchange(self, who: str) -> Any:
        if who:
            self.tenant.accept_token(f"of {who}", who, LEGACY)
        shown = types.LoginWithCustomTokenExchangeOptions(
            subject_token=f"of {who}", subject_token_type=LEGACY, scope="openid"
        )
        return await self.auth0.login_with_custom_token_exchange(shown)

    async def by_approval(self, who: str, *, allow: bool = True) -> Any:
        self.tenant.approve_backchannel(who, allow=allow)
        return await self.auth0.login_backchannel(hint(who))

    async def by_second_factor(self, who: str, **wrong: str) -> Any:
        self.tenant.require_mfa = True
        self.tenant.enroll(who)
        try:
            await self.by_code(who)
        except MfaRequiredError as error:
            shown = {"mfa_token": error.mfa_token, "otp": self.tenant.otp_for(who)}
            return await self.auth0.mfa.verify({**shown, "persist": True, **wrong})
        raise AssertionError("no second factor was asked for")


def _cart() -> str:
    return "full" if "cart" in session else session.setdefault("cart", "new")


def path_of(url: str) -> str:
    return str(httpx.URL(url).raw_path, "ascii")


def hint(who: str) -> dict[str, Any]:
    return {"login_hint": {"sub": f"auth0|{who}"}, "binding_message": "Desk 4"}
