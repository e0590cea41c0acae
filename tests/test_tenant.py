"""The stand-in for Auth0: what it issues and, above all, what it refuses.

Tests of whole logins show the rest, since all of them sign in at it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from auth0_flask.tenant import Fault, Tenant
from passkey import Passkey

TESTS = Path(__file__).resolve().parent
CALLBACK = "http://localhost:1/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
GRANT = "http://auth0.com/oauth/grant-type"
FEDERATED = "token-exchange:federated-connection-access-token"
FEDERATED_TYPE = "http://auth0.com/oauth/token-type/federated-connection-access-token"
PUSHED = "urn:ietf:params:oauth:request_uri:"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"
MFA = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Client:
    """The app's server and one visitor's browser in one, without an app."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        trust = ssl.create_default_context(cafile=tenant.ca_file)
        self.http = httpx.Client(verify=trust, trust_env=False, timeout=30)

    def query(self, **changes: str | None) -> dict[str, str]:
        """Return an authorization request; None leaves a parameter out."""
        usual = {
            "client_id": self.tenant.client_id,
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": "openid profile email offline_access",
            "code_challenge": CHALLENGE.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": "s",
        }
        return {n: v for n, v in {**usual, **changes}.items() if v is not None}

    def authorize(self, **changes: str | None) -> httpx.Response:
        return self.ask(self.query(**changes))

    def ask(self, query: dict[str, str]) -> httpx.Response:
        return self.http.get(f"{self.tenant.origin}/authorize", params=query)

    def page(self, **changes: str | None) -> str:
        """Return the text of the login page."""
        page = self.http.get(self.authorize(**changes).headers["location"])
        return " ".join(page.text.split())

    def fill_in(self, answer: httpx.Response, **form: str) -> httpx.Response:
        """Answer the page of the tenant's that this is, or leads to."""
        page = httpx.URL(answer.headers.get("location", str(answer.url)))
        form = {"action": "login", **page.params, **form}
        return self.http.post(page.copy_with(query=None), data=form)

    def redeem(self, answer: httpx.Response) -> dict[str, Any]:
        """Exchange the code that an answer brings."""
        kind = {"grant_type": "authorization_code", "redirect_uri": CALLBACK}
        shown = {"code_verifier": VERIFIER, "code": sent_back(answer)["code"]}
        return dict(self.token(**kind, **shown).json())

    def login(self, username: str = "alice", **changes: str | None) -> dict[str, Any]:
        """Sign in and return the tokens."""
        answer = self.authorize(**changes)
        if "/u/login?" in answer.headers["location"]:
            answer = self.fill_in(answer, username=username)
        if "/u/factor?" in answer.headers["location"]:
            answer = self.fill_in(answer, code=self.tenant.otp_for(username))
        return self.redeem(answer)

    def post(
        self, endpoint: str, form: dict[str, str], *, secret: bool = True
    ) -> httpx.Response:
        known = httpx.BasicAuth(self.tenant.client_id, self.tenant.client_secret)
        url, auth = (
            f"{self.tenant.issuer}oauth/{endpoint}",
            known if secret else httpx.Auth(),
        )
        return self.http.post(url, data=form, auth=auth)

    def token(self, **form: str) -> httpx.Response:
        return self.post("token", form)

    def refresh(self, token: str, **form: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=token, **form)

    def get(self, url: str, token: str = "") -> httpx.Response:
        return self.http.get(urljoin(self.tenant.issuer, url), headers=bearer(token))

    def my_account_token(self, what: str) -> str:
        """Sign in as Alice; return a token for a part of the My Account API."""
        scope = " ".join(f"{verb}:me:{what}" for verb in ("create", "read", "delete"))
        asked = {"audience": self.tenant.my_account, "scope": scope}
        tokens = self.refresh(self.login()["refresh_token"], **asked).json()
        return str(tokens["access_token"])

    def me(self, method: str, path: str, token: str, **body: Any) -> httpx.Response:
        """Ask the My Account API."""
        url, headers = f"{self.tenant.my_account}v1/{path}", bearer(token)
        return self.http.request(method, url, headers=headers, json=body)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def sent_back(answer: httpx.Response) -> dict[str, str]:
    """Return the query of where an answer redirects."""
    return dict(httpx.URL(answer.headers["location"]).params)


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Return what an answer to the app's server refuses."""
    return answer.status_code, answer.json()["error"]


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    client = Client(tenant)
    with client.http:
        yield client


