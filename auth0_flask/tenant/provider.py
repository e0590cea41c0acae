"""What the tenant is and knows, apart from sockets and pages."""

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
    invalid,
    is_loopback,
    read,
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
    """Settings to change at any time; ``reset`` undoes that."""

    clock_offset: float = 0.0  # seconds added to the tenant's clock
    access_token_lifetime: int = 86400  # seconds; ``expires_in`` of token responses
    # Members set in every token response, to make it odd; None removes one.
    token_response_extra: dict[str, Any] = field(default_factory=dict)
    allowed_callback_urls: set[str] = field(
        default_factory=set
    )  # besides loopback addresses
    connections: set[str] = field(default_factory=_CONNECTIONS.copy)
    audiences: set[str] = field(default_factory=set)  # APIs there are; any where empty
    api_audience: str = "https://api.tenant.example/"  # of ``/api/things``
    my_account_scopes: set[str] = field(default_factory=_MY_ACCOUNT.copy)
    require_pushed_authorization_requests: bool = False  # RFC 9126
    rotate_refresh_tokens: bool = True  # each is good once; otherwise they stay
    # Logins and refreshes need a second factor; users who have one always do.
    require_mfa: bool = False
    # The app's public RSA key (PEM), for private_key_jwt (RFC 7523). While there is
    # one, the app's secret is refused; without, the secret is the only way.
    client_public_key: str | None = None
    # Where logout tokens go (OpenID Connect Back-Channel Logout 1.0), if anywhere:
    # an http address on loopback. Then the status of each answer; 0 for none.
    backchannel_logout_uri: str | None = None
    backchannel_answers: list[int] = field(default_factory=list)

    def __setattr__(self, name: str, value: Any) -> None:
        key = name == "client_public_key" and value is not None
        if key and not isinstance(load_pem_public_key(value.encode()), RSAPublicKey):
            raise ValueError("RS256 needs an RSA key.")
        uri = name == "backchannel_logout_uri" and value is not None
        if uri and not (value.startswith("http://") and is_loopback(value)):
            raise ValueError("Logout tokens go to http addresses on loopback only.")
        super().__setattr__(name, value)


