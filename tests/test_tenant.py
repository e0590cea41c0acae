"""The stand-in for Auth0: what it issues and, above all, what it refuses.

Tests of whole logins show the rest, since all of them sign in at it.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import jwt
import pytest

from auth0_flask.tenant import Tenant
from visitor import sign_in

CALLBACK = "http://localhost:1/callback"
VERIFIER = "v" * 43
CHALLENGE = "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM"  # its SHA-256


class Client:
    """The app's server and one visitor's browser in one, without an app."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        trust = ssl.create_default_context(cafile=tenant.ca_file)
        self.http = httpx.Client(verify=trust, trust_env=False, timeout=30)

    def query(self, **changes: str) -> dict[str, str]:
        """Return an authorization request."""
        return {
            "client_id": self.tenant.client_id,
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": "openid profile email offline_access",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "s",
            **changes,
        }

    def authorize(self, **changes: str) -> httpx.Response:
        url = f"{self.tenant.origin}/authorize"
        return self.http.get(url, params=self.query(**changes))

    def fill_in(self, answer: httpx.Response, **form: str) -> httpx.Response:
        """Answer the page of the tenant's that this is, or leads to."""
        page = httpx.URL(answer.headers.get("location", str(answer.url)))
        form = {"action": "login", **page.params, **form}
        return self.http.post(page.copy_with(query=None), data=form)

    def login(self) -> dict[str, Any]:
        """Sign in, in a new browser, and return the tokens."""
        back = sign_in(self.http, str(self.authorize().url), "alice")
        kind = {"grant_type": "authorization_code", "redirect_uri": CALLBACK}
        code = httpx.URL(back).params["code"]
        return dict(self.token(**kind, code_verifier=VERIFIER, code=code).json())

    def post(self, endpoint: str, form: Any, *, secret: bool = True) -> httpx.Response:
        known = httpx.BasicAuth(self.tenant.client_id, self.tenant.client_secret)
        auth, url = known if secret else httpx.Auth(), f"{self.tenant.issuer}oauth/"
        return self.http.post(f"{url}{endpoint}", data=form, auth=auth)

    def token(self, **form: str) -> httpx.Response:
        return self.post("token", form)

    def refresh(self, token: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=token)


def sent_back(answer: httpx.Response) -> dict[str, str]:
    return dict(httpx.URL(answer.headers["location"]).params)


def claims_of(tokens: dict[str, Any]) -> dict[str, Any]:
    return dict(jwt.decode(tokens["id_token"], options={"verify_signature": False}))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    client = Client(tenant)
    with client.http:
        yield client


MISTAKES = [
    *("organization=org_no", "connection=myspace", "prompt=none login", "max_age=soon"),
    *("response_mode=form_post", "response_type=token", "code_challenge_method=plain"),
    *("code_challenge=short", "code_challenge=", "audience=https://b/"),
]
#: Whose request may be anybody's.
STRANGERS = [
    *("client_id=another", "redirect_uri=https://elsewhere.example/"),
    *("redirect_uri=http://localhost\\@elsewhere.example/", "request_uri=urn:x"),
]
#: What is known only once a browser comes.
LATER = ["session_transfer_token=unknown", "scope=link_account"]
OTHER = {"response_type": "unsupported_response_type", "audience": "access_denied"}


@pytest.mark.parametrize("mistake", [*MISTAKES, *STRANGERS, *LATER])
def test_a_mistake_in_a_request_is_told_to_the_app_or_sent_nowhere(
    client: Client, mistake: str
) -> None:
    client.tenant.audiences = {"https://a/"}
    name, _, value = mistake.partition("=")
    error = OTHER.get(name, "invalid_request")
    answer = client.authorize(**{name: value})
    if mistake in STRANGERS:
        assert answer.status_code in {400, 403}
        assert "location" not in answer.headers
    else:
        assert answer.headers["location"].startswith(f"{CALLBACK}?")
        assert {"error": error, "state": "s"}.items() <= sent_back(answer).items()
    if mistake not in LATER:
        pushed = client.post("par", client.query(**{name: value}))
        assert error_of(pushed) == (400, error)


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