@pytest.fixture(scope="module")
def app_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# Authorization requests


@pytest.mark.parametrize("asked", ["org_1", "ACME", None])
def test_all_that_is_issued_names_the_organization_that_was_asked_for(
    client: Client, asked: str | None
) -> None:
    client.tenant.add_organization("acme", org_id="org_1")
    tokens = client.login(organization=asked, audience="https://api.example/")
    again = client.refresh(tokens["refresh_token"]).json()
    issued = (tokens["id_token"], tokens["access_token"], again["id_token"])
    userinfo = client.get("userinfo", tokens["access_token"]).json()
    named = ({"org_id": "org_1", "org_name": "acme"} if asked else {}).items()
    for claims in (userinfo, *map(claims_of, issued)):
        assert {n: v for n, v in claims.items() if "org_" in n}.items() == named


def test_the_login_page_says_what_was_asked_for(client: Client, tenant: Tenant) -> None:
    tenant.add_organization("acme", display_name="Acme <Inc.>")
    page = client.page(organization="acme", invitation="ticket")
    assert "with <strong>Acme &lt;Inc.&gt;</strong>" in page
    assert "You have been invited." in page
    assert "<h1>Continue with github</h1>" in client.page(connection="github")
    assert "<h1>Sign up</h1>" in client.page(screen_hint="signup")


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"organization": "org_no"}, "invalid_request"),
        ({"connection": "myspace"}, "invalid_request"),
        ({"audience": "https://b/"}, "access_denied"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        # whose request may be anybody's
        ({"client_id": "another"}, None),
        ({"redirect_uri": "https://elsewhere.example/"}, None),
        ({"redirect_uri": "http://localhost\\@elsewhere.example/"}, None),
        ({"request_uri": f"{PUSHED}x"}, None),
    ],
    ids=str,
)
def test_a_mistake_in_a_request_is_told_to_the_app_or_sent_nowhere(
    client: Client, asked: dict[str, str | None], error: str | None
) -> None:
    client.tenant.audiences = {"https://a/"}
    answer = client.authorize(**asked)
    if error:
        assert answer.headers["location"].startswith(f"{CALLBACK}?")
        assert {"error": error, "state": "s"}.items() <= sent_back(answer).items()
    else:
        assert answer.status_code in {400, 403}
        assert "location" not in answer.headers
    pushed = client.post("par", client.query(**asked))
    assert error_of(pushed) == (400, error or "invalid_request")


def test_a_pushed_request_is_good_once_for_90_seconds_and_can_be_demanded(
    client: Client, tenant: Tenant
) -> None:
    for is_demanded in (False, True):
        tenant.require_pushed_authorization_requests = is_demanded
        said = client.get(".well-known/openid-configuration").json()
        assert said["require_pushed_authorization_requests"] is is_demanded
    assert sent_back(client.authorize())["error"] == "invalid_request"
    form = client.query(state="pushed")
    assert client.post("par", form, secret=False).status_code == 401

    names = []
    for _ in range(2):
        pushed = client.post("par", form)
        assert (pushed.status_code, pushed.json()["expires_in"]) == (201, 90)
        names.append({"client_id": tenant.client_id, **pushed.json()})
    answer = client.fill_in(client.ask(names[0]), username="alice")
    assert sent_back(answer)["state"] == "pushed"
    assert client.redeem(answer)["id_token"]
    assert client.ask(names[0]).status_code == 400
    tenant.clock_offset = 91
    assert client.ask(names[1]).status_code == 400