class Provider(Settings):
    """One client, some users, a signing key, and what tests want changed.

    Whatever takes a user takes a name, a ``sub`` or an email as well. What is asked
    for and is not there raises a LookupError.
    """

    def __init__(self) -> None:
        self.client_id = secrets.token_hex(16)
        self.client_secret = secrets.token_urlsafe(48)
        self.keys = SigningKeys()
        self.stopping = threading.Event()
        self.callback = ""  # the app's first, for requests without a redirect_uri
        self._app_secret = secrets.token_hex(32)
        # Once it was started:
        self.domain = ""  # of the TLS port, as in AUTH0_DOMAIN
        self.issuer = ""  # with the final slash that Auth0's have
        self.my_account = ""  # the audience of the My Account API
        self.origin = ""  # where browsers go
        self.ca_file = ""  # the path of the CA's certificate (PEM), for SSL_CERT_FILE
        self.notices: list[threading.Thread] = []  # that tell the app of logouts
        self.reset()

    def reset(self) -> None:
        """Go back to the usual settings and first users, with nobody signed in.

        The client, the ports, the signing key and open connections stay.
        """
        super().__init__()
        self.requests: list[Seen] = []  # all so far, in the order they came
        self.notices = [thread for thread in self.notices if thread.is_alive()]
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
        """Add a user, or replace the one of that name.

        Claims come besides, or instead of, the usual ``sub``, ``name``, ``email`` and
        ``email_verified``. One given as None is left out.
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
        """Change claims of a user, also while signed in; None removes one.

        What is in a session changes with the next refresh, as at Auth0. Roles are in
        the claim "https://example.com/roles".
        """
        known = self.directory.find(user)
        changed = {} if roles is None else {ROLES: [*roles] or None}
        return self.directory.add(known.username, {**known.claims, **changed, **claims})

    def enroll(self, user: User | str) -> str:
        """Give a user a second factor, which logins ask for from now on.

        Returns the recovery code; ``otp_for`` says what the authenticator shows.
        """
        methods, sub = self.directory.methods, self.directory.find(user).sub
        methods.add_totp(sub, confirmed=True)
        return methods.add_recovery_code(sub).secret

    def otp_for(self, user: User | str) -> str:
        """Return the code that a user's authenticator shows now."""
        methods = self.directory.methods
        return methods.code(methods.of(self.directory.find(user).sub, "totp")[-1])

    def passwordless_code(self, address: str) -> str:
        """Return the unspent code last sent to an email address or phone number."""
        return self._message(address).code

    def passwordless_link(self, address: str) -> str:
        """Return the unspent link last sent to an email address."""
        return self._message(address).link

    def _message(self, address: str) -> Message:
        sent = {message.to: message for message in self.directory.messages.values()}
        return sent[address]

    def approve_backchannel(self, user: User | str, *, allow: bool = True) -> None:
        """Answer the logins elsewhere that a user is asked for, or else the next."""
        sub, directory = self.directory.find(user).sub, self.directory
        directory.answers[sub] = allow
        for approval in directory.approvals.values():
            if approval.answer is None and approval.grant.session.user.sub == sub:
                approval.answer = directory.answers.pop(sub, allow)

    def accept_token(self, token: str, user: User | str, token_type: str) -> None:
        """Take a token of somebody else's for a user's in token exchanges."""
        self.directory.accepted[token_type, token] = self.directory.find(user)

    def accounts(self, user: User | str) -> list[str]:
        """Return the connections at which a user has connected an account."""
        return list(self.directory.accounts.get(self.directory.find(user).sub, ()))

    def linked(self, user: User | str) -> set[str]:
        """Return the connections that are linked to a user."""
        return set(self.directory.linked.get(self.directory.find(user).sub, ()))

    def add_organization(
        self, name: str, *, org_id: str | None = None, display_name: str | None = None
    ) -> Organization:
        """Add an organization, or replace the one of that name.

        Apps may ask for it by name or ``org_id``, which is random by default.
        """
        org_id = org_id or f"org_{secrets.token_hex(8)}"
        added = Organization(org_id, name, display_name or name.capitalize())
        self.directory.organizations[name.casefold()] = added
        return added

    @property
    def reuse_detected(self) -> int:
        """How often a spent refresh token came again and ended its family."""
        return self.directory.refresh_tokens.reuse_detected

    def revoke_refresh_tokens(self, sub: str) -> None:
        """Have no refresh token of a user be good any more."""
        self.directory.refresh_tokens.revoke(sub=sub)

    def fail(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Have the next requests of an endpoint go wrong; in order, each once."""
        if endpoint not in PATHS or times < 1:
            known = ", ".join(PATHS)
            raise ValueError(f"No {endpoint!r}, {times} times; there are {known}.")
        self._faults[PATHS[endpoint]].extend([fault] * times)

    def clear_faults(self) -> None:
        """Forget all faults still in waiting."""
        self._faults: dict[str, deque[Fault]] = {p: deque() for p in PATHS.values()}

    def take_fault(self, path: str) -> Fault | None:
        """Return the fault for this request, which uses it up, or None."""
        try:
            return self._faults[path].popleft()
        except LookupError:
            return None

    def forge(
        self, kind: str | None = None, *, claims: Mapping[str, Any] | None = None
    ) -> None:
        """Make the next ID token wrong; several in a row, if called repeatedly.

        Kinds are those in ``faults.py``; of the claims to set, None removes one.
        """
        if kind is None and not claims:
            raise ValueError("Say what to forge: a kind or claims.")
        self.forgeries.append(Forgery(kind, dict(claims or {})))

    def rotate_keys(self) -> None:
        """Sign with a new key from now on, and publish only that one."""
        self.keys.rotate()

    def count(self, path: str) -> int:
        """Return how many requests a path has had, whatever their method."""
        return sum(seen.path == path for seen in list(self.requests))

    def admit(self, query: Mapping[str, str]) -> AuthorizationRequest:
        """Read a request of a known redirect_uri, or raise a RequestError."""
        asked, directory = read(query), self.directory
        if asked.organization and directory.organization(asked.organization) is None:
            raise invalid(f"the organization {asked.organization} was not found")
        if asked.connection and asked.connection not in self.connections:
            raise invalid("the connection was not found")
        if asked.audience and not self.knows_audience(asked.audience):
            raise RequestError("access_denied", f"Service not found: {asked.audience}")
        return asked

    def knows_callback(self, url: str) -> bool:
        """Whether a browser may be sent back there."""
        return url in self.allowed_callback_urls or is_loopback(url)

    def knows_audience(self, audience: str) -> bool:
        """Whether there is such an API: any, unless some are registered."""
        own = {self.my_account, "my-account"}
        return not self.audiences or audience in self.audiences | own


#: The provider that the present request came to.
here: Provider = LocalProxy(lambda: current_app.extensions["tenant"])  # type: ignore[assignment]  # as Flask types its own
