"""The stand-in for Auth0, story by story, over real sockets."""

from __future__ import annotations

import base64
import copy
import hashlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import jwt
import pytest
from auth0_server_python.auth_schemes.client_assertion import build_client_assertion
from auth0_server_python.auth_server.server_client import ServerClient
from auth0_server_python.auth_types import (
    ConnectAccountOptions,
    CustomTokenExchangeOptions,
    EnrollAuthenticationMethodRequest,
    LoginWithCustomTokenExchangeOptions,
    OtpEnrollmentResponse,
    PasskeyUserProfile,
    StartInteractiveLoginOptions,
    StartPasswordlessEmailOptions,
    StartPasswordlessSmsOptions,
    StateData,
    UpdateAuthenticationMethodRequest,
    VerifyAuthenticationMethodRequest,
    VerifyPasswordlessOtpOptions,
)
from auth0_server_python.error import (
    ApiError,
    CustomTokenExchangeError,
    MfaChallengeError,
    MfaListAuthenticatorsError,
    MfaRequiredError,
    MfaVerifyError,
    MyAccountApiError,
    PasskeyError,
    PasswordlessVerifyError,
    PollingApiError,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask import Flask, request
from werkzeug.serving import make_server

from auth0_flask.tenant import Fault, Tenant
from auth0_flask.tenant.directory import ROLES
from passkey import Passkey

TESTS = Path(__file__).resolve().parent
CALLBACK = "http://localhost:1/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FEDERATED = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
FEDERATED_TYPE = "http://auth0.com/oauth/token-type/federated-connection-access-token"
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
        answer = self.authorize(**changes)
        return " ".join(self.http.get(answer.headers["location"]).text.split())

    def choose(self, answer: httpx.Response, username: str) -> httpx.Response:
        """Sign in at the login page that an answer leads to."""
        form = {"action": "login", "username": username}
        form["state"] = sent_back(answer)["state"]
        return self.http.post(f"{self.tenant.origin}/u/login", data=form)

    def prove(self, answer: httpx.Response, code: str) -> httpx.Response:
        """Give a code at the page that an answer leads to."""
        form = {"action": "login", "code": code, "state": sent_back(answer)["state"]}
        return self.http.post(f"{self.tenant.origin}/u/factor", data=form)

    def redeem(self, answer: httpx.Response) -> dict[str, Any]:
        """Exchange the code that an answer brings."""
        answer = self.token(
            grant_type="authorization_code",
            code=sent_back(answer)["code"],
            redirect_uri=CALLBACK,
            code_verifier=VERIFIER,
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def login(self, username: str = "alice", **changes: str | None) -> dict[str, Any]:
        """Sign in and return the tokens."""
        answer = self.authorize(**changes)
        if "/u/login?" in answer.headers["location"]:
            answer = self.choose(answer, username)
        if "/u/factor?" in answer.headers["location"]:
            answer = self.prove(answer, self.tenant.otp_for(username))
        return self.redeem(answer)

    def post(
        self, endpoint: str, form: dict[str, str], *, secret: bool = True
    ) -> httpx.Response:
        tenant = self.tenant
        known = httpx.BasicAuth(tenant.client_id, tenant.client_secret)
        auth = known if secret else httpx.Auth()
        return self.http.post(f"{tenant.issuer}oauth/{endpoint}", data=form, auth=auth)

    def token(self, **form: str) -> httpx.Response:
        return self.post("token", form)

    def refresh(self, token: str, **form: str) -> httpx.Response:
        form = {"refresh_token": token, **form}
        return self.token(grant_type="refresh_token", **form)

    def things(self, token: str, base: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = base or self.tenant.issuer
        return self.http.get(f"{base.rstrip('/')}/api/things", headers=headers)


def sent_back(answer: httpx.Response) -> dict[str, str]:
    """Return the query of where an answer redirects."""
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: values[0] for name, values in query.items()}


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
        .decode()
    )


@pytest.fixture(scope="module")
def _own() -> Iterator[Tenant]:
    with Tenant() as own:
        yield own


@pytest.fixture
def tenant(_own: Tenant) -> Tenant:
    _own.reset()
    return _own


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    client = Client(tenant)
    with client.http:
        yield client


@pytest.fixture(scope="module")
def app_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Serve an app that takes logout tokens; its address, and those it got."""
    app, got = Flask("receiver"), list[str]()

    @app.post("/backchannel")
    def backchannel() -> tuple[str, int]:
        got.append(request.form["logout_token"])
        return "", status

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/backchannel", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def discover(client: Client) -> dict[str, Any]:
    url = f"{client.tenant.issuer}.well-known/openid-configuration"
    document: dict[str, Any] = client.http.get(url).json()
    return document


# Organizations and connections


@pytest.mark.parametrize("asked", ["org_1", "acme", "ACME"])
def test_an_organization_is_in_all_that_is_issued_for_it(
    client: Client, tenant: Tenant, asked: str
) -> None:
    tenant.add_organization("acme", org_id="org_1", display_name="Acme Inc.")
    audience = "https://api.example/"
    tokens = client.login(organization=asked, audience=audience)
    userinfo = client.http.get(
        f"{tenant.issuer}userinfo",
        headers={"Authorization": f"Bearer {tokens['access_token']}"},
    ).json()
    again = client.refresh(tokens["refresh_token"]).json()
    for claims in (
        claims_of(tokens["id_token"]),
        claims_of(tokens["access_token"]),
        userinfo,
        claims_of(again["id_token"]),
    ):
        assert (claims["org_id"], claims["org_name"]) == ("org_1", "acme")


def test_without_an_organization_no_token_names_one(
    client: Client, tenant: Tenant
) -> None:
    assert tenant.add_organization("acme").org_id.startswith("org_")
    claims = claims_of(client.login()["id_token"])
    assert not {"org_id", "org_name"} & set(claims)


def test_the_login_page_names_organization_and_connection(
    client: Client, tenant: Tenant
) -> None:
    tenant.add_organization("acme", display_name="Acme <Inc.>")
    page = client.page(
        organization="acme", invitation="ticket", organization_name="acme"
    )
    assert "with <strong>Acme &lt;Inc.&gt;</strong>" in page
    assert "You have been invited." in page
    page = client.page(connection="google-oauth2")
    assert "<h1>Continue with google-oauth2</h1>" in page
    assert "<h1>Sign up</h1>" in client.page(screen_hint="signup")


@pytest.mark.parametrize(
    ("asked", "error", "description"),
    [
        ({"organization": "org_no"}, "invalid_request", "org_no was not found"),
        ({"connection": "myspace"}, "invalid_request", "the connection was not found"),
        ({"audience": "https://b/"}, "access_denied", "Service not found: https://b/"),
    ],
)
def test_what_the_tenant_does_not_know_goes_back_as_an_error(
    client: Client, tenant: Tenant, asked: dict[str, str], error: str, description: str
) -> None:
    tenant.audiences = {"https://a/"}
    answer = client.authorize(**asked)
    assert answer.headers["location"].startswith(CALLBACK)
    assert sent_back(answer)["error"] == error
    assert sent_back(answer)["error_description"].endswith(description)
    assert sent_back(answer)["state"] == "s"


# Pushed authorization requests


def test_a_pushed_request_is_good_once(client: Client, tenant: Tenant) -> None:
    tenant.require_pushed_authorization_requests = True
    pushed = client.post("par", client.query(state="pushed"))
    assert pushed.status_code == 201
    assert pushed.headers["cache-control"] == "no-store"
    assert pushed.json()["expires_in"] == 90
    name = pushed.json()["request_uri"]
    assert name.startswith("urn:ietf:params:oauth:request_uri:")
    query = {"client_id": tenant.client_id, "request_uri": name}
    answer = client.choose(client.ask(query), "alice")
    assert sent_back(answer)["state"] == "pushed"
    assert "access_token" in client.redeem(answer)
    assert client.ask(query).status_code == 400


def test_a_pushed_request_expires(client: Client, tenant: Tenant) -> None:
    name = client.post("par", client.query()).json()["request_uri"]
    tenant.clock_offset = 91
    query = {"client_id": tenant.client_id, "request_uri": name}
    assert client.ask(query).status_code == 400


def test_pushing_can_be_required(client: Client, tenant: Tenant) -> None:
    found = discover(client)
    assert found["pushed_authorization_request_endpoint"] == f"{tenant.issuer}oauth/par"
    assert found["require_pushed_authorization_requests"] is False
    tenant.require_pushed_authorization_requests = True
    assert discover(client)["require_pushed_authorization_requests"] is True
    assert sent_back(client.authorize())["error"] == "invalid_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"request_uri": "urn:ietf:params:oauth:request_uri:x"},
        {"redirect_uri": "https://elsewhere.example/"},
        {"client_id": "another"},
        {"code_challenge": None},
        {"organization": "org_no"},
    ],
)
def test_a_mistake_in_a_pushed_request_is_told_at_once(
    client: Client, changes: dict[str, str | None]
) -> None:
    answer = client.post("par", client.query(**changes))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_the_new_endpoints_fail_on_demand(client: Client, tenant: Tenant) -> None:
    for endpoint in ("par", "revoke", "api"):
        tenant.fail(endpoint, Fault.status(503))
    assert client.post("par", client.query()).status_code == 503
    assert client.post("revoke", {"token": "x"}).status_code == 503
    assert client.things("").status_code == 503
    assert client.things("").status_code == 401


def test_nobody_else_can_push(client: Client, tenant: Tenant) -> None:
    answer = client.post("par", client.query(), secret=False)
    assert answer.status_code == 401


# private_key_jwt


def _assertion(
    tenant: Tenant, key: rsa.RSAPrivateKey | str, alg: str = "RS256", **changes: Any
) -> dict[str, str]:
    now = int(time.time())
    claims = {
        "iss": tenant.client_id,
        "sub": tenant.client_id,
        "aud": tenant.issuer,
        "exp": now + 60,
        "jti": os.urandom(8).hex(),
        **changes,
    }
    claims = {n: v for n, v in claims.items() if v is not None}
    return {
        "client_id": tenant.client_id,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jwt.encode(claims, key, algorithm=alg),
    }


def test_the_assertion_that_the_sdk_builds_is_taken_everywhere_but_once(
    client: Client, tenant: Tenant, app_key: rsa.RSAPrivateKey
) -> None:
    tenant.client_public_key = pem_of(app_key)
    pem = app_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for endpoint, form, status in (
        ("par", client.query(), 201),
        ("revoke", {"token": "unknown"}, 200),
        ("token", {"grant_type": "password"}, 400),
    ):
        built = build_client_assertion(pem, tenant.client_id, tenant.issuer)
        form |= {"client_assertion": built, "client_assertion_type": ASSERTION_TYPE}
        assert client.post(endpoint, form, secret=False).status_code == status
        again = client.post(endpoint, form, secret=False)
        assert (again.status_code, again.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "another"},
        {"sub": "another"},
        {"aud": "https://another.example/"},
        {"exp": 1},
        {"exp": None},
        {"jti": None},
    ],
)
def test_a_wrong_assertion_is_refused(
    client: Client,
    tenant: Tenant,
    app_key: rsa.RSAPrivateKey,
    changes: dict[str, Any],
) -> None:
    tenant.client_public_key = pem_of(app_key)
    form = {"token": "x", **_assertion(tenant, app_key, **changes)}
    assert client.post("revoke", form, secret=False).status_code == 401
    form |= _assertion(tenant, app_key, aud=f"{tenant.issuer}oauth/revoke")
    assert client.post("revoke", form, secret=False).status_code == 200


def test_an_assertion_needs_the_registered_key(
    client: Client, tenant: Tenant, app_key: rsa.RSAPrivateKey
) -> None:
    form = {"token": "x", **_assertion(tenant, app_key)}
    assert client.post("revoke", form, secret=False).status_code == 401
    tenant.client_public_key = pem_of(app_key)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with_secret = _assertion(tenant, tenant.client_secret, "HS256")
    for wrong in (_assertion(tenant, stranger), with_secret, {}):
        form = {"token": "x", **wrong}
        assert client.post("revoke", form, secret=False).status_code == 401
    assert client.post("revoke", {"token": "x"}).status_code == 401


def test_only_an_rsa_key_can_be_registered(tenant: Tenant) -> None:
    for wrong in ("no key", pem_of(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(ValueError, match=r"."):
            tenant.client_public_key = wrong
    assert tenant.client_public_key is None


# Refresh tokens


def test_a_spent_refresh_token_ends_its_family(client: Client, tenant: Tenant) -> None:
    first = client.login()["refresh_token"]
    other = client.login()["refresh_token"]
    second = client.refresh(first).json()["refresh_token"]
    for token in (first, second, first):
        answer = client.refresh(token)
        assert answer.status_code == 403
        assert answer.json() == {
            "error": "invalid_grant",
            "error_description": "Unknown or invalid refresh token.",
        }
    assert tenant.reuse_detected == 1
    assert client.refresh(other).status_code == 200
    tenant.reset()
    assert tenant.reuse_detected == 0


def test_of_many_refreshes_at_once_one_succeeds(client: Client, tenant: Tenant) -> None:
    token = client.login()["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.refresh, [token] * 8))
    assert sorted(answer.status_code for answer in answers) == [200, *[403] * 7]
    assert tenant.reuse_detected == 1


def test_without_rotation_the_refresh_token_stays(
    client: Client, tenant: Tenant
) -> None:
    tenant.rotate_refresh_tokens = False
    token = client.login()["refresh_token"]
    for _ in range(2):
        answer = client.refresh(token)
        assert answer.status_code == 200
        assert "refresh_token" not in answer.json()
    assert tenant.reuse_detected == 0


def test_revoking_ends_the_family(client: Client, tenant: Tenant) -> None:
    first = client.login()["refresh_token"]
    second = client.refresh(first).json()["refresh_token"]
    assert client.post("revoke", {"token": first}, secret=False).status_code == 401
    for token in (first, "unknown"):
        assert client.post("revoke", {"token": token}).status_code == 200
    assert client.refresh(second).status_code == 403
    assert tenant.reuse_detected == 0


def test_all_of_a_users_refresh_tokens_can_be_revoked(
    client: Client, tenant: Tenant
) -> None:
    alices = [client.login(prompt="login")["refresh_token"] for _ in range(2)]
    bobs = client.login("bob", prompt="login")["refresh_token"]
    tenant.revoke_refresh_tokens("auth0|alice")
    assert [client.refresh(token).status_code for token in alices] == [403, 403]
    assert client.refresh(bobs).status_code == 200


def test_one_refresh_token_serves_several_apis(client: Client, tenant: Tenant) -> None:
    tenant.audiences = {"https://a/", "https://b/"}
    token = client.login()["refresh_token"]
    refused = client.refresh(token, audience="https://c/")
    assert refused.status_code == 403
    assert refused.json()["error"] == "access_denied"
    assert refused.json()["error_description"].startswith("Service not found")
    for audience in sorted(tenant.audiences):
        tokens = client.refresh(token, audience=audience, scope="openid email").json()
        token = tokens["refresh_token"]
        claims = claims_of(tokens["access_token"])
        assert audience in claims["aud"]
        assert claims["scope"] == tokens["scope"] == "openid email"
    assert "offline_access" in client.refresh(token).json()["scope"]


def test_a_second_factor_can_be_wanted(client: Client, tenant: Tenant) -> None:
    token = client.login()["refresh_token"]
    tenant.require_mfa = True
    answer = client.refresh(token)
    assert answer.status_code == 403
    assert answer.json()["mfa_token"]
    assert answer.json()["error"] == "mfa_required"
    assert answer.json()["error_description"] == "Multifactor authentication required"
    tenant.require_mfa = False
    assert client.refresh(token).status_code == 200


def test_token_responses_can_be_odd(client: Client, tenant: Tenant) -> None:
    tenant.token_response_extra = {"expires_in": "soon", "token_type": None, "x": [1]}
    tokens = client.login()
    assert (tokens["expires_in"], tokens["x"]) == ("soon", [1])
    assert "token_type" not in tokens


# Tokens of connections


def _federated(token: str, **changes: str) -> dict[str, str]:
    return {
        "grant_type": FEDERATED,
        "connection": "google-oauth2",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
        "requested_token_type": FEDERATED_TYPE,
        **changes,
    }


def test_a_refresh_token_gives_tokens_of_connections(client: Client) -> None:
    token = client.login()["refresh_token"]
    got = [client.token(**_federated(token)).json() for _ in range(2)]
    for answer in got:
        assert answer["access_token"].startswith("google-oauth2-token-")
        assert answer["issued_token_type"] == FEDERATED_TYPE
        assert answer["token_type"] == "Bearer"
        assert answer["expires_in"] > 0
        assert answer["scope"]
        assert "refresh_token" not in answer
    assert got[0]["access_token"] != got[1]["access_token"]
    assert client.refresh(token).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"connection": "myspace"}, 400),
        ({"subject_token_type": "x"}, 400),
        ({"requested_token_type": "x"}, 400),
        ({"connection": ""}, 400),
        ({"subject_token": "unknown"}, 403),
    ],
)
def test_a_wrong_request_for_a_connections_token_is_refused(
    client: Client, changes: dict[str, str], status: int
) -> None:
    token = client.login()["refresh_token"]
    answer = client.token(**_federated(token, **changes))
    assert answer.status_code == status
    assert client.refresh(token).status_code == 200


# The protected API


def test_the_api_takes_its_own_tokens(client: Client, tenant: Tenant) -> None:
    tokens = client.login(audience=tenant.api_audience, scope="openid read:things")
    for base in (tenant.issuer, tenant.origin):
        answer = client.things(tokens["access_token"], base)
        assert answer.status_code == 200
        assert answer.json() == {"sub": "auth0|alice", "scope": "openid read:things"}
    assert client.things(tokens["id_token"]).status_code == 401
    tenant.clock_offset = tenant.access_token_lifetime + 1
    assert client.things(tokens["access_token"]).status_code == 401


def test_the_api_refuses_other_tokens(client: Client, tenant: Tenant) -> None:
    opaque = client.login()["access_token"]
    other = client.login(audience="https://b/")["access_token"]
    for token, challenge in (
        ("", "Bearer"),
        (opaque, 'Bearer error="invalid_token"'),
        (other, 'Bearer error="invalid_token"'),
    ):
        answer = client.things(token)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == challenge
    tenant.api_audience = "https://b/"
    assert client.things(other).status_code == 200


# Back-channel logout


def _verified(client: Client, token: str) -> dict[str, Any]:
    tenant = client.tenant
    keys = client.http.get(f"{tenant.issuer}.well-known/jwks.json").json()
    claims: dict[str, Any] = jwt.decode(
        token,
        jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]].key,
        algorithms=["RS256"],
        audience=tenant.client_id,
        issuer=tenant.issuer,
        leeway=1,
    )
    return claims


@pytest.mark.parametrize("path", ["/v2/logout", "/oidc/logout", "/u/session"])
def test_the_app_is_told_of_every_session_that_ends(
    client: Client, tenant: Tenant, path: str
) -> None:
    sid = claims_of(client.login()["id_token"])["sid"]
    method = "POST" if path == "/u/session" else "GET"
    with receiver() as (url, got):
        tenant.backchannel_logout_uri = url
        for _ in range(2):  # the second ends nothing
            answer = client.http.request(method, tenant.origin + path)
            assert answer.status_code in {200, 302, 303}
        assert tenant.finish_backchannel()
    assert tenant.backchannel_answers == [200]
    (token,) = got
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("logout+jwt", "RS256")
    claims = _verified(client, token)
    assert claims.pop("jti")
    assert claims.pop("exp") - claims.pop("iat") == 120
    assert claims == {
        "iss": tenant.issuer,
        "aud": tenant.client_id,
        "sub": "auth0|alice",
        "sid": sid,
        "events": {EVENT: {}},
    }


def test_the_browser_does_not_wait_for_the_app(client: Client, tenant: Tenant) -> None:
    for status in (400, None):
        client.login()
        with receiver(status or 200) as (url, _):
            tenant.backchannel_logout_uri = url
            if status:
                client.http.get(f"{tenant.origin}/v2/logout")
                assert tenant.finish_backchannel()
        if status is None:
            client.http.get(f"{tenant.origin}/v2/logout")
            assert tenant.finish_backchannel()
    assert tenant.backchannel_answers == [400, 0]


def test_a_page_says_who_is_signed_in_at_the_tenant(
    client: Client, tenant: Tenant
) -> None:
    url = f"{tenant.origin}/u/session"
    assert "Not signed in" in client.http.get(url).text
    client.login()
    page = client.http.get(url).text
    assert "Alice" in page
    assert "Sign out here" in page
    left = client.http.post(url, follow_redirects=True)
    assert "Not signed in" in left.text
    assert "login_required" in client.authorize(prompt="none").headers["location"]


def test_logout_tokens_go_nowhere_but_to_loopback(tenant: Tenant) -> None:
    for url in ("http://example.com/", "https://localhost:1/", "http://localhost\\@b/"):
        with pytest.raises(ValueError, match="loopback"):
            tenant.backchannel_logout_uri = url
    tenant.backchannel_logout_uri = "http://[::1]:1/x"
    tenant.reset()
    assert tenant.backchannel_logout_uri is None


@pytest.mark.parametrize(
    "kind",
    [
        *("signature", "issuer", "audience", "algorithm", "none", "expired"),
        *("unknown_key", "curve", "no_kid"),
    ],
)
def test_logout_tokens_can_be_forged(client: Client, tenant: Tenant, kind: str) -> None:
    forged = tenant.logout_token(sub="auth0|alice", forge=kind)
    with pytest.raises((jwt.PyJWTError, KeyError)):
        _verified(client, forged)


def test_parts_of_a_logout_token_can_be_changed(client: Client, tenant: Tenant) -> None:
    claims = _verified(client, tenant.logout_token(sid="s"))
    assert claims["sid"] == "s"
    assert "sub" not in claims
    changed = {"events": None, "nonce": "n"}
    claims = _verified(client, tenant.logout_token(sub="a", claims=changed))
    assert "events" not in claims
    assert claims["nonce"] == "n"
    assert "iat" not in claims_of(tenant.logout_token(sub="a", forge="no_iat"))
    for typ, found in (("JWT", "JWT"), (None, None)):
        token = tenant.logout_token(sub="a", header={"typ": typ})
        assert jwt.get_unverified_header(token).get("typ") == found
    for kind in ("absent", "nonsense"):
        with pytest.raises(ValueError, match=kind):
            tenant.logout_token(sub="a", forge=kind)


# What the SDK asks for, by the SDK itself


class Memory:
    """A store of the SDK for one browser, which gives sessions as dicts."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    async def get(self, key: str, options: Any = None) -> Any:
        return self.kept.get(key)

    async def set(self, key: str, state: Any, *_: Any, **__: Any) -> None:
        self.kept[key] = state.model_dump() if isinstance(state, StateData) else state

    async def delete(self, key: str, options: Any = None) -> None:
        self.kept.pop(key, None)


@pytest.fixture
async def sdk(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServerClient[Any]]:
    """The SDK as it comes, with a session of its own."""
    monkeypatch.setenv("SSL_CERT_FILE", tenant.ca_file)
    sdk: ServerClient[Any] = ServerClient(
        domain=tenant.domain,
        client_id=tenant.client_id,
        client_secret=tenant.client_secret,
        secret="s" * 32,
        redirect_uri=CALLBACK,
        state_store=Memory(),
        transaction_store=Memory(),
        authorization_params={"scope": "openid profile email offline_access"},
    )
    yield sdk
    await sdk._oauth.aclose()


async def user_of(sdk: ServerClient[Any]) -> dict[str, Any]:
    user: dict[str, Any] = await sdk.get_user() or {}
    return user


async def sign_in(sdk: ServerClient[Any], client: Client, **asked: str) -> None:
    """Sign in with the SDK, as Alice unless the browser is somebody's."""
    options = StartInteractiveLoginOptions(authorization_params=asked)
    answer = client.http.get(await sdk.start_interactive_login(options))
    if answer.headers["location"].startswith(f"{client.tenant.origin}/u/login"):
        answer = client.choose(answer, "alice")
    if "/u/factor" in answer.headers["location"]:
        answer = client.prove(answer, client.tenant.otp_for("alice"))
    await sdk.complete_interactive_login(answer.headers["location"])


async def test_a_refresh_goes_on_after_a_second_factor(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    tenant.require_mfa = True
    api = "https://bank.example/"
    with pytest.raises(MfaRequiredError) as refused:
        await sdk.get_access_token(audience=api)
    pending = {"mfa_token": refused.value.mfa_token}
    assert refused.value.mfa_requirements.enroll[0].type == "otp"
    assert await sdk.mfa.list_authenticators(pending) == []
    with pytest.raises(MfaChallengeError, match="not enrolled"):
        await sdk.mfa.challenge_authenticator({**pending, "factor_type": "otp"})

    made = await sdk.mfa.enroll_authenticator({**pending, "factor_type": "otp"})
    assert isinstance(made, OtpEnrollmentResponse)
    assert made.secret in made.barcode_uri
    challenge = await sdk.mfa.challenge_authenticator({**pending, "factor_type": "otp"})
    assert challenge.challenge_type == "otp"
    code = tenant.otp_for("alice")
    for wrong in ({"otp": f"{(int(code) + 1) % 10**6:06}"}, {"recovery_code": "x"}):
        with pytest.raises(MfaVerifyError):
            await sdk.mfa.verify({**pending, **wrong})
    await sdk.mfa.verify({**pending, "otp": code, "persist": True})

    assert api in claims_of(await sdk.get_access_token(audience=api))["aud"]
    await sdk.get_access_token(audience="https://other.example/")  # of the same proof
    tokens = client.refresh((await sdk.get_session() or {})["refresh_token"]).json()
    assert claims_of(tokens["id_token"])["amr"] == ["mfa"]
    with pytest.raises(MfaListAuthenticatorsError, match="expired"):  # it is spent
        await sdk.mfa.list_authenticators(pending)


def test_a_recovery_code_is_good_once_and_brings_the_next(
    client: Client, tenant: Tenant
) -> None:
    token, code = client.login()["refresh_token"], tenant.enroll("alice")
    tenant.require_mfa = True
    refused = client.refresh(token).json()
    assert refused["mfa_requirements"] == {
        "challenge": [{"type": "otp"}, {"type": "recovery-code"}]
    }
    grant = "http://auth0.com/oauth/grant-type/mfa-recovery-code"
    form = {"grant_type": grant, "mfa_token": refused["mfa_token"]}
    tokens = client.token(**form, recovery_code=code).json()
    assert claims_of(tokens["id_token"])["amr"] == ["mfa"]
    assert client.token(**form, recovery_code=code).json()["error"] == "expired_token"
    answer = client.choose(client.authorize(prompt="login"), "alice")
    assert "This code is wrong" in client.prove(answer, code).text
    assert "code" in sent_back(client.prove(answer, tokens["recovery_code"]))


# A second factor in the browser


def test_an_app_can_ask_for_a_second_factor_each_time(
    client: Client, tenant: Tenant
) -> None:
    first = claims_of(client.login()["id_token"])
    assert not {"amr", "acr"} & first.keys()
    asked = {"acr_values": MFA, "prompt": "none"}
    assert sent_back(client.authorize(**asked))["error"] == "interaction_required"
    for _ in range(2):
        tenant.clock_offset += 60
        answer = client.authorize(acr_values=MFA)
        assert "/u/factor?" in answer.headers["location"]
        page = client.http.get(answer.headers["location"]).text
        assert "<strong>Alice</strong>" in page
        assert (
            tenant.otp_for("alice") in client.http.get(f"{tenant.origin}/u/inbox").text
        )
        claims = claims_of(
            client.redeem(client.prove(answer, tenant.otp_for("alice")))["id_token"]
        )
        assert (claims["amr"], claims["acr"]) == (["mfa"], MFA)
        assert claims["auth_time"] >= first["auth_time"] + 60
        assert claims["sid"] == first["sid"]
        first = claims
    assert claims_of(client.login(**asked)["id_token"])["amr"] == ["mfa"]


def test_a_wrong_code_gets_nowhere_and_nobody_in(
    client: Client, tenant: Tenant
) -> None:
    tenant.enroll("alice")
    answer = client.choose(client.authorize(), "alice")
    for wrong in ("", "000", "x" * 300, "é"):
        page = client.prove(answer, wrong)
        assert "This code is wrong" in page.text
        assert "set-cookie" not in page.headers
    tenant.clock_offset = 90
    old = tenant.otp_for("alice")
    tenant.clock_offset = 0
    assert client.prove(answer, old).status_code == 200
    assert sent_back(client.authorize(prompt="none"))["error"] == "login_required"
    form = {"action": "deny", "state": sent_back(answer)["state"]}
    denied = client.http.post(f"{tenant.origin}/u/factor", data=form)
    assert sent_back(denied)["error"] == "access_denied"
    assert client.prove(answer, tenant.otp_for("alice")).status_code == 400


def test_who_has_a_second_factor_is_asked_at_each_login(
    client: Client, tenant: Tenant
) -> None:
    tenant.enroll("alice")
    assert claims_of(client.login()["id_token"])["amr"] == ["mfa"]
    assert "code" in sent_back(client.authorize())  # still signed in
    assert "amr" not in claims_of(client.login("bob", prompt="login")["id_token"])


# Logins without a redirect


async def test_a_code_that_was_sent_signs_in_once(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    for start, owner in (
        (StartPasswordlessEmailOptions(email="alice@example.com"), "Alice"),
        (StartPasswordlessSmsOptions(phone_number="+4930123456"), "+4930123456"),
    ):
        address = getattr(start, "email", "") or getattr(start, "phone_number", "")
        await sdk.passwordless.start(start)
        code = tenant.passwordless_code(address)
        inbox = client.http.get(f"{tenant.origin}/u/inbox").text
        assert f"To {address}" in inbox
        assert code in inbox
        way = "email" if "@" in address else "phone_number"
        given: dict[str, Any] = {"connection": start.connection, way: address}
        wrong = VerifyPasswordlessOtpOptions(**given, verification_code="x")
        right = VerifyPasswordlessOtpOptions(**given, verification_code=code)
        with pytest.raises(PasswordlessVerifyError, match="Wrong email"):
            await sdk.passwordless.verify(wrong)
        await sdk.passwordless.verify(right)
        assert (await user_of(sdk))["name"] == owner
        with pytest.raises(PasswordlessVerifyError):
            await sdk.passwordless.verify(right)
    tenant.require_mfa = True
    await sdk.passwordless.start(StartPasswordlessEmailOptions(email="a@b.example"))
    code = tenant.passwordless_code("a@b.example")
    with pytest.raises(MfaRequiredError):
        await sdk.passwordless.verify(
            VerifyPasswordlessOtpOptions(
                connection="email", email="a@b.example", verification_code=code
            )
        )


async def test_a_link_that_was_sent_signs_the_browser_in_once(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    link = StartPasswordlessEmailOptions(email="new@example.com", send="link")
    await sdk.passwordless.start(link, store_options={})
    url = tenant.passwordless_link("new@example.com")
    answer = client.http.get(url)
    await sdk.complete_interactive_login(answer.headers["location"])
    assert (await user_of(sdk))["email_verified"] is True
    assert client.http.get(url).status_code == 400
    assert claims_of(client.login()["id_token"])["name"] == "new@example.com"
    form = {"client_id": tenant.client_id, "connection": "email", "send": "link"}
    for params in ('{"redirect_uri": "https://elsewhere.example/"}', "no json", "[]"):
        form |= {"email": "a@b.example", "authParams": params}
        answer = client.post("../passwordless/start", form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_passkey_signs_up_and_then_in(
    sdk: ServerClient[Any], tenant: Tenant
) -> None:
    passkey = Passkey()
    profile = PasskeyUserProfile(email="new@example.com", name="New")
    begun = await sdk.passkey_signup_challenge(profile)
    made = passkey.create(begun.authn_params_public_key)
    await sdk.signin_with_passkey(begun.auth_session, made)
    sub = (await user_of(sdk))["sub"]
    with pytest.raises(PasskeyError, match="exists"):
        await sdk.passkey_signup_challenge(profile)

    for changes, why in (
        ({}, ""),
        ({"id": "unknown"}, "it is unknown here"),
        ({"key": Passkey().key}, "refused"),
        ({"origin": "https://elsewhere.example"}, "for something else"),
        ({"challenge": "another"}, "the challenge is another"),
        ({"rp_id": "elsewhere.example"}, "of another site"),
        ({"kind": "create"}, "refused"),
    ):
        login = await sdk.passkey_login_challenge()
        shown = copy.copy(passkey)
        vars(shown).update(changes)
        options = login.authn_params_public_key.model_copy(update=changes)
        answer = shown.create(options) if "kind" in changes else shown.get(options)
        if why:
            with pytest.raises(PasskeyError, match=why):
                await sdk.signin_with_passkey(login.auth_session, answer)
        else:
            await sdk.signin_with_passkey(login.auth_session, answer)
            assert (await user_of(sdk))["sub"] == sub
        with pytest.raises(PasskeyError, match="expired"):  # it is spent
            await sdk.signin_with_passkey(login.auth_session, answer)


async def test_who_is_elsewhere_approves_a_login(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    hint = {"login_hint": {"sub": "auth0|bob"}, "binding_message": "Desk <4>"}
    with pytest.raises(ApiError, match="unknown"):
        await sdk.initiate_backchannel_authentication({"login_hint": {"sub": "x"}})
    for action in ("login", "deny"):
        begun = await sdk.initiate_backchannel_authentication(hint)
        with pytest.raises(PollingApiError, match="yet to answer"):
            await sdk.backchannel_authentication_grant(begun["auth_req_id"])
        url = f"{tenant.origin}/u/inbox"
        page = client.http.get(url).text
        assert "Sign Bob in elsewhere?" in page
        assert "Desk &lt;4&gt;" in page
        form = {"id": begun["auth_req_id"], "action": action}
        assert (
            "nothing here"
            in client.http.post(url, data=form, follow_redirects=True).text
        )
        if action == "login":
            tokens = await sdk.backchannel_authentication_grant(begun["auth_req_id"])
            assert claims_of(tokens["id_token"])["sub"] == "auth0|bob"
        for error in ("did not authorize", "expired")[action == "login" :]:
            with pytest.raises(PollingApiError, match=error):
                await sdk.backchannel_authentication_grant(begun["auth_req_id"])
    tenant.approve_backchannel("bob")
    await sdk.login_backchannel(hint)
    tenant.approve_backchannel("bob", allow=False)
    with pytest.raises(ApiError, match="did not authorize"):
        await sdk.login_backchannel(hint)


async def test_a_token_of_somebody_elses_is_exchanged(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    kind = {"subject_token_type": "urn:acme:legacy"}
    given: dict[str, Any] = {
        **kind,
        "subject_token": "theirs",
        "scope": "openid profile",
    }
    asked = LoginWithCustomTokenExchangeOptions(**given)
    with pytest.raises(CustomTokenExchangeError, match="accepted"):
        await sdk.login_with_custom_token_exchange(asked)
    tenant.accept_token("theirs", "alice", "urn:acme:legacy")
    await sdk.login_with_custom_token_exchange(asked)
    user = await user_of(sdk)
    assert (user["sub"], user["name"]) == ("auth0|alice", "Alice")
    bob = client.login("bob")["id_token"]
    actor: dict[str, Any] = {
        "actor_token_type": "urn:ietf:params:oauth:token-type:id_token"
    }
    act = CustomTokenExchangeOptions(**given, actor_token=bob, **actor)
    assert (await sdk.custom_token_exchange(act)).act == {"sub": "auth0|bob"}
    with pytest.raises(CustomTokenExchangeError, match="actor token is wrong"):
        await sdk.custom_token_exchange(act.model_copy(update={"actor_token": "x"}))


async def test_a_session_is_transferred_once(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    tenant.accept_token("ticket 4", "bob", "urn:acme:ticket")
    token = await sdk.request_session_transfer_token("ticket 4", "urn:acme:ticket")
    assert (token.token_type, token.expires_in) == ("N_A", 60)
    shown = {"session_transfer_token": token.session_transfer_token}
    claims = claims_of(client.redeem(client.authorize(**shown))["id_token"])
    assert (claims["sub"], claims["act"]) == ("auth0|bob", {"sub": "auth0|alice"})
    assert sent_back(client.authorize(**shown))["error"] == "invalid_request"


# The My Account API


async def test_an_account_is_connected_and_taken_away(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    found = await sdk.list_connected_account_connections(take=1)
    assert ([c.name for c in found.connections], found.next) == (["github"], "1")
    found = await sdk.list_connected_account_connections(from_param="1")
    assert ([c.name for c in found.connections], found.next) == (
        ["google-oauth2"],
        None,
    )
    google = ConnectAccountOptions(connection="google-oauth2", scopes=["openid", "x"])
    for action in ("deny", "login"):
        page = client.http.get(await sdk.start_connect_account(google))
        assert "use your account at google-oauth2" in page.text
        form = {"ticket": page.url.params["ticket"], "action": action}
        answer = client.http.post(f"{tenant.origin}/u/confirm", data=form)
        if action == "deny":
            assert sent_back(answer)["error"] == "access_denied"
    done = await sdk.complete_connect_account(answer.headers["location"])
    assert (done.connection, done.scopes) == ("google-oauth2", ["openid", "x"])
    assert tenant.accounts("alice") == ["google-oauth2"]
    (account,) = (await sdk.list_connected_accounts()).accounts
    assert (await sdk.list_connected_accounts("github")).accounts == []
    await sdk.delete_connected_account(account.id)
    assert tenant.accounts("alice") == []
    with pytest.raises(MyAccountApiError, match="no such account"):
        await sdk.delete_connected_account(account.id)
    with pytest.raises(MyAccountApiError, match="no connection myspace"):
        await sdk.start_connect_account(ConnectAccountOptions(connection="myspace"))
    tenant.my_account_scopes.clear()
    with pytest.raises(MyAccountApiError, match="lacks read:me:connected_accounts"):
        await sdk._my_account_client.list_connected_accounts(
            await sdk.get_access_token(
                audience=tenant.my_account, scope="read:me:factors"
            )
        )


async def test_only_who_began_to_connect_an_account_completes_it(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    for wrong in ("auth_session", "redirect_uri", "code_verifier"):
        github = ConnectAccountOptions(connection="github")
        page = client.http.get(await sdk.start_connect_account(github))
        form = {"ticket": page.url.params["ticket"], "action": "login"}
        answer = client.http.post(f"{tenant.origin}/u/confirm", data=form)
        setattr(next(iter(sdk._transaction_store.kept.values())), wrong, "http://x")
        with pytest.raises(MyAccountApiError, match="not of this request"):
            await sdk.complete_connect_account(answer.headers["location"])
    assert tenant.accounts("alice") == []


async def test_a_user_minds_the_methods(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    api = sdk._my_account_client
    methods = [
        f"{v}:me:authentication-methods" for v in ("create", "read", "update", "delete")
    ]
    scope = " ".join(["openid", "read:me:factors", *methods])
    token = await sdk.get_access_token(audience=tenant.my_account, scope=scope)
    kinds = {factor.type for factor in (await api.get_factors(token)).factors}
    assert kinds == {"totp", "recovery-code", "passkey"}
    passkey = Passkey()
    for kind in ("totp", "recovery-code", "passkey"):
        enroll = EnrollAuthenticationMethodRequest(type=kind)
        begun = await api.enroll_authentication_method(token, enroll)
        proof: dict[str, Any] = {}
        if kind == "totp":
            proof["otp_code"] = tenant.otp_for("alice")
        elif kind == "recovery-code":
            proof["recovery_code"] = (begun.model_extra or {})["recovery_code"]
        else:
            proof["authn_response"] = passkey.create(begun.authn_params_public_key)
        for session, works in (("another", False), (begun.auth_session, True)):
            shown = VerifyAuthenticationMethodRequest(auth_session=session, **proof)
            verify = api.verify_authentication_method(
                token, begun.authentication_method_id, shown
            )
            if works:
                assert (await verify).confirmed is True
            else:
                with pytest.raises(MyAccountApiError, match="wrong"):
                    await verify
    found = (await api.list_authentication_methods(token)).authentication_methods
    assert [method.type for method in found] == ["totp", "recovery-code", "passkey"]
    begin = await sdk.passkey_login_challenge()
    answer = passkey.get(begin.authn_params_public_key)
    with pytest.raises(MfaRequiredError):  # Alice has a second factor now
        await sdk.signin_with_passkey(begin.auth_session, answer)
    totp = (await api.list_authentication_methods(token, "totp")).authentication_methods
    name = UpdateAuthenticationMethodRequest(name="Phone")
    assert (
        await api.update_authentication_method(token, totp[0].id, name)
    ).name == "Phone"
    assert (await api.get_authentication_method(token, totp[0].id)).name == "Phone"
    await api.delete_authentication_method(token, totp[0].id)
    with pytest.raises(MyAccountApiError, match="no such"):
        await api.get_authentication_method(token, totp[0].id)
    tenant.clock_offset = tenant.access_token_lifetime + 1
    with pytest.raises(MyAccountApiError, match="expired"):
        await api.get_factors(token)


async def test_an_account_is_linked_and_unlinked(
    sdk: ServerClient[Any], client: Client, tenant: Tenant
) -> None:
    await sign_in(sdk, client)
    here = {"authorization_params": {"redirect_uri": CALLBACK}}
    github = {"connection": "github", "app_state": "kept", **here}
    for start, complete, left in (
        (sdk.start_link_user, sdk.complete_link_user, {"github"}),
        (sdk.start_unlink_user, sdk.complete_unlink_user, set()),
    ):
        await sign_in(sdk, client)
        page = client.http.get(await start(github), follow_redirects=True)
        assert "Sign in as Alice by github" in page.text
        form = {"ticket": page.url.params["ticket"], "action": "login"}
        answer = client.http.post(f"{tenant.origin}/u/confirm", data=form)
        assert await complete(answer.headers["location"]) == {"app_state": "kept"}
        assert tenant.linked("alice") == left
    asked = {"scope": "openid link_account", "requested_connection": "github"}
    assert sent_back(client.authorize(**asked))["error"] == "invalid_request"


def test_claims_of_who_is_signed_in_can_be_changed(
    client: Client, tenant: Tenant
) -> None:
    tenant.change_user("alice", roles=["admin"], nickname="al")
    tokens = client.login()
    assert claims_of(tokens["id_token"])[ROLES] == ["admin"]
    tenant.change_user("alice@example.com", roles=[], nickname=None)
    again = claims_of(client.refresh(tokens["refresh_token"]).json()["id_token"])
    assert not {ROLES, "nickname"} & again.keys()
    assert again["given_name"] == "Alice"
    with pytest.raises(LookupError, match="zoe"):
        tenant.change_user("zoe")


# As a whole


def test_how_a_request_authenticated_is_noted(client: Client, tenant: Tenant) -> None:
    token = client.login()["access_token"]
    client.http.get(
        f"{tenant.issuer}userinfo", headers={"Authorization": f"Bearer {token}"}
    )

    schemes = {seen.path: seen.scheme for seen in tenant.requests}
    assert schemes["/oauth/token"] == "basic"
    assert schemes["/userinfo"] == "bearer"
    assert schemes["/authorize"] == ""


def test_discovery_says_what_there_is(client: Client) -> None:
    found = discover(client)
    assert found["backchannel_logout_supported"] is True
    assert found["backchannel_logout_session_supported"] is True
    assert FEDERATED in found["grant_types_supported"]
    methods = found["token_endpoint_auth_methods_supported"]
    assert {"client_secret_post", "private_key_jwt"} <= set(methods)


BROWSERS = {"authorization_endpoint", "end_session_endpoint"}


def test_browsers_are_given_no_address_with_the_tenants_certificate(
    client: Client, tenant: Tenant
) -> None:
    found = discover(client).items()
    addresses = {n: v for n, v in found if str(v).startswith("http")}
    plain = {n for n, v in addresses.items() if not v.startswith(tenant.issuer)}
    assert plain == BROWSERS
    for name in BROWSERS:
        assert addresses[name].startswith(f"{tenant.origin}/")


def test_auth0s_logout_is_beside_the_authorization_endpoint(
    client: Client, tenant: Tenant
) -> None:
    begin = discover(client)["authorization_endpoint"]
    with httpx.Client(trust_env=False) as browser:  # it trusts no certificate of ours
        client.http = browser
        client.choose(client.authorize(), "alice")
        assert "code" in sent_back(client.authorize())
        home = {"returnTo": "http://localhost:1/", "client_id": tenant.client_id}
        answer = browser.get(urljoin(begin, "/v2/logout"), params=home)
        assert answer.headers["location"] == "http://localhost:1/"
        assert "code" not in sent_back(client.authorize())


def _settings(tenant: Tenant) -> dict[str, Any]:
    plain = (bool, int, set, str)
    own = {n: v for n, v in vars(tenant).items() if isinstance(v, plain)}
    return copy.deepcopy(own)


def test_reset_forgets_settings_and_state(
    client: Client, tenant: Tenant, app_key: rsa.RSAPrivateKey
) -> None:
    usual = _settings(tenant)
    token = client.login()["refresh_token"]
    name = client.post("par", client.query()).json()["request_uri"]
    tenant.add_organization("acme")
    tenant.client_public_key = pem_of(app_key)
    tenant.connections.clear()
    tenant.require_mfa = tenant.require_pushed_authorization_requests = True
    tenant.rotate_refresh_tokens = False
    tenant.api_audience, tenant.audiences = "x", {"y"}
    tenant.token_response_extra = {"z": 1}
    tenant.backchannel_answers.append(200)
    tenant.reset()
    assert _settings(tenant) == usual
    assert tenant.client_public_key is None
    assert (tenant.token_response_extra, tenant.backchannel_answers) == ({}, [])
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
        with client.http, receiver() as (url, _):
            tenant.backchannel_logout_uri = url
            client.post("par", client.query())
            client.login()
            client.http.get(f"{tenant.origin}/v2/logout")
            tenant.stop()
            assert tenant.backchannel_answers == [200]


def test_nothing_is_left_behind() -> None:
    # A process of its own has no threads and files of other tests.
    paths = os.pathsep.join(str(path) for path in (TESTS, TESTS.parent))
    subprocess.run(
        [sys.executable, "-c", LEAVES],
        env={**os.environ, "PYTHONPATH": paths},
        timeout=60,
        check=True,
    )