def test_an_assertion_is_good_once_and_a_wrong_one_never(
    client: Client, tenant: Tenant, app_key: rsa.RSAPrivateKey
) -> None:
    own = {"iss": tenant.client_id, "sub": tenant.client_id, "aud": tenant.issuer}
    form = {"client_id": tenant.client_id, "client_assertion_type": ASSERTION_TYPE}

    def made(key: Any = app_key, alg: str = "RS256", **changes: Any) -> str:
        times = {"exp": int(time.time()) + 60, "jti": os.urandom(8).hex()}
        claims = {n: v for n, v in {**own, **times, **changes}.items() if v is not None}
        return jwt.encode(claims, key, algorithm=alg)

    def revoke(assertion: str) -> int:
        shown = {"token": "x", **form, "client_assertion": assertion}
        return client.post("revoke", shown, secret=False).status_code

    assert revoke(made()) == 401
    tenant.client_public_key = pem_of(app_key)
    for aud in (tenant.issuer, f"{tenant.issuer}oauth/revoke"):
        good = made(aud=aud)
        assert [revoke(good), revoke(good)] == [200, 401]
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    wrong: list[dict[str, Any]] = [
        *({"iss": "x"}, {"sub": "x"}, {"aud": "https://x/"}, {"jti": None}),
        *({"exp": 1}, {"exp": None}, {"key": stranger}),
        {"key": tenant.client_secret, "alg": "HS256"},
    ]
    assert [revoke(made(**changes)) for changes in wrong] == [401] * 8
    assert client.post("revoke", {"token": "x"}).status_code == 401  # by the secret


# Tokens


def test_a_refresh_token_is_good_once_and_its_family_as_long_as_no_two_come(
    client: Client, tenant: Tenant
) -> None:
    first, other = (client.login()["refresh_token"] for _ in range(2))
    second = client.refresh(first).json()["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.refresh, [second] * 8))
    assert sorted(answer.status_code for answer in answers) == [200, *[403] * 7]
    [third] = [a.json()["refresh_token"] for a in answers if a.status_code == 200]
    for token in (first, second, third):
        assert error_of(client.refresh(token)) == (403, "invalid_grant")
    assert tenant.reuse_detected == 1

    newer = client.refresh(other).json()["refresh_token"]
    assert client.post("revoke", {"token": other}, secret=False).status_code == 401
    for token in (other, "unknown"):
        assert client.post("revoke", {"token": token}).status_code == 200
    assert client.refresh(newer).status_code == 403
    assert tenant.reuse_detected == 1


def test_a_refresh_token_gives_tokens_of_connections_and_stays_good(
    client: Client,
) -> None:
    token = client.login()["refresh_token"]
    asked = {
        "grant_type": f"urn:auth0:params:oauth:grant-type:{FEDERATED}",
        "connection": "google-oauth2",
        "subject_token": token,
        "subject_token_type": f"{TOKEN_TYPE}refresh_token",
        "requested_token_type": FEDERATED_TYPE,
    }
    found = client.token(**asked).json()
    assert found["access_token"].startswith("google-oauth2-token-")
    assert found["issued_token_type"] == FEDERATED_TYPE
    assert "refresh_token" not in found
    for name in ("connection", "subject_token_type", "requested_token_type"):
        for wrong in ("", "myspace"):
            answer = client.token(**asked | {name: wrong})
            assert error_of(answer) == (400, "invalid_request")
    answer = client.token(**asked | {"subject_token": "unknown"})
    assert error_of(answer) == (403, "invalid_grant")
    assert client.refresh(token).status_code == 200


def test_the_api_takes_its_own_tokens_and_no_others(
    client: Client, tenant: Tenant
) -> None:
    tokens = client.login(audience=tenant.api_audience, scope="openid read:things")
    own = tokens["access_token"]
    for base in (tenant.issuer, f"{tenant.origin}/"):
        answer = client.get(f"{base}api/things", own).json()
        assert answer == {"sub": "auth0|alice", "scope": "openid read:things"}
    opaque = client.login()["access_token"]
    other = client.login(audience="https://b/")["access_token"]
    tenant.clock_offset = tenant.access_token_lifetime + 1
    for token in ("", opaque, other, tokens["id_token"], own):
        answer = client.get("api/things", token)
        told = 'Bearer error="invalid_token"' if token else "Bearer"
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, told)
    tenant.clock_offset, tenant.api_audience = 0, "https://b/"
    assert client.get("api/things", other).status_code == 200


