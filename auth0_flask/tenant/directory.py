"""Who is known here, who is signed in, and what has been granted."""

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

#: The claim that roles are in, which an Action would set at Auth0.
ROLES = "https://example.com/roles"
_DAY = 86400.0


@dataclass(frozen=True)
class Organization:
    """A customer of the app, whose members sign in to it."""

    org_id: str  # begins with "org_"
    name: str  # in addresses and tokens; "acme", say
    display_name: str  # on pages


@dataclass(frozen=True)
class User:
    """Somebody who can sign in."""

    username: str  # on the login form's button; "alice", say
    claims: Mapping[str, Any]  # always with a sub

    @property
    def sub(self) -> str:
        """The user's identifier (OpenID Connect Core, section 2)."""
        return str(self.claims["sub"])

    @property
    def label(self) -> str:
        """What to call the user on a page."""
        name = self.claims.get("name") or self.claims.get("email")
        return str(name or "nobody in particular")

    @property
    def detail(self) -> str:
        """What tells the user from another of the same name."""
        return str(self.claims.get("email") or self.sub)


@dataclass(frozen=True)
class Session:
    """A browser signed in at the tenant."""

    user: User
    auth_time: float  # when the user last proved it, in seconds since 1970
    sid: str
    amr: tuple[str, ...] = ()  # "mfa" where there was a second factor (RFC 8176)
    acr: str | None = None  # what the app asked this proof to be good for
    act: Mapping[str, str] | None = None  # who acts for the user (RFC 8693, 4.1)


@dataclass(frozen=True)
class Grant:
    """What a user let the app have: behind every code and every token."""

    session: Session
    scope: tuple[str, ...]
    audience: str | None = None
    nonce: str | None = None
    organization: Organization | None = None

    @property
    def organization_claims(self) -> dict[str, str]:
        """What tokens say of the organization signed in to, if it was one."""
        org = self.organization
        return {"org_id": org.org_id, "org_name": org.name} if org else {}


@dataclass(frozen=True)
class Message:
    """A code or a link on its way to somebody."""

    to: str
    code: str
    link: str = ""
    asked: AuthorizationRequest | None = None


@dataclass
class Approval:
    """A login that a user elsewhere is asked for; ``answer`` is None until then."""

    grant: Grant
    message: str
    answer: bool | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Question:
    """What a page asks a user; ``answer`` is None where it has to ask again."""

    page: str  # "login", "factor" or "confirm"
    asked: AuthorizationRequest
    answer: Callable[[], Response | None]
    shown: Mapping[str, Any] = field(default_factory=dict)


