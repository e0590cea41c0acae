"""Users, organizations, sessions, grants and tokens, all in memory."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

from werkzeug.wrappers import Response

from .authorization import AuthorizationRequest
from .factors import Ceremony, Method, Methods

T = TypeVar("T")

#: The claim that contains roles; at Auth0, an Action would set it.
ROLES = "https://example.com/roles"
_DAY = 86400.0


@dataclass(frozen=True)
class Organization:
    """An Auth0 organization: a customer of the app with its own members."""

    org_id: str  # begins with "org_"
    name: str  # in URLs and tokens, such as "acme"
    display_name: str  # on pages


@dataclass(frozen=True)
class User:
    """A user who can sign in."""

    username: str  # the value of the button on the login form, such as "alice"
    claims: Mapping[str, Any]  # always with a sub

    @property
    def sub(self) -> str:
        """The user's identifier (OpenID Connect Core, section 2)."""
        return str(self.claims["sub"])

    @property
    def label(self) -> str:
        """The user's name on pages."""
        name = self.claims.get("name") or self.claims.get("email")
        return str(name or "nobody in particular")

    @property
    def detail(self) -> str:
        """The email address or ``sub``, to distinguish users of the same name."""
        return str(self.claims.get("email") or self.sub)


@dataclass(frozen=True)
class Session:
    """A user's session at the tenant."""

    user: User
    auth_time: float  # time of the last authentication, in seconds since 1970
    sid: str
    amr: tuple[str, ...] = ()  # contains "mfa" after a second factor (RFC 8176)
    acr: str | None = None  # the acr that the app requested for the second factor
    act: Mapping[str, str] | None = None  # who acts for the user (RFC 8693, 4.1)


@dataclass(frozen=True)
class Grant:
    """What a user has granted to the app; every code and token belongs to one."""

    session: Session
    scope: tuple[str, ...]
    audience: str | None = None
    nonce: str | None = None
    organization: Organization | None = None

    @property
    def organization_claims(self) -> dict[str, str]:
        """The claims about the organization of the login, if there is one."""
        org = self.organization
        return {"org_id": org.org_id, "org_name": org.name} if org else {}


@dataclass(frozen=True)
class Message:
    """A message with a code or a link for passwordless login."""

    to: str
    code: str
    link: str = ""
    request: AuthorizationRequest | None = None


@dataclass
class Approval:
    """A CIBA login; ``answer`` is None until the user approves or denies it."""

    grant: Grant
    message: str
    answer: bool | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Question:
    """A form that a user has to fill in during an authorization request."""

    page: str  # "login", "factor" or "confirm"
    request: AuthorizationRequest
    answer: Callable[[], Response | None]  # handles the form; None shows it again
    context: Mapping[str, Any] = field(default_factory=dict)  # for the template