# Signing out


@pytest.mark.parametrize(
    ("path", "told", "status"),
    [
        ("/v2/logout", "backchannel-logout", 200),
        ("/oidc/logout", "nowhere", 404),
        ("/u/session", "backchannel-logout", 200),
    ],
)
def test_the_app_is_told_once_of_every_session_that_ends(
    client: Client, tenant: Tenant, site: str, path: str, told: str, status: int
) -> None:
    tenant.backchannel_logout_uri = f"{site}/{told}"
    client.login()
    session, method = f"{tenant.origin}/u/session", "POST" if "/u/" in path else "GET"
    assert "Alice" in client.http.get(session).text
    for _ in range(2):  # the second ends nothing
        answer = client.http.request(method, tenant.origin + path)
        assert answer.status_code in {200, 302, 303}
    assert tenant.finish_backchannel()
    assert tenant.backchannel_answers == [status]
    assert "Not signed in" in client.http.get(session).text
    assert sent_back(client.authorize(prompt="none"))["error"] == "login_required"


# A second factor


def test_a_refresh_goes_on_after_a_second_factor_that_is_shown_once(
    client: Client, tenant: Tenant
) -> None:
    token, recovery = client.login()["refresh_token"], tenant.enroll("alice")
    tenant.require_mfa = True
    refused = client.refresh(token)
    assert error_of(refused) == (403, "mfa_required")
    ways = [{"type": "otp"}, {"type": "recovery-code"}]
    assert refused.json()["mfa_requirements"] == {"challenge": ways}

    def show(way: str, **proof: str) -> httpx.Response:
        shown = {"mfa_token": refused.json()["mfa_token"], **proof}
        return client.token(grant_type=f"{GRANT}/mfa-{way}", **shown)

    wrong = f"{(int(tenant.otp_for('alice')) + 1) % 10**6:06}"
    assert error_of(show("otp", otp=wrong)) == (403, "invalid_grant")
    no = show("recovery-code", recovery_code="x")
    assert error_of(no) == (403, "invalid_grant")
    proved = show("recovery-code", recovery_code=recovery).json()
    again = show("otp", otp=tenant.otp_for("alice"))
    assert error_of(again) == (401, "expired_token")
    for tokens in (proved, client.refresh(token).json()):
        assert claims_of(tokens["id_token"])["amr"] == ["mfa"]
    answer = client.fill_in(client.authorize(prompt="login"), username="alice")
    assert "This code is wrong" in client.fill_in(answer, code=recovery).text
    assert "code" in sent_back(client.fill_in(answer, code=proved["recovery_code"]))


def test_a_second_factor_is_asked_for_as_often_as_the_app_wants(
    client: Client, tenant: Tenant
) -> None:
    first, asked = claims_of(client.login()["id_token"]), {"acr_values": MFA}
    silent = client.authorize(**asked, prompt="none")
    assert sent_back(silent)["error"] == "interaction_required"
    for _ in range(2):
        tenant.clock_offset += 60
        assert "<strong>Alice</strong>" in client.page(**asked)
        claims = claims_of(client.login(**asked)["id_token"])
        assert (claims["amr"], claims["acr"]) == (["mfa"], MFA)
        assert claims["auth_time"] >= first["auth_time"] + 60
        first = claims


def test_a_wrong_code_gets_nowhere_and_nobody_in(
    client: Client, tenant: Tenant
) -> None:
    tenant.enroll("alice")
    answer = client.fill_in(client.authorize(), username="alice")
    tenant.clock_offset = 90
    old = tenant.otp_for("alice")
    tenant.clock_offset = 0
    for wrong in ("", "000", "x" * 300, "é", old):
        page = client.fill_in(answer, code=wrong)
        assert "This code is wrong" in page.text
        assert "set-cookie" not in page.headers
    assert sent_back(client.authorize(prompt="none"))["error"] == "login_required"
    denied = client.fill_in(answer, action="deny")
    assert sent_back(denied)["error"] == "access_denied"
    again = client.fill_in(answer, code=tenant.otp_for("alice"))
    assert again.status_code == 400


