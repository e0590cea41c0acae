"""Every public method of the SDK, tried; ``docs/sdk.md`` has a row for each."""

from __future__ import annotations

import inspect
import re
import ssl
import time
from functools import partial
from typing import Any

import httpx
import pytest
import respx
from auth0_server_python import auth_server as clients
from auth0_server_python import auth_types as types
from auth0_server_python import error as sdk
from pydantic import ValidationError

import auth
from auth import auth0
from auth0_flask import Auth0Client, Settings, SetupError
from auth0_flask.tenant import Tenant
from auth0_flask.verification import _tls_context
from passkey import Passkey
from sdk_calls import LEGACY, WAYS, Caller, hint, path_of
from servers import ROOT

CLIENTS: dict[str, type[Any]] = {
    "": clients.ServerClient,
    "mfa.": clients.MfaClient,
    "passwordless.": clients.PasswordlessClient,
    "my_account.": clients.MyAccountClient,
    "anonymous.": clients.AnonymousClient,
}


def test_the_table_has_every_method_and_option_and_each_row_its_test() -> None:
    table = (ROOT / "docs" / "sdk.md").read_text()
    rows = set(re.findall(r"^\| `([\w.]+)` +\| [^|]*\S +\|", table, re.MULTILINE))
    options = set(re.findall(r"^\| `([\w.]+)=` +\| [^|]*\S +\|", table, re.MULTILINE))
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    tried = re.findall(r'"([\w.]+)"', "".join(re.findall(r"mark\.sdk\(([^)]*)", tests)))

    assert rows == {
        prefix + name
        for prefix, kind in CLIENTS.items()
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
    assert set(tried) == rows
    assert options == set(inspect.signature(clients.ServerClient).parameters)


@pytest.mark.sdk("start_interactive_login", "get_user", "get_session", "logout")
@pytest.mark.sdk("complete_interactive_login", "handle_backchannel_logout")
def test_the_documented_login(caller: Caller, tenant: Tenant) -> None:
    caller.login()  # the routes call the first two
    user, own = caller.ask(auth0.get_user), caller.ask(auth0.get_session)

    assert user == own["user"] == caller.user
    assert own["session"].items() <= caller.session["session"].items()
    assert "internal" not in own.keys() | caller.session.keys()
    sid = user["sid"]
    caller.ask(lambda: auth0.handle_backchannel_logout(tenant.logout_token(sid=sid)))
    assert caller.user == {}
    caller.login()
    assert "/v2/logout" in caller.ask(auth0.logout)
    assert caller.ask(auth0.get_user) is None


@pytest.mark.sdk("initiate_backchannel_authentication", "backchannel_authentication")
@pytest.mark.sdk("backchannel_authentication_grant", "custom_token_exchange")
@pytest.mark.sdk("get_token_by_refresh_token", "get_token_for_connection")
def test_what_returns_tokens_signs_nobody_in(caller: Caller, tenant: Tenant) -> None:
    tenant.approve_backchannel("bob")
    begun = caller.ask(lambda: auth0.initiate_backchannel_authentication(hint("bob")))
    grant = partial(auth0.backchannel_authentication_grant, begun["auth_req_id"])
    assert caller.ask(grant)["id_token"]
    tenant.approve_backchannel("bob")
    found = caller.ask(lambda: auth0.backchannel_authentication(hint("bob")))
    assert found["id_token"]
    tenant.accept_token("theirs", "bob", LEGACY)
    asked = types.CustomTokenExchangeOptions(
        subject_token="theirs", subject_token_type=LEGACY
    )
    assert caller.ask(lambda: auth0.custom_token_exchange(asked)).access_token
    assert caller.user == {}

    caller.login()
    shown = {"refresh_token": caller.session["refresh_token"], "connection": "github"}
    assert caller.ask(lambda: auth0.get_token_for_connection(shown))["expires_in"]
    found = caller.ask(lambda: auth0.get_token_by_refresh_token(shown))
    assert found.keys() >= {"access_token", "expires_at"}
    assert caller.ask(auth0.get_access_token)
    assert tenant.reuse_detected == 0


@pytest.mark.sdk("request_session_transfer_token", "build_session_transfer_redirect")
def test_a_session_is_handed_to_another_app(caller: Caller, tenant: Tenant) -> None:
    tenant.accept_token("ticket 4", "bob", "urn:acme:ticket")
    ask = partial(auth0.request_session_transfer_token, "ticket 4", "urn:acme:ticket")
    assert "exchange_refused" in caller.call(ask).text  # nobody acts
    caller.login()
    own = caller.session

    token = caller.ask(ask)
    to = auth0.build_session_transfer_redirect("http://localhost/login", token)
    assert caller.session == own
    other = Caller(caller.client.application, tenant)
    back = httpx.get(other.start(path_of(to)), trust_env=False)
    other.client.get(path_of(back.headers["Location"]))
    assert other.user["sub"] == "auth0|bob"
    assert other.user["act"] == {"sub": "auth0|alice"}


@pytest.mark.sdk("mfa.list_authenticators", "mfa.enroll_authenticator")
@pytest.mark.sdk("mfa.challenge_authenticator", "mfa.decrypt_mfa_token", "mfa.verify")
def test_a_step_up_reaches_the_claims_of_the_session(
    caller: Caller, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 45
    caller.login()
    own = caller.session
    tenant.require_mfa = True
    caller.call(partial(auth0.get_access_token, scope="read"))
    assert isinstance(caller.raised, sdk.MfaRequiredError)
    shown = {"mfa_token": caller.raised.mfa_token, "factor_type": "otp"}
    assert auth0.mfa.decrypt_mfa_token(shown["mfa_token"]).audience == "default"

    assert caller.ask(lambda: auth0.mfa.list_authenticators(shown)) == []
    made = caller.ask(lambda: auth0.mfa.enroll_authenticator(shown))
    assert made.barcode_uri
    kind = caller.ask(lambda: auth0.mfa.challenge_authenticator(shown))
    assert kind.challenge_type == "otp"
    proof = {**shown, "otp": tenant.otp_for("alice"), "persist": True}
    tenant.access_token_lifetime = 3600
    ceiling = int(time.time()) + 600
    tenant.forge(claims={"session_expiry": ceiling})
    token = caller.ask(lambda: auth0.mfa.verify(proof)).access_token

    assert caller.user["amr"] == ["mfa"]
    assert caller.session["session"]["ends_at"] == ceiling - 30
    assert caller.session["session"]["id"] == own["session"]["id"]
    assert caller.ask(partial(auth0.get_access_token, scope="read")) == token
    caller.client.get("/logout")
    assert caller.user == {}


@pytest.mark.sdk("my_account.get_factors", "my_account.list_authentication_methods")
@pytest.mark.sdk("my_account.enroll_authentication_method")
@pytest.mark.sdk("my_account.verify_authentication_method")
@pytest.mark.sdk("my_account.get_authentication_method")
@pytest.mark.sdk("my_account.update_authentication_method")
@pytest.mark.sdk("my_account.delete_authentication_method")
def test_a_user_minds_a_passkey(caller: Caller, tenant: Tenant) -> None:
    api, key = auth0.my_account, Passkey()
    verbs = ("create", "read", "update", "delete")
    scopes = [f"{verb}:me:authentication-methods" for verb in verbs]
    scope = " ".join(["read:me:factors", *scopes])

    async def mind() -> None:
        token = await auth0.get_access_token(audience=api.audience, scope=scope)
        assert (await api.get_factors(token)).factors
        enroll = types.EnrollAuthenticationMethodRequest(type="passkey")
        begun = await api.enroll_authentication_method(token, enroll)
        shown = types.VerifyAuthenticationMethodRequest(
            auth_session=begun.auth_session,
            authn_response=key.create(begun.authn_params_public_key),
        )
        own = begun.authentication_method_id
        await api.verify_authentication_method(token, own, shown)
        name = types.UpdateAuthenticationMethodRequest(name="Phone")
        await api.update_authentication_method(token, own, name)
        assert (await api.get_authentication_method(token, own)).name == "Phone"
        await api.delete_authentication_method(token, own)
        found = await api.list_authentication_methods(token)
        assert found.authentication_methods == []

    caller.login()
    caller.ask(mind)
    caller.ask(mind)
    audiences = [tokens["audience"] for tokens in caller.session["token_sets"]]
    assert audiences == ["default", api.audience]


@pytest.mark.sdk("list_connected_account_connections", "my_account.connect_account")
@pytest.mark.sdk("my_account.complete_connect_account")
@pytest.mark.sdk("my_account.list_connected_accounts")
@pytest.mark.sdk("my_account.list_connected_account_connections")
@pytest.mark.sdk("my_account.delete_connected_account")
def test_what_the_client_calls_for_connected_accounts_can_be_called(
    caller: Caller, tenant: Tenant
) -> None:
    caller.login()
    found = caller.ask(partial(auth0.list_connected_account_connections, take=1))
    assert [connection.name for connection in found.connections] == ["github"]
    api = auth0.my_account
    here: dict[str, Any] = {"redirect_uri": auth.settings.redirect_uri}
    scope = " ".join(f"{n}:me:connected_accounts" for n in ("read", "create", "delete"))
    asked = partial(auth0.get_access_token, audience=api.audience, scope=scope)
    token = caller.ask(asked)

    found = caller.ask(partial(api.list_connected_account_connections, token))
    assert found.connections
    assert caller.ask(partial(api.list_connected_accounts, token)).accounts == []
    connect = types.ConnectAccountRequest(connection="x", state="s", **here)
    done = types.CompleteConnectAccountRequest(
        auth_session="x", connect_code="x", **here
    )
    for refused in (
        partial(api.connect_account, token, connect),
        partial(api.complete_connect_account, token, done),
        partial(api.delete_connected_account, token, "x"),
    ):
        caller.call(refused)
        assert isinstance(caller.raised, sdk.MyAccountApiError)


@pytest.fixture
def elsewhere(tenant: Tenant) -> Any:
    """What the tenant does not answer; the rest goes to it."""
    with respx.mock(assert_all_called=False) as router:
        yield router


@pytest.mark.sdk("start_enterprise_login")
def test_a_login_begins_by_the_domain_of_an_address(
    caller: Caller, elsewhere: respx.MockRouter
) -> None:
    found = elsewhere.get(path="/.well-known/webfinger")
    elsewhere.route().pass_through()
    for status, email in ((404, "a@one.example"), (200, "a@two.example")):
        found.respond(status, json={})
        options = types.StartEnterpriseLoginOptions(email=email)
        url = caller.ask(partial(auth0.start_enterprise_login, options))
        assert (url is None) == (status == 404)
    assert "login_hint=a%40two.example" in url


@pytest.mark.sdk("anonymous.create_session", "anonymous.get_token")
@pytest.mark.sdk("anonymous.get_session", "anonymous.logout")
@pytest.mark.sdk("anonymous.exchange_transfer_token_for_injection")
def test_a_guest_has_a_session_until_they_sign_in(
    caller: Caller, elsewhere: respx.MockRouter
) -> None:
    anonymous, minted = auth0.anonymous, elsewhere.post(path="/anonymous/token")
    elsewhere.route().pass_through()
    tokens = {"access_token": "of a guest", "expires_in": 60, "session_token": "guest"}
    minted.respond(200, json=tokens)
    caller.ask(lambda: anonymous.create_session(metadata={"cart": 1}))
    assert caller.ask(anonymous.get_session).metadata == {"cart": 1}
    assert caller.ask(anonymous.get_token).access_token == "of a guest"
    assert caller.user == {}

    minted.respond(200, json={"anon_transfer_token": "ticket"})
    domain = auth.settings.domain
    mint = partial(anonymous.exchange_transfer_token_for_injection, domain)
    assert caller.ask(mint) == "ticket"
    assert "anon_transfer_token=ticket" in caller.start()
    caller.login()
    assert caller.ask(anonymous.get_session) is None
    minted.respond(403, json={"error": "invalid_request"})
    assert "request_refused" in caller.call(anonymous.create_session).text
    minted.respond(503, json={"error": "invalid_request"})
    assert "provider_unreachable" in caller.call(anonymous.create_session).text
    caller.ask(anonymous.logout)


@pytest.mark.parametrize(
    ("path", "asked", "ask"),
    [
        ("/passwordless/start", "", Caller.by_code),
        ("/passkey/register", "", Caller.by_passkey),
        ("/bc-authorize", "", Caller.by_approval),
        ("/me/v1/connected-accounts/accounts", "", None),
        ("/oauth/token", "passwordless", Caller.by_code),
        ("/oauth/token", "webauthn", Caller.by_passkey),
        ("/oauth/token", "token-exchange", Caller.by_exchange),
        ("/oauth/token", "ciba", Caller.by_approval),
        ("/oauth/token", "mfa-otp", Caller.by_second_factor),
    ],
)
def test_an_outage_is_an_outage_whatever_is_asked(
    path: str, asked: str, ask: Any, caller: Caller, elsewhere: respx.MockRouter
) -> None:
    down = elsewhere.route(path=path, content__contains=asked.encode())
    answer = {"error": "invalid_grant", "title": "x", "status": 400}
    elsewhere.route().pass_through()
    caller.login()
    for status in (429, 503):
        down.respond(status, json=answer, headers={"Retry-After": "9"})
        work = partial(ask, caller, "bob") if ask else auth0.list_connected_accounts
        page = caller.call(work)
        assert isinstance(caller.raised, sdk.Auth0Error)
        assert (page.status_code, page.headers["Retry-After"]) == (502, "9"), page.text
        assert "provider_unreachable" in page.text
        assert caller.user["sub"] == "auth0|alice"
        caller.passkeys.clear()  # it came to no sign-up


def test_one_tls_context_serves_every_client_that_the_sdk_opens(
    caller: Caller, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    create = ssl.create_default_context

    def count(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(args)
        return create(*args, **options)

    caller.login()  # by a client of the test's own
    monkeypatch.setattr(ssl, "create_default_context", count)
    _tls_context.cache_clear()
    caller.ask(auth0.list_connected_accounts)
    caller.ask(partial(auth0.get_access_token, scope="another"))
    caller.call(auth0.anonymous.create_session)
    for way in WAYS:
        assert caller.come_in(way, "bob").status_code == 200
    caller.client.get("/logout")

    assert len(made) == 1


def test_what_is_for_several_domains_is_refused_at_start() -> None:
    refused = {"enterprise_connect": True, "use_mtls": True, "mfa_token_ttl": 60}
    for option, value in refused.items():
        given: dict[str, Any] = {option: value, "state_store": auth0.sessions}
        with pytest.raises(SetupError, match=f"not {option}. See docs/sdk.md"):
            Auth0Client(auth.settings, transaction_store=auth0.transactions, **given)
    domains: dict[str, Any] = {"domain": lambda context: "tenant.example"}
    with pytest.raises(ValidationError, match="a valid string"):
        Settings(**(auth.settings.model_dump() | domains))