class Store(Generic[T]):
    """Values under unguessable keys, forgotten after ``lifetime`` s; thread-safe."""

    def __init__(self, clock: Callable[[], float], lifetime: float) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._entries: dict[str, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def put(self, value: T, *, key: str = "", lifetime: float | None = None) -> str:
        """Keep a value and return its key, random unless given."""
        key = key or secrets.token_urlsafe(32)
        now = self._clock()
        expires = now + (self.lifetime if lifetime is None else lifetime)
        with self._lock:
            self._forget_expired(now)
            self._entries[key] = (expires, value)
        return key

    def values(self) -> list[T]:
        """Return all values that have not expired."""
        with self._lock:
            self._forget_expired(self._clock())
            return [value for _, value in self._entries.values()]

    def get(self, key: str) -> T | None:
        """Return the value, or None where it is unknown or expired."""
        with self._lock:
            return self._live(self._entries.get(key))

    def take(self, key: str) -> T | None:
        """Return the value and forget it: of two callers only one gets it."""
        with self._lock:
            return self._live(self._entries.pop(key, None))

    def _live(self, entry: tuple[float, T] | None) -> T | None:
        return entry[1] if entry and entry[0] > self._clock() else None

    def _forget_expired(self, now: float) -> None:
        for key in [k for k, (expires, _) in self._entries.items() if expires <= now]:
            del self._entries[key]


@dataclass
class _Family:
    """The refresh tokens that came of one login; only the last is good."""

    grant: Grant
    last: str = ""
    revoked: bool = False


class RefreshTokens:
    """Refresh tokens and the families they are of; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        # Spent tokens stay known, for to recognize them is what detects reuse.
        self._families: Store[_Family] = Store(clock, 30 * _DAY)
        self._lock = threading.Lock()
        self.reuse_detected = 0  # how often a spent token has ended its family

    def begin(self, grant: Grant) -> str:
        """Return the first token of a new family."""
        return self._next(_Family(grant))

    def grant(self, token: str) -> Grant | None:
        """Return what a good token stands for; a spent one ends its family."""
        with self._lock:
            family = self._family(token)
            return family.grant if family else None

    def rotate(self, token: str) -> str | None:
        """Spend a good token and return the next; a spent one ends its family."""
        with self._lock:
            family = self._family(token)
            return self._next(family) if family else None

    def prove(self, token: str, session: Session) -> None:
        """Have a token's family go on for a session whose user proved more."""
        family = self._families.get(token)
        if family is not None:
            family.grant = replace(family.grant, session=session)

    def revoke(self, token: str | None = None, sub: str | None = None) -> None:
        """End a token's family, or all of a user, if they are known."""
        of_token = self._families.get(token or "")
        for family in self._families.values():
            if family is of_token or family.grant.session.user.sub == sub:
                family.revoked = True

    def _family(self, token: str) -> _Family | None:
        family = self._families.get(token)
        if family is None or family.revoked:
            return None
        if token != family.last:
            # Its rightful owner and a thief look the same: neither goes on.
            family.revoked = True
            self.reuse_detected += 1
            return None
        return family

    def _next(self, family: _Family) -> str:
        family.last = self._families.put(family)
        return family.last


class Directory:
    """The users, and all that is kept between requests; thread-safe."""

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
        self.pushed: Store[Mapping[str, str]] = Store(clock, 90)
        self.assertions: Store[bool] = Store(clock, 60)
        # A grant that waits for a second factor, and the refresh token that asked.
        self.mfa_tokens: Store[tuple[Grant, str | None]] = Store(clock, 600)
        self.messages: Store[Message] = Store(clock, 300)
        self.ceremonies: Store[Ceremony] = Store(clock, 300)
        self.approvals: Store[Approval] = Store(clock, 300)
        self.transfers: Store[tuple[User, Mapping[str, str] | None]] = Store(clock, 60)
        self.connects: Store[Mapping[str, str]] = Store(clock, 300)
        self.enrolments: Store[tuple[Method, Ceremony]] = Store(clock, 300)
        self.answers: dict[str, bool] = {}
        self.accepted: dict[tuple[str, str], User] = {}
        self.accounts: dict[str, dict[str, dict[str, Any]]] = {}
        self.linked: dict[str, set[str]] = {}

    def users(self) -> list[User]:
        """Return all users, in the order they came."""
        return list(self._users.values())

    def user(self, username: str) -> User | None:
        """Return one user, or None where the name is unknown."""
        return self._users.get(username)

    def find(self, name: User | str) -> User:
        """Return a user by name, ``sub`` or email, or raise a LookupError."""
        if isinstance(name, User):
            return name
        for user in self.users():
            if name in {user.username, user.sub, user.claims.get("email")}:
                return user
        raise LookupError(f"No user {name!r} here.")

    def organization(self, name: str) -> Organization | None:
        """Return the one with this identifier or name, whatever the name's case."""
        found = list(self.organizations.values())
        by_id = {organization.org_id: organization for organization in found}
        return by_id.get(name) or self.organizations.get(name.casefold())

    def add(self, username: str, claims: Mapping[str, Any]) -> User:
        """Add a user, or replace the one of that name; None leaves a claim out."""
        present = {name: value for name, value in claims.items() if value is not None}
        if not present.get("sub"):
            raise ValueError("Every user has a sub.")
        self._users[username] = user = User(username, present)
        return user

    def newcomer(self, name: str, email: str) -> User:
        """Return a user for these details, the same one for the same details.

        Without any, it is somebody new every time, not kept among the users.
        """
        if not (name or email):
            sub = f"auth0|{secrets.token_hex(12)}"
            return User(sub, {"sub": sub})
        sub = f"auth0|{_digest(email or name)}"
        # Auth0 has not verified the address of a new account, either.
        more = {"email": email, "email_verified": False} if email else {}
        return self.add(sub, {"sub": sub, "name": name or email, **more})

    def owner(self, address: str) -> User:
        """Return whose email or phone number this is; somebody new's, if nobody's."""
        email, sms = ("email", "email"), ("sms", "phone_number")
        kind, claim = email if "@" in address else sms
        for user in self.users():
            if user.claims.get(claim) == address:
                return user
        sub = f"{kind}|{_digest(address)}"
        claims = {"sub": sub, "name": address, claim: address}
        return self.add(sub, {**claims, f"{claim}_verified": True})

    def present(self, user: User) -> User:
        """Return the user as known now, who may have changed since."""
        return self._users.get(user.username, user)

    def sign_in(self, user: User) -> Session:
        """Return a new session for the user, with a ``sid`` of its own."""
        return Session(user, self._clock(), secrets.token_urlsafe(24))


def _digest(text: str) -> str:
    return sha256(text.casefold().encode()).hexdigest()[:24]