# Logins without a redirect


def test_a_code_or_link_that_was_sent_signs_in_once(
    client: Client, tenant: Tenant
) -> None:
    email, phone = "new@example.com", "+4930123456"
    by_code = f"{GRANT}/passwordless/otp"
    client.post("../passwordless/start", {"connection": "sms", "phone_number": phone})
    code, inbox = tenant.passwordless_code(phone), f"{tenant.origin}/u/inbox"
    assert f"To {phone}" in (shown := client.http.get(inbox).text)
    assert code in shown
    answers = [
        client.token(grant_type=by_code, username=phone, otp=otp)
        for otp in ("x", code, code)
    ]
    assert [answer.status_code for answer in answers] == [403, 200, 403]
    assert claims_of(answers[1].json()["id_token"])["name"] == phone

    asked = {"connection": "email", "email": email, "send": "link"}
    for wrong in ('{"redirect_uri": "https://elsewhere.example/"}', "no json", "[]"):
        answer = client.post("../passwordless/start", {**asked, "authParams": wrong})
        assert error_of(answer) == (400, "invalid_request")
    asked["authParams"] = json.dumps({"redirect_uri": CALLBACK})
    client.post("../passwordless/start", asked)
    url = tenant.passwordless_link(email)
    claims = claims_of(client.redeem(client.http.get(url))["id_token"])
    assert (claims["email"], claims["email_verified"]) == (email, True)
    assert client.http.get(url).status_code == 400
    assert claims_of(client.login()["id_token"])["sub"] == claims["sub"]


def ceremony(client: Client, step: str, **profile: str) -> tuple[str, SimpleNamespace]:
    """Begin a sign-up or a login with a passkey."""
    url = f"{client.tenant.issuer}passkey/{step}"
    form = {"client_id": client.tenant.client_id, "user_profile": profile}
    answer = client.http.post(url, json=form).json()
    options = answer["authn_params_public_key"]
    asked = {"challenge": options["challenge"], "rp_id": options.get("rpId")}
    return answer["auth_session"], SimpleNamespace(**asked)


def by_passkey(client: Client, session: str, answer: Any) -> httpx.Response:
    kind = "urn:okta:params:oauth:grant-type:webauthn"
    shown = answer.model_dump_json(by_alias=True)
    return client.token(grant_type=kind, auth_session=session, authn_response=shown)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"id": "unknown"}, "it is unknown"),
        ({"key": Passkey().key}, "rejected"),
        ({"origin": "https://elsewhere.example"}, "the origin differs"),
        ({"challenge": "another"}, "the challenge differs"),
        ({"rp_id": "elsewhere.example"}, "another site"),
        ({"kind": "create"}, "rejected"),
    ],
)
def test_a_passkey_signs_up_and_then_in(
    client: Client, changes: dict[str, Any], why: str
) -> None:
    passkey = Passkey()
    session, options = ceremony(client, "register", email="new@example.com")
    made = by_passkey(client, session, passkey.create(options)).json()
    session, options = ceremony(client, "challenge")
    vars(passkey).update(changes)
    vars(options).update(changes)
    shown = passkey.create(options) if "kind" in changes else passkey.get(options)
    answer = by_passkey(client, session, shown)
    if why:
        assert error_of(answer) == (403, "invalid_grant")
        assert why in answer.text
    else:
        subs = {claims_of(t["id_token"])["sub"] for t in (made, answer.json())}
        assert len(subs) == 1
    again = by_passkey(client, session, shown)  # it is spent either way
    assert "expired" in again.text


