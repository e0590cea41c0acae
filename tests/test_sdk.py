"""Every public method of the SDK, tried; every way in goes through one door."""

from __future__ import annotations

import asyncio
import inspect
import re
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
import respx
from auth0_server_python import auth_server as clients
from auth0_server_python import auth_types as types
from auth0_server_python import error as sdk
from flask import Flask, session
from pydantic import ValidationError

import auth
from auth import auth0
from auth0_flask import Auth0Client, Settings, SetupError
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.verification import _tls_context
from conftest import Clock
from passkey import Passkey
from sdk_calls import LEGACY, WAYS, Caller, hint, path_of
from servers import ROOT
from shop import copy_of_auth, make_shop
from test_tokens import OwnInterface, ask_github


def test_the_table_has_every_method_and_option_and_tests_call_them() -> None:
    table = (ROOT / "docs" / "sdk.md").read_text()
    rows = set(re.findall(r"^\| `([\w.]+)` +\| [^|]*\S +\|", table, re.MULTILINE))
    options = set(re.findall(r"^\| `([\w.]+)=` +\| [^|]*\S +\|", table, re.MULTILINE))
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    called = re.findall(r"auth0\.([\w.]+)|((?:my_account|anonymous)\.\w+)", tests)

    parts = ("server", "mfa", "passwordless", "my_account", "anonymous")
    kinds = [f"{part.title().replace('_', '')}Client" for part in parts]

    assert rows == {
        f"{part}.{name}".removeprefix("server.")
        for part, kind in zip(parts, kinds, strict=True)
        for name, _ in inspect.getmembers(getattr(clients, kind), inspect.isfunction)
        if not name.startswith("_")
    }
    assert rows <= {name for names in called for name in names}
    assert options == set(inspect.signature(clients.ServerClient).parameters)


def test_the_documented_login(caller: Caller) -> None:
    caller.login()  # the routes call the first two
    user, own = caller.ask(auth0.get_user), caller.ask(auth0.get_session)

    assert user == own["user"] == caller.user
    assert own["session"].items() <= caller.session["session"].items()
    assert "internal" not in own.keys() | caller.session.keys()
    token = caller.tenant.logout_token(sid=user["sid"])
    caller.ask(lambda: auth0.handle_backchannel_logout(token))
    assert caller.user == {}
    caller.login()
    token, at_auth0 = caller.session["refresh_token"], caller.tenant.directory
    assert at_auth0.refresh_tokens.grant(token)
    assert "/v2/logout" in caller.ask(auth0.logout)
    assert at_auth0.refresh_tokens.grant(token) is None
    assert caller.ask(auth0.get_user) is None


every_way = pytest.mark.parametrize("way", [*WAYS, "by_link"])