def test_the_app_is_told_once_of_a_session_that_ends(
    client: Client, tenant: Tenant, site: str
) -> None:
    tenant.backchannel_logout_uri = f"{site}/nowhere"
    client.login()
    session = f"{tenant.origin}/u/session"
    assert "Alice" in client.http.get(session).text
    for _ in range(2):  # the second ends nothing
        assert client.http.post(session).status_code == 303
    assert tenant.finish_backchannel()
    assert tenant.backchannel_answers == [404]
    assert "Not signed in" in client.http.get(session).text
    assert sent_back(client.authorize(prompt="none"))["error"] == "login_required"


def test_a_refresh_goes_on_after_a_second_factor_that_is_shown_once(
    client: Client, tenant: Tenant
) -> None:
    token, recovery = client.login()["refresh_token"], tenant.enroll("alice")
    tenant.require_mfa = True
    assert sent_back(client.authorize(prompt="none"))["error"] == "interaction_required"
    refused = client.refresh(token)
    assert error_of(refused) == (403, "mfa_required")
    ways = [{"type": "otp"}, {"type": "recovery-code"}]
    assert refused.json()["mfa_requirements"] == {"challenge": ways}

    def show(way: str, name: str, proof: str) -> httpx.Response:
        shown = {"mfa_token": refused.json()["mfa_token"], name: proof}
        grant = f"http://auth0.com/oauth/grant-type/mfa-{way}"
        return client.token(grant_type=grant, **shown)

    wrong = f"{(int(tenant.otp_for('alice')) + 1) % 10**6:06}"
    assert show("otp", "otp", wrong).status_code == 403
    assert show("recovery-code", "recovery_code", "x").status_code == 403
    proved = show("recovery-code", "recovery_code", recovery).json()
    again = show("otp", "otp", tenant.otp_for("alice"))
    assert error_of(again) == (401, "expired_token")
    for tokens in (proved, client.refresh(token).json()):
        assert claims_of(tokens)["amr"] == ["mfa"]
    answer = client.fill_in(client.authorize(prompt="login"), username="alice")
    assert "This code is wrong" in client.fill_in(answer, code=recovery).text
    assert "code" in sent_back(client.fill_in(answer, code=proved["recovery_code"]))


def test_a_login_on_a_device_waits_until_it_is_approved_in_the_inbox(
    client: Client, tenant: Tenant
) -> None:
    form = {"login_hint": '{"sub": "auth0|bob"}', "binding_message": "Desk 4"}
    asked = client.post("../bc-authorize", form).json()["auth_req_id"]
    kind = "urn:openid:params:grant-type:ciba"
    ask = partial(client.token, grant_type=kind, auth_req_id=asked)
    assert ask().json()["error"] == "authorization_pending"

    inbox = f"{tenant.origin}/u/inbox"
    [found] = re.findall(r'name="id" value="([^"]+)"', client.http.get(inbox).text)
    client.http.post(inbox, data={"id": found, "action": "login"})

    assert claims_of(ask().json())["sub"] == "auth0|bob"
    assert ask().json()["error"] == "expired_token"  # it is good once


def test_nothing_is_left_behind() -> None:
    for _ in range(2):  # the first opens what stays
        threads, files = {*threading.enumerate()}, len(os.listdir("/dev/fd"))
        with Tenant() as tenant, (client := Client(tenant)).http:
            tenant.backchannel_logout_uri = "http://localhost:1/nobody-is-there"
            client.login()
            client.http.get(f"{tenant.origin}/v2/logout")
            tenant.stop()
            assert tenant.backchannel_answers == [0]

    assert {*threading.enumerate()} <= threads
    assert len(os.listdir("/dev/fd")) <= files