def test_who_is_elsewhere_approves_a_login_once(client: Client, tenant: Tenant) -> None:
    hint = {"login_hint": '{"sub": "auth0|bob"}', "binding_message": "Desk <4>"}
    grant, inbox = "urn:openid:params:grant-type:ciba", f"{tenant.origin}/u/inbox"
    for action, status in (("login", 200), ("deny", 400)):
        begun = client.post("../bc-authorize", hint).json()["auth_req_id"]
        form = {"grant_type": grant, "auth_req_id": begun}
        assert error_of(client.token(**form)) == (400, "authorization_pending")
        page = client.http.get(inbox).text
        assert "Sign Bob in elsewhere?" in page
        assert "Desk &lt;4&gt;" in page
        client.http.post(inbox, data={"id": begun, "action": action})
        assert "nothing here" in client.http.get(inbox).text
        assert client.token(**form).status_code == status
        assert error_of(client.token(**form)) == (400, "expired_token")


def test_a_token_of_somebody_elses_is_exchanged_and_a_session_transferred_once(
    client: Client, tenant: Tenant
) -> None:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "theirs",
        "subject_token_type": "urn:acme:legacy",
        "actor_token": client.login("bob")["id_token"],
        "actor_token_type": f"{TOKEN_TYPE}id_token",
    }
    assert error_of(client.token(**form)) == (403, "invalid_grant")
    tenant.accept_token("theirs", "alice", "urn:acme:legacy")
    wrong = client.token(**form | {"actor_token": "x"})
    assert error_of(wrong) == (403, "invalid_grant")
    exchanged = client.token(**form).json()
    ticket = client.token(**form, audience=f"urn:{tenant.domain}:session_transfer")
    shown = {"session_transfer_token": ticket.json()["access_token"]}
    for tokens in (exchanged, client.redeem(client.authorize(**shown))):
        claims = claims_of(tokens["id_token"])
        assert (claims["sub"], claims["act"]) == ("auth0|alice", {"sub": "auth0|bob"})
    assert sent_back(client.authorize(**shown))["error"] == "invalid_request"


# A user's account


@pytest.mark.parametrize("wrong", ["", "auth_session", "redirect_uri", "code_verifier"])
def test_only_who_began_to_connect_an_account_completes_it(
    client: Client, tenant: Tenant, wrong: str
) -> None:
    token = client.my_account_token("connected_accounts")
    asked = client.query(connection="github")
    begun = client.me("POST", "connected-accounts/connect", token, **asked).json()
    page = client.http.get(begun["connect_uri"], params=begun["connect_params"])
    assert "use your account at github" in page.text
    shown = {"auth_session": begun["auth_session"], "redirect_uri": CALLBACK}
    shown |= sent_back(client.fill_in(page)) | {"code_verifier": VERIFIER}
    shown |= {wrong: "http://x"}
    for status in (400 if wrong else 201, 400):  # it is spent either way
        answer = client.me("POST", "connected-accounts/complete", token, **shown)
        assert answer.status_code == status
    assert tenant.accounts("alice") == ([] if wrong else ["github"])


@pytest.mark.parametrize("kind", ["totp", "recovery-code", "passkey"])
def test_a_method_counts_once_its_user_has_shown_it(
    client: Client, tenant: Tenant, kind: str
) -> None:
    token, passkey = client.my_account_token("authentication_methods"), Passkey()
    begun = client.me("POST", "authentication-methods", token, type=kind).json()
    own = f"authentication-methods/{begun['id']}"
    proof: dict[str, Any] = {"recovery_code": begun.get("recovery_code")}
    if kind == "totp":
        proof = {"otp_code": tenant.otp_for("alice")}
    elif kind == "passkey":
        options = SimpleNamespace(**begun["authn_params_public_key"])
        proof = {"authn_response": passkey.create(options).model_dump(by_alias=True)}
    for session, status in (("another", 403), (begun["auth_session"], 201)):
        shown = {"auth_session": session, **proof}
        answer = client.me("POST", f"{own}/verify", token, **shown)
        assert answer.status_code == status
    assert client.me("GET", own, token).json()["confirmed"] is True
    if kind == "passkey":
        tenant.enroll("alice")
        session, options = ceremony(client, "challenge")
        answer = by_passkey(client, session, passkey.get(options))
        assert error_of(answer) == (403, "mfa_required")
    assert client.me("DELETE", own, token).status_code == 204
    assert client.me("GET", own, token).status_code == 404
    assert client.me("GET", "factors", token).status_code == 403  # not of its scope
    tenant.clock_offset = tenant.access_token_lifetime + 1
    assert client.me("GET", own, token).status_code == 401