@every_way
def test_whichever_way_somebody_comes_in(
    way: str, caller: Caller, shop: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And however many clients the SDK opens, one TLS context is made."""
    create, tenant = Mock(wraps=ssl.create_default_context), caller.tenant
    monkeypatch.setattr(ssl, "create_default_context", create)
    _tls_context.cache_clear()
    heard: list[tuple[str, str]] = []

    def hear(what: str, sender: Flask, user: Any) -> None:
        heard.append((what, user["sub"]))
        if what == "out":
            session.clear()

    with (
        auth.user_logged_in.connected_to(partial(hear, "in"), shop),
        auth.user_logged_out.connected_to(partial(hear, "out"), shop),
    ):
        assert caller.come_in(way, "alice").status_code < 400, caller.raised
        alice, first = caller.user["sub"], caller.session["session"]["id"]
        assert heard == [("in", alice)]
        copied = caller.twin()
        caller.client.get("/cart")
        assert caller.come_in(way, "alice").status_code < 400, caller.raised
        assert caller.client.get("/cart").text == "full"
        if way != "by_second_factor":  # which makes more of the session there is
            assert heard == [("in", alice)] * 2
            assert caller.session["session"]["id"] != first
            assert copied.user == {}

        heard.clear()
        ceiling = int(time.time()) + 600
        tenant.forge(claims={"session_expiry": ceiling, "sid": way})
        assert caller.come_in(way, "bob").status_code < 400, caller.raised
        bob = caller.session
        assert heard == [("in", bob["user"]["sub"]), ("out", alice)]
        assert bob["user"]["sub"] != alice
        assert bob["session"]["ends_at"] == ceiling - 30
        assert caller.client.get("/cart").text == "new"
        token = tenant.logout_token(sub=None, sid=way)
        shop.test_client().post("/backchannel-logout", data={"logout_token": token})
        assert caller.user == {}
    assert create.call_count == 1


@every_way
def test_whichever_way_a_logout_during_the_login_counts(
    way: str, caller: Caller, shop: Flask
) -> None:
    def end_at_auth0(sender: Flask, user: Any) -> None:
        form = {"logout_token": caller.tenant.logout_token(sub=user["sub"])}
        shop.test_client().post("/backchannel-logout", data=form)

    shop.extensions["auth0"].shared_store.check()  # as a server does at its start
    with auth.user_logged_in.connected_to(end_at_auth0, shop):
        caller.come_in(way, "bob")
    assert caller.user == {}


@every_way
def test_whichever_way_a_login_that_fails_leaves_who_was_there(
    way: str, caller: Caller, shop: Flask
) -> None:
    wrong: list[Exception] = []
    shop.register_error_handler(LookupError, lambda _: ("no seat", 418))

    def refuse(sender: Flask, user: Any) -> None:
        raise wrong.pop()

    caller.come_in(way, "alice")
    own = caller.session
    assert own
    caller.client.get("/cart")
    with auth.user_logged_in.connected_to(refuse, shop):
        for error, status in (
            *((auth.LoginRefused("Not <you>."), {403}), (ZeroDivisionError(), {500})),
            *((LookupError(), {418}), ("absent", {400, 403}), (None, {400})),
            (jwt.PyJWTError("in a token of the receiver's own"), {500}),
        ):
            if isinstance(error, Exception):
                wrong.append(error)
            else:  # there is no ID token in the answer, or it has no sub
                caller.tenant.forge(error, claims={"sub": ""})
            answer = caller.come_in(way, "bob")
            assert answer.status_code in status, answer.text
            assert ("Not &lt;you&gt;." in answer.text) == (status == {403})
            assert caller.session == own
            assert caller.client.get("/cart").text == "full"


def test_an_organization_is_checked_whichever_way(tenant: Tenant) -> None:
    acme = tenant.add_organization("acme")
    own = copy_of_auth({"AUTH0_ORGANIZATION": acme.org_id})
    caller = Caller(make_shop(own), tenant, own.auth0)

    for way in ("by_code", "by_exchange", "by_approval"):
        answer = caller.come_in(way, "alice")
        assert (answer.status_code, caller.user) == (400, {}), way
        assert "wrong_organization" in answer.text, way
    caller.login()
    answer = caller.come_in("by_second_factor", "alice")
    assert (answer.status_code, caller.user["org_id"]) == (400, acme.org_id)


@pytest.mark.parametrize("sub", ["auth0|bob", "auth0|Alice"])
def test_who_comes_next_has_none_of_their_tokens(caller: Caller, sub: str) -> None:
    def tokens() -> set[str]:
        own = caller.session
        sets = {tokens["access_token"] for tokens in own["token_sets"]}
        return {own["id_token"], own.get("refresh_token"), *sets} - {None}

    caller.login()
    caller.ask(partial(auth0.get_access_token, audience="https://a.example/"))
    alices, first = tokens(), caller.session["session"]["id"]
    caller.tenant.token_response_extra = {"refresh_token": None}
    caller.tenant.forge(claims={"sub": sub})
    caller.come_in("by_second_factor", "alice")

    assert caller.user["sub"] == sub
    assert caller.session["session"]["id"] != first
    assert len(alices) == 4
    assert tokens().isdisjoint(alices)


def test_what_came_for_a_session_that_was_replaced_is_dropped(caller: Caller) -> None:
    tenant = caller.tenant

    async def both() -> None:
        asked = tenant.count("/oauth/token")
        tenant.fail("token", Fault.slow(0.5))
        late = asyncio.create_task(ask_github())
        while tenant.count("/oauth/token") == asked:  # noqa: ASYNC110 - it has threads
            await asyncio.sleep(0.01)
        await caller.by_exchange("bob")
        await late

    caller.login()
    caller.ask(both)

    assert caller.user["sub"] == "auth0|bob"


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
    # who is signed in follows such a link, perhaps of somebody else's
    to = auth0.build_session_transfer_redirect(
        "http://localhost/login", caller.ask(ask)
    )
    back = httpx.get(caller.start(path_of(to)), trust_env=False)
    answer = caller.client.get(path_of(back.headers["Location"]))
    assert "another_user" in answer.text
    assert caller.session == own


def test_what_returns_tokens_signs_nobody_in(caller: Caller, tenant: Tenant) -> None:
    tenant.approve_backchannel("bob")
    begun = caller.ask(lambda: auth0.initiate_backchannel_authentication(hint("bob")))
    grant = partial(auth0.backchannel_authentication_grant, begun["auth_req_id"])
    assert caller.ask(grant)["id_token"]
    tenant.approve_backchannel("bob")
    bobs = caller.ask(lambda: auth0.backchannel_authentication(hint("bob")))
    assert bobs["id_token"]
    tenant.accept_token("theirs", "bob", LEGACY)
    theirs: Any = {"subject_token": "theirs", "subject_token_type": LEGACY}
    asked = types.CustomTokenExchangeOptions(**theirs)
    assert caller.ask(lambda: auth0.custom_token_exchange(asked)).access_token
    assert caller.user == {}

    caller.login()
    shown = {"refresh_token": caller.session["refresh_token"], "connection": "github"}
    assert caller.ask(lambda: auth0.get_token_for_connection(shown))["expires_in"]
    found = caller.ask(lambda: auth0.get_token_by_refresh_token(shown))
    assert found.keys() >= {"access_token", "expires_at"}
    assert caller.ask(auth0.get_access_token)
    own = caller.session

    async def refresh_bobs() -> None:
        assert (await auth0.get_token_by_refresh_token(bobs))["access_token"]
        await ask_github()  # changes the session

    caller.ask(refresh_bobs)
    for name in ("user", "refresh_token"):
        assert caller.session[name] == own[name]
    assert tenant.reuse_detected == 0


LINK = auth0.start_link_user, auth0.complete_link_user
UNLINK = auth0.start_unlink_user, auth0.complete_unlink_user


@pytest.mark.parametrize(("start", "complete"), [LINK, UNLINK])
def test_who_links_keeps_the_session(start: Any, complete: Any, caller: Caller) -> None:
    options = {"connection": "github", "app_state": {"return_to": "/cart"}}
    start = partial(start, options)
    caller.login()
    own = caller.session

    back = caller.confirm(caller.ask(start))
    assert caller.client.get(back).location == "/cart"
    assert caller.session == own
    back = caller.confirm(caller.ask(start))
    found = caller.ask(lambda: complete(f"http://localhost{back}"))
    assert found == {"app_state": {"return_to": "/cart"}}
    assert caller.session == own

    back = caller.confirm(caller.ask(start))
    caller.username = "bob"
    caller.login()
    answer = caller.client.get(back)
    assert (answer.status_code, caller.user["sub"]) == (400, "auth0|bob")
    assert "another_user" in answer.text
    back = caller.confirm(caller.ask(start), "deny")
    assert "access_denied" in caller.client.get(back).text


def test_who_links_gets_no_replaced_token_back(caller: Caller, clock: Clock) -> None:
    caller.client.application.session_interface = OwnInterface()  # it writes all anew
    caller.login()
    link = partial(auth0.start_link_user, {"connection": "github"})
    back = f"http://localhost{caller.confirm(caller.ask(link))}"
    other_tab = caller.twin()

    async def callback() -> None:
        await auth0.complete_interactive_login(back)
        token = partial(auth0.get_access_token, audience="x")
        await asyncio.to_thread(other_tab.ask, token)  # at the same moment

    caller.ask(callback)
    clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert caller.ask(partial(auth0.get_access_token, audience="https://b.example/"))
    assert caller.tenant.reuse_detected == 0


GOOGLE = types.ConnectAccountOptions(connection="google-oauth2")
GOOGLE.app_state = {"return_to": "/cart"}


@pytest.mark.parametrize("is_ours", [True, False])
def test_accounts_are_minded_within_one_cookie(is_ours: bool, caller: Caller) -> None:
    if not is_ours:
        caller.client.application.session_interface = OwnInterface()
    caller.login()
    for _ in range(2):
        back = caller.confirm(caller.ask(lambda: auth0.start_connect_account(GOOGLE)))
        twin = caller.twin()
        done = partial(auth0.complete_interactive_login, f"http://localhost{back}")
        assert caller.client.get(back).location == "/cart"
        found = twin.ask(done)  # at the same moment
        assert found["connected_account"]["connection"] == "google-oauth2"
        assert caller.client.get(back).location == "/"  # later: it is used up
        (account,) = caller.ask(auth0.list_connected_accounts).accounts
        caller.ask(partial(auth0.delete_connected_account, account.id))
        assert caller.tenant.accounts("alice") == []
    kept = [tokens["audience"] for tokens in caller.session["token_sets"]]
    assert kept == ["default", caller.tenant.my_account]
    (cookie,) = (caller.client._cookies or {}).values()
    assert len(cookie.value) < 4000


def test_an_account_is_connected_by_its_own_transaction(caller: Caller) -> None:
    caller.login()
    back = caller.confirm(caller.ask(lambda: auth0.start_connect_account(GOOGLE)))
    caller.ask(auth0.list_connected_accounts)  # whose token takes that one's place
    begun = parse_qs(urlsplit(caller.start()).query)["state"][0]

    wrong = f"/callback?connect_code=x&state={begun}"  # that of a login
    for path in (wrong, back.replace("connect_code", "code")):
        answer = caller.client.get(path)
        assert (answer.status_code, "incomplete_callback" in answer.text) == (400, True)
    caller.tenant.fail("token", Fault.status(503))
    assert caller.client.get(back).status_code == 502
    done = caller.ask(lambda: auth0.complete_connect_account(f"http://localhost{back}"))
    assert (done.connection, done.app_state) == ("google-oauth2", GOOGLE.app_state)
    assert caller.tenant.accounts("alice") == ["google-oauth2"]


def test_a_user_minds_accounts_and_a_passkey(caller: Caller) -> None:
    my_account, key = auth0.my_account, Passkey()
    scope = " ".join(caller.tenant.my_account_scopes)
    here: dict[str, Any] = {"redirect_uri": auth.settings.redirect_uri}
    connect = types.ConnectAccountRequest(connection="x", state="s", **here)
    here |= {"auth_session": "x", "connect_code": "x"}
    done = types.CompleteConnectAccountRequest(**here)

    async def mind() -> None:
        found = await auth0.list_connected_account_connections(take=1)
        assert [connection.name for connection in found.connections] == ["github"]
        token = await auth0.get_access_token(audience=my_account.audience, scope=scope)
        assert (await my_account.list_connected_account_connections(token)).connections
        assert (await my_account.list_connected_accounts(token)).accounts == []
        for refused in (
            my_account.connect_account(token, connect),
            my_account.complete_connect_account(token, done),
            my_account.delete_connected_account(token, "x"),
        ):
            with pytest.raises(sdk.MyAccountApiError):
                await refused

        assert (await my_account.get_factors(token)).factors
        enroll = types.EnrollAuthenticationMethodRequest(type="passkey")
        begun = await my_account.enroll_authentication_method(token, enroll)
        shown = types.VerifyAuthenticationMethodRequest(
            auth_session=begun.auth_session,
            authn_response=key.create(begun.authn_params_public_key),
        )
        own = begun.authentication_method_id
        await my_account.verify_authentication_method(token, own, shown)
        name = types.UpdateAuthenticationMethodRequest(name="Phone")
        await my_account.update_authentication_method(token, own, name)
        assert (await my_account.get_authentication_method(token, own)).name == "Phone"
        await my_account.delete_authentication_method(token, own)
        kept = await my_account.list_authentication_methods(token)
        assert kept.authentication_methods == []

    caller.login()
    caller.ask(mind)


def test_a_session_with_tokens_of_many_apis_keeps_the_newest(caller: Caller) -> None:
    caller.login()
    apis = [f"https://{number}.example/" for number in range(16)]
    for api in apis:
        caller.ask(partial(auth0.get_access_token, audience=api))

    kept = [tokens["audience"] for tokens in caller.session["token_sets"]]
    assert 4 < len(kept) < 16
    assert kept == apis[-len(kept) :]
    assert "id_token" in caller.session
    caller.ask(auth0.get_access_token)  # it is asked for anew


@pytest.fixture
def elsewhere(tenant: Tenant) -> Any:
    """What the tenant does not answer; the rest goes to it."""
    with respx.mock(assert_all_called=False) as router:
        yield router


def test_a_login_begins_by_a_domain(caller: Caller, elsewhere: Any) -> None:
    found = elsewhere.get(path="/.well-known/webfinger")
    elsewhere.route().pass_through()
    for status, email in ((404, "a@one.example"), (200, "a@two.example")):
        found.respond(status, json={})
        options = types.StartEnterpriseLoginOptions(email=email)
        url = caller.ask(partial(auth0.start_enterprise_login, options))
        assert (url is None) == (status == 404)
    assert "login_hint=a%40two.example" in url


def test_a_guest_has_a_session_until_a_login(caller: Caller, elsewhere: Any) -> None:
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
    for status, code in ((403, "request_refused"), (503, "provider_unreachable")):
        minted.respond(status, json={"error": "invalid_request"})
        assert code in caller.call(anonymous.create_session).text
    caller.ask(anonymous.logout)


TAKE, NO_ID = auth0.list_connected_accounts, partial(auth0.delete_connected_account, "")
UNKNOWN = partial(auth0.get_access_token, audience="x")
Refused = tuple[Callable[[Caller], Any], str, str]


def fails(error: str) -> Callable[[Caller], Any]:
    async def work(caller: Caller) -> None:
        caller.tenant.fail("token", Fault.body({"error": error}, status=400))
        await caller.by_code("alice")

    return work


#: What is done, the name of what the SDK raises, and the code that the page has.
BY_GUESTS: list[Refused] = [
    (fails("access_denied"), "PasswordlessVerifyError", "passwordless_refused"),
    (fails("invalid_client"), "PasswordlessVerifyError", "client_refused"),
    (fails("server_error"), "PasswordlessVerifyError", "invalid_response"),
    (lambda c: c.by_passkey("nobody"), "PasskeyError", "passkey_refused"),
    (lambda c: c.by_second_factor("bob", otp="x"), "MfaVerifyError", "mfa_refused"),
    (lambda c: c.by_approval("bob", allow=False), "ApiError", "login_refused"),
    (lambda _: auth0.login_backchannel(hint("x")), "ApiError", "login_refused"),
    (lambda c: c.by_exchange(""), "CustomTokenExchangeError", "exchange_refused"),
    (lambda _: auth0.start_link_user({}), "StartLinkUserError", "signed_out"),
]
BY_A_USER: list[Refused] = [
    (lambda _: TAKE(take=10), "MyAccountApiError", "my_account_refused"),
    (lambda _: UNKNOWN(), "AccessTokenError", "token_refused"),
    (lambda _: ask_github("x"), "AccessTokenForConnectionError", "token_refused"),
    (lambda _: TAKE(take=0), "InvalidArgumentError", "request_refused"),
    (lambda _: NO_ID(), "MissingRequiredArgumentError", "incomplete_callback"),
]
#: What the app or Auth0 does wrong is no refusal.
FAULTS = {"client_refused": 500, "invalid_response": 502}


@pytest.mark.parametrize("refused", [*BY_GUESTS, *BY_A_USER])
def test_a_refusal_has_its_type_and_its_page(refused: Refused, caller: Caller) -> None:
    work, kind, code = refused
    caller.passkeys["nobody"] = Passkey()
    caller.tenant.my_account_scopes.clear()
    caller.tenant.audiences = {"known"}
    if refused in BY_A_USER:
        caller.login()

    answer = caller.call(lambda: work(caller))

    assert type(caller.raised).__name__ == kind
    least = FAULTS.get(code, 400)
    assert least <= answer.status_code < max(least + 1, 500), answer.text
    assert code in answer.text
    assert bool(caller.user) == (refused in BY_A_USER)


TOKEN, ACCOUNTS = "/oauth/token", "/me/v1/connected-accounts/accounts"


@pytest.mark.parametrize(
    ("path", "asked", "ask"),
    [
        ("/passwordless/start", "", Caller.by_code),
        ("/passkey/register", "", Caller.by_passkey),
        ("/bc-authorize", "", Caller.by_approval),
        (ACCOUNTS, "", lambda *_: auth0.list_connected_accounts()),
        (TOKEN, "passwordless", Caller.by_code),
        (TOKEN, "webauthn", Caller.by_passkey),
        (TOKEN, "token-exchange", Caller.by_exchange),
        (TOKEN, "ciba", Caller.by_approval),
        (TOKEN, "mfa-otp", Caller.by_second_factor),
        (TOKEN, "=refresh_token", lambda *_: UNKNOWN()),
        (TOKEN, "federated", lambda *_: ask_github()),
    ],
)
def test_an_outage_is_an_outage_whatever_is_asked(
    path: str, asked: str, ask: Any, caller: Caller, elsewhere: respx.MockRouter
) -> None:
    down = elsewhere.route(path=path, content__contains=asked.encode())
    answer = {"error": "invalid_grant", "title": "x", "status": 400}  # as a refusal
    elsewhere.route().pass_through()
    caller.login()
    for status in (429, 503):
        down.respond(status, json=answer, headers={"Retry-After": "9"})
        page = caller.call(partial(ask, caller, "bob"))
        assert isinstance(caller.raised, sdk.Auth0Error | auth.LoginError)
        assert (page.status_code, page.headers["Retry-After"]) == (502, "9"), page.text
        assert "provider_unreachable" in page.text
        assert caller.user["sub"] == "auth0|alice"
        caller.passkeys.clear()  # it came to no sign-up


def test_what_is_for_several_domains_is_refused_at_start() -> None:
    refused = {"enterprise_connect": True, "use_mtls": True, "mfa_token_ttl": 60}
    for option, value in refused.items():
        given: dict[str, Any] = {option: value, "state_store": auth0.sessions}
        with pytest.raises(SetupError, match=f"not {option}. See docs/sdk.md"):
            Auth0Client(auth.settings, transaction_store=auth0.transactions, **given)
    domains: dict[str, Any] = {"domain": lambda context: "tenant.example"}
    with pytest.raises(ValidationError, match="a valid string"):
        Settings(**(auth.settings.model_dump() | domains))
