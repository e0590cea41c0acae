"""The tenant's settings, state and test controls, without sockets and pages."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flask import current_app
from werkzeug.local import LocalProxy

from .authorization import (
    AuthorizationRequest,
    RequestError,
    invalid_request,
    is_loopback,
    parse_request,
)
from .directory import ROLES, Directory, Message, Organization, User
from .faults import PATHS, Fault, Forgery
from .keys import SigningKeys
from .server import Seen

_CONNECTIONS = {"Username-Password-Authentication", "google-oauth2", "github"}
_MY_ACCOUNT = {
    f"{verb}:me:{what}"
    for verb in ("create", "read", "update", "delete")
    for what in ("connected_accounts", "factors", "authentication_methods")
}


@dataclass(eq=False, repr=False)
class Settings:
    """Settings that tests may change at any time; ``reset`` restores the defaults."""

    clock_offset: float = 0.0  # seconds added to the tenant's clock
    access_token_lifetime: int = 86400  # seconds; ``expires_in`` of token responses
    # Members to set in every token response; None removes one.
    token_response_extra: dict[str, Any] = field(default_factory=dict)
    # Callback URLs that are allowed besides those on loopback.
    allowed_callback_urls: set[str] = field(default_factory=set)
    connections: set[str] = field(default_factory=_CONNECTIONS.copy)
    audiences: set[str] = field(default_factory=set)  # if empty, all are allowed
    api_audience: str = "https://api.tenant.example/"  # of ``/api/things``
    my_account_scopes: set[str] = field(default_factory=_MY_ACCOUNT.copy)
    require_pushed_authorization_requests: bool = False  # RFC 9126
    rotate_refresh_tokens: bool = True
    # Require a second factor of all; logins of users who have one always require it.
    require_mfa: bool = False
    # The app's public RSA key (PEM). If set, the app must use private_key_jwt
    # (RFC 7523); otherwise it must use its secret.
    client_public_key: str | None = None
    # Where to send logout tokens (OpenID Connect Back-Channel Logout 1.0): an http URL
    # on loopback. Below, the status of each response; 0 if there was none.
    backchannel_logout_uri: str | None = None
    backchannel_answers: list[int] = field(default_factory=list)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "client_public_key" and value is not None:
            key = load_pem_public_key(value.encode())
            if not isinstance(key, RSAPublicKey):
                raise ValueError("client_public_key must be an RSA key.")
        if name == "backchannel_logout_uri" and value is not None:
            is_allowed = value.startswith("http://") and is_loopback(value)
            if not is_allowed:
                raise ValueError("backchannel_logout_uri must be http on loopback.")
        super().__setattr__(name, value)


class Provider(Settings):
    """One client, its users, a signing key, and the controls for tests.

    A parameter ``user`` may also be a username, a ``sub`` or an email address. An
    unknown user, address or message raises a LookupError.
    """

    def __init__(self) -> None:
        self.client_id = secrets.token_hex(16)
        self.client_secret = secrets.token_urlsafe(48)
        self.keys = SigningKeys()
        self.stopping = threading.Event()
        self.callback = ""  # the default redirect_uri of authorization requests
        self._app_secret = secrets.token_hex(32)
        # These are set by start():
        self.domain = ""  # AUTH0_DOMAIN: host and TLS port
        self.issuer = ""  # ends with a slash, as Auth0's issuers do
        self.my_account = ""  # the audience of the My Account API
        self.origin = ""  # the URL of the plain http port, for browsers
        self.ca_file = ""  # path of the CA certificate (PEM), for SSL_CERT_FILE
        self.logout_threads: list[threading.Thread] = []  # they send logout tokens
        self.reset()

    def reset(self) -> None:
        """Restore the default settings and users, and delete all sessions and tokens.

        The client, the ports, the signing key and open connections are kept.
        """
        super().__init__()
        self.requests: list[Seen] = []  # all so far, in order of arrival
        self.logout_threads = [t for t in self.logout_threads if t.is_alive()]
        self.clear_faults()
        self.forgeries: deque[Forgery] = deque()
        self.directory = Directory(self.now)
        names = {"given_name": "Alice", "family_name": "Archer", "nickname": "alice"}
        self.add_user("alice", **names)
        self.add_user("bob")
        self.add_user("nobody", name=None, email=None, email_verified=None)

    def now(self) -> float:
        """Return the tenant's time in seconds since 1970."""
        return time.time() + self.clock_offset

    def add_user(self, username: str, **claims: Any) -> User:
        """Add a user, or replace the user of that name.

        The claims add to or replace the defaults of ``sub``, ``name``, ``email`` and
        ``email_verified``. None omits a claim.
        """
        usual = {
            "sub": f"auth0|{username}",
            "name": username.capitalize(),
            "email": f"{username}@example.com",
            "email_verified": True,
        }
        return self.directory.add(username, usual | claims)

    def change_user(
        self, user: User | str, *, roles: Sequence[str] | None = None, **claims: Any
    ) -> User:
        """Change claims of a user; None removes a claim.

        Sessions in the app get them with the next refresh, as with Auth0. Roles are in
        the claim "https://example.com/roles".
        """
        old = self.directory.find(user)
        changed = {} if roles is None else {ROLES: [*roles] or None}
        return self.directory.add(old.username, {**old.claims, **changed, **claims})

    def enroll(self, user: User | str) -> str:
        """Add an authenticator app to a user; logins require it from now on.

        Returns the recovery code. ``otp_for`` returns the one-time codes.
        """
        methods, sub = self.directory.methods, self.directory.find(user).sub
        methods.add_totp(sub, confirmed=True)
        return methods.add_recovery_code(sub).secret

    def otp_for(self, user: User | str) -> str:
        """Return the one-time code that a user's authenticator app shows now."""
        methods, sub = self.directory.methods, self.directory.find(user).sub
        return methods.totp_code(methods.for_user(sub, "totp")[-1])

    def passwordless_code(self, address: str) -> str:
        """Return the unused code last sent to an email address or phone number."""
        return self._message(address).code

    def passwordless_link(self, address: str) -> str:
        """Return the unused link last sent to an email address."""
        return self._message(address).link

    def _message(self, address: str) -> Message:
        return {m.to: m for m in self.directory.messages.values()}[address]

    def approve_backchannel(self, user: User | str, *, allow: bool = True) -> None:
        """Approve or deny a user's pending CIBA logins, or the next one if none is."""
        sub, directory = self.directory.find(user).sub, self.directory
        directory.decisions[sub] = allow
        for approval in directory.approvals.values():
            if approval.answer is None and approval.grant.session.user.sub == sub:
                approval.answer = directory.decisions.pop(sub, allow)

    def accept_token(self, token: str, user: User | str, token_type: str) -> None:
        """Accept a token of another issuer for a user in token exchanges."""
        self.directory.accepted_tokens[token_type, token] = self.directory.find(user)

    def accounts(self, user: User | str) -> list[str]:
        """Return the connections at which a user has connected an account."""
        return list(self.directory.accounts.get(self.directory.find(user).sub, ()))

    def linked(self, user: User | str) -> set[str]:
        """Return the connections that are linked to a user."""
        return set(self.directory.linked.get(self.directory.find(user).sub, ()))

    def add_organization(
        self, name: str, *, org_id: str | None = None, display_name: str | None = None
    ) -> Organization:
        """Add an organization, or replace the organization of that name.

        Apps may request it by name or ``org_id``, which is random by default.
        """
        org_id = org_id or f"org_{secrets.token_hex(8)}"
        added = Organization(org_id, name, display_name or name.capitalize())
        self.directory.organizations[name.casefold()] = added
        return added

    @property
    def reuse_detected(self) -> int:
        """How often a refresh token was reused, which revoked its family."""
        return self.directory.refresh_tokens.reuse_detected

    def revoke_refresh_tokens(self, sub: str) -> None:
        """Revoke all refresh tokens of a user."""
        self.directory.refresh_tokens.revoke(sub=sub)

    def fail(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Make the next requests to an endpoint fail; faults are used up in order."""
        if endpoint not in PATHS or times < 1:
            known = ", ".join(PATHS)
            raise ValueError(f"Cannot fail {endpoint!r} {times} times; use {known}.")
        self._faults[PATHS[endpoint]].extend([fault] * times)

    def clear_faults(self) -> None:
        """Remove all pending faults."""
        self._faults: dict[str, deque[Fault]] = {p: deque() for p in PATHS.values()}

    def pop_fault(self, path: str) -> Fault | None:
        """Return and remove the next fault of this path, or return None."""
        try:
            return self._faults[path].popleft()
        except LookupError:
            return None

    def forge(
        self, kind: str | None = None, *, claims: Mapping[str, Any] | None = None
    ) -> None:
        """Make the next ID token invalid; call it again for those after it.

        The kinds are in ``faults.py``. Claims are set; None removes a claim.
        """
        if kind is None and not claims:
            raise ValueError("Say what to forge: a kind or claims.")
        self.forgeries.append(Forgery(kind, dict(claims or {})))

    def rotate_keys(self) -> None:
        """Replace the signing key; only the new key is published."""
        self.keys.rotate()

    def count(self, path: str) -> int:
        """Return the number of requests to a path, of all methods."""
        return sum(seen.path == path for seen in list(self.requests))

    def check_request(self, query: Mapping[str, str]) -> AuthorizationRequest:
        """Check a request whose redirect_uri is allowed, or raise a RequestError."""
        authz, directory = parse_request(query), self.directory
        if authz.organization and directory.organization(authz.organization) is None:
            description = f"the organization {authz.organization} was not found"
            raise invalid_request(description)
        if authz.connection and authz.connection not in self.connections:
            raise invalid_request("the connection was not found")
        if authz.audience and not self.knows_audience(authz.audience):
            raise RequestError("access_denied", f"Service not found: {authz.audience}")
        return authz

    def knows_callback(self, url: str) -> bool:
        """Return whether a callback URL is allowed."""
        return url in self.allowed_callback_urls or is_loopback(url)

    def knows_audience(self, audience: str) -> bool:
        """Return whether an API is registered; if none is, all are allowed."""
        own = {self.my_account, "my-account"}
        return not self.audiences or audience in self.audiences | own


#: The tenant of the current request.
tenant: Provider = LocalProxy(lambda: current_app.extensions["tenant"])  # type: ignore[assignment]  # as Flask annotates its proxies