def test_only_who_is_known_links_an_account(client: Client, tenant: Tenant) -> None:
    hint = client.login()["id_token"]
    for scope, linked in (("link_account", {"github"}), ("unlink_account", set())):
        asked = {"scope": f"openid {scope}", "requested_connection": "github"}
        assert sent_back(client.authorize(**asked))["error"] == "invalid_request"
        page = client.http.get(
            client.authorize(**asked, id_token_hint=hint).headers["location"]
        )
        assert "Sign in as Alice by github" in page.text
        client.fill_in(page)
        assert tenant.linked("alice") == linked


# For whom it is


def test_a_mistake_of_a_test_is_told_at_once(tenant: Tenant) -> None:
    for wrong in ("no key", pem_of(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(ValueError, match=r"."):
            tenant.client_public_key = wrong
    for wrong in ("http://example.com/", "https://localhost:1/", "http://a\\@b/"):
        with pytest.raises(ValueError, match="loopback"):
            tenant.backchannel_logout_uri = wrong
    tenant.backchannel_logout_uri = "http://[::1]:1/x"
    for kind in ("absent", "nonsense"):
        with pytest.raises(ValueError, match=kind):
            tenant.logout_token(sub="a", forge=kind)
    with pytest.raises(ValueError, match="Say what to forge"):
        tenant.forge()
    with pytest.raises(ValueError, match="nowhere"):
        tenant.fail("nowhere", Fault.reset())
    with pytest.raises(LookupError, match="zoe"):
        tenant.change_user("zoe")


def test_reset_forgets_settings_and_state(
    client: Client, tenant: Tenant, app_key: rsa.RSAPrivateKey
) -> None:
    def settings() -> dict[str, Any]:
        public = {n: v for n, v in vars(tenant).items() if n[0] != "_"}
        plain = (bool, int, set, str, dict, list)
        return {n: str(v) for n, v in public.items() if isinstance(v, plain)}

    usual = settings()
    token = client.login()["refresh_token"]
    name = client.post("par", client.query()).json()["request_uri"]
    client.refresh(client.refresh(token).json()["refresh_token"])
    client.refresh(token)
    assert tenant.reuse_detected == 1
    tenant.add_organization("acme")
    tenant.client_public_key = pem_of(app_key)
    tenant.connections.clear()
    tenant.require_mfa = tenant.require_pushed_authorization_requests = True
    tenant.rotate_refresh_tokens = False
    tenant.api_audience, tenant.audiences = "x", {"y"}
    tenant.token_response_extra = {"z": 1}
    tenant.backchannel_answers.append(200)
    tenant.backchannel_logout_uri = "http://localhost:1/x"
    tenant.reset()
    assert settings() == usual
    assert tenant.client_public_key is tenant.backchannel_logout_uri is None
    assert tenant.reuse_detected == 0
    assert client.refresh(token).status_code == 403
    query = {"client_id": tenant.client_id, "request_uri": name}
    assert client.ask(query).status_code == 400
    assert "error" in sent_back(client.authorize(organization="acme"))


LEAVES = """
import os, threading
from test_tenant import live

live()
threads, files = threading.active_count(), len(os.listdir("/dev/fd"))
live()
assert threads == threading.active_count() == 1, threading.enumerate()
assert files == len(os.listdir("/dev/fd"))
"""


def live() -> None:
    """Do a bit of everything with a tenant, and stop it."""
    with Tenant() as tenant:
        client = Client(tenant)
        with client.http:
            tenant.backchannel_logout_uri = "http://localhost:1/nobody-is-there"
            client.post("par", client.query())
            client.login()
            client.http.get(f"{tenant.origin}/v2/logout")
            tenant.stop()
            assert tenant.backchannel_answers == [0]


def test_nothing_is_left_behind() -> None:
    # A process of its own has no threads and files of other tests.
    paths = os.pathsep.join(str(path) for path in (TESTS, TESTS.parent))
    own = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", LEAVES]
    subprocess.run(command, env=own, timeout=60, check=True)