class Store(Generic[T]):
    """Values under random keys, deleted after ``lifetime`` seconds; thread-safe."""

    def __init__(self, clock: Callable[[], float], lifetime: float) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._entries: dict[str, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def put(self, value: T, *, key: str = "", lifetime: float | None = None) -> str:
        """Store a value and return its key, which is random unless given."""
        key = key or secrets.token_urlsafe(32)
        now = self._clock()
        expires = now + (self.lifetime if lifetime is None else lifetime)
        with self._lock:
            self._drop_expired(now)
            self._entries[key] = (expires, value)
        return key

    def values(self) -> list[T]:
        """Return all values that have not expired."""
        with self._lock:
            self._drop_expired(self._clock())
            return [value for _, value in self._entries.values()]

    def get(self, key: str) -> T | None:
        """Return the value, or None if it is unknown or expired."""
        with self._lock:
            return self._unexpired(self._entries.get(key))

    def pop(self, key: str) -> T | None:
        """Return and delete the value; of two concurrent callers, one gets None."""
        with self._lock:
            return self._unexpired(self._entries.pop(key, None))

    def _unexpired(self, entry: tuple[float, T] | None) -> T | None:
        return entry[1] if entry and entry[0] > self._clock() else None

    def _drop_expired(self, now: float) -> None:
        for key in [k for k, (expires, _) in self._entries.items() if expires <= now]:
            del self._entries[key]


@dataclass
class _TokenFamily:
    """The refresh tokens of one login; only the latest is valid."""

    grant: Grant
    latest: str = ""
    revoked: bool = False


class RefreshTokens:
    """Refresh tokens and their families; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        # Used tokens stay here, so that their reuse is detected.
        self._families: Store[_TokenFamily] = Store(clock, 30 * _DAY)
        self._lock = threading.Lock()
        self.reuse_detected = 0  # the number of families revoked after reuse

    def new_family(self, grant: Grant) -> str:
        """Return the first token of a new family."""
        return self._new_token(_TokenFamily(grant))

    def grant(self, token: str) -> Grant | None:
        """Return a valid token's grant; revoke the family of a used token."""
        with self._lock:
            family = self._family(token)
            return family.grant if family else None

    def rotate(self, token: str) -> str | None:
        """Replace a valid token by a new one; revoke the family of a used token."""
        with self._lock:
            family = self._family(token)
            return self._new_token(family) if family else None

    def set_session(self, token: str, session: Session) -> None:
        """Give a token's family another session, after a second factor."""
        family = self._families.get(token)
        if family is not None:
            family.grant = replace(family.grant, session=session)

    def revoke(self, token: str | None = None, sub: str | None = None) -> None:
        """Revoke a token's family, or all families of a user."""
        of_token = self._families.get(token or "")
        for family in self._families.values():
            if family is of_token or family.grant.session.user.sub == sub:
                family.revoked = True

    def _family(self, token: str) -> _TokenFamily | None:
        family = self._families.get(token)
        if family is None or family.revoked:
            return None
        if token != family.latest:
            # Either the app or an attacker has the latest token: revoke all.
            family.revoked = True
            self.reuse_detected += 1
            return None
        return family

    def _new_token(self, family: _TokenFamily) -> str:
        family.latest = self._families.put(family)
        return family.latest


class Directory:
    """The users and all other state between requests; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._users: dict[str, User] = {}
        self.organizations: dict[str, Organization] = {}
        self.methods = Methods(clock)
        self.refresh_tokens = RefreshTokens(clock)
        self.questions: Store[Question] = Store(clock, 600)
        self.codes: Store[tuple[Grant, AuthorizationRequest]] = Store(clock, 60)
        self.sessions: Store[Session] = Store(clock, 7 * _DAY)
        self.access_tokens: Store[Grant] = Store(clock, _DAY)
        self.pushed_requests: Store[Mapping[str, str]] = Store(clock, 90)
        self.used_assertions: Store[bool] = Store(clock, 60)
        # Grants that wait for a second factor, and the refresh token, if one was used.
        self.mfa_tokens: Store[tuple[Grant, str | None]] = Store(clock, 600)
        self.messages: Store[Message] = Store(clock, 300)
        self.ceremonies: Store[Ceremony] = Store(clock, 300)
        self.approvals: Store[Approval] = Store(clock, 300)
        self.transfers: Store[tuple[User, Mapping[str, str] | None]] = Store(clock, 60)
        self.connect_codes: Store[Mapping[str, str]] = Store(clock, 300)
        self.enrolments: Store[tuple[Method, Ceremony]] = Store(clock, 300)
        self.decisions: dict[str, bool] = {}
        self.accepted_tokens: dict[tuple[str, str], User] = {}
        self.accounts: dict[str, dict[str, dict[str, Any]]] = {}
        self.linked: dict[str, set[str]] = {}

    def users(self) -> list[User]:
        """Return all users, in the order they were added."""
        return list(self._users.values())

    def user(self, username: str) -> User | None:
        """Return one user, or None if the name is unknown."""
        return self._users.get(username)

    def find(self, name: User | str) -> User:
        """Return a user by username, ``sub`` or email, or raise a LookupError."""
        if isinstance(name, User):
            return name
        for user in self.users():
            if name in {user.username, user.sub, user.claims.get("email")}:
                return user
        raise LookupError(f"There is no user {name!r}.")

    def organization(self, name: str) -> Organization | None:
        """Return an organization by ID or name; the case of names is ignored."""
        by_id = {org.org_id: org for org in list(self.organizations.values())}
        return by_id.get(name) or self.organizations.get(name.casefold())

    def add(self, username: str, claims: Mapping[str, Any]) -> User:
        """Add a user, or replace the user of that name; None omits a claim."""
        present = {name: value for name, value in claims.items() if value is not None}
        if not present.get("sub"):
            raise ValueError("A user needs a sub.")
        self._users[username] = user = User(username, present)
        return user

    def new_user(self, name: str, email: str) -> User:
        """Return a user for these details; the same details give the same user.

        Without details, the user is different every time and is not stored.
        """
        if not (name or email):
            sub = f"auth0|{secrets.token_hex(12)}"
            return User(sub, {"sub": sub})
        sub = f"auth0|{_digest(email or name)}"
        # At Auth0, the address of a new account is not verified, either.
        more = {"email": email, "email_verified": False} if email else {}
        return self.add(sub, {"sub": sub, "name": name or email, **more})

    def user_with_address(self, address: str) -> User:
        """Return the user of an email address or phone number; add one if needed."""
        kind, claim = ("email", "email") if "@" in address else ("sms", "phone_number")
        for user in self.users():
            if user.claims.get(claim) == address:
                return user
        sub = f"{kind}|{_digest(address)}"
        claims = {"sub": sub, "name": address, claim: address}
        return self.add(sub, {**claims, f"{claim}_verified": True})

    def current(self, user: User) -> User:
        """Return the user with its present claims."""
        return self._users.get(user.username, user)

    def sign_in(self, user: User) -> Session:
        """Return a new session for the user, with a ``sid`` of its own."""
        return Session(user, self._clock(), secrets.token_urlsafe(24))


def _digest(text: str) -> str:
    return sha256(text.casefold().encode()).hexdigest()[:24]
