"""What the tenant is and knows, apart from sockets and pages."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from auth0_flask.tenant.directory import Directory
from auth0_flask.tenant.faults import Fault, Faults
from auth0_flask.tenant.forgery import Forgeries
from auth0_flask.tenant.front import Seen
from auth0_flask.tenant.grant import User
from auth0_flask.tenant.keys import SigningKeys
from auth0_flask.tenant.notices import Notices
from auth0_flask.tenant.organizations import Organization, Organizations
from auth0_flask.tenant.settings import Settings


class Provider(Settings):
    """One client, some users, a signing key, and what tests want changed.

    Attributes:
        client_id: The one client's identifier, random per instance.
        client_secret: Its secret, random per instance.
        requests: Every request so far, in the order they came.
    """

    requests: list[Seen]

    def __init__(self) -> None:
        """Make up the client and add the first users."""
        self.client_id = secrets.token_hex(16)
        self.client_secret = secrets.token_urlsafe(48)
        self.keys = SigningKeys()
        self.faults = Faults()
        self.forgeries = Forgeries()
        self.notices = Notices()
        self.stopping = threading.Event()
        self._app_secret = secrets.token_hex(32)
        self._ports: tuple[int, int] | None = None
        self.reset()

    def reset(self) -> None:
        """Go back to the beginning: first users, nobody signed in, no faults.

        Settings are as usual again, and there are no organizations. The client,
        the ports, the signing key and open connections stay.
        """
        super().reset()
        self.requests = []
        self.faults.clear()
        self.forgeries.clear()
        self.directory = Directory(self.now)
        self.organizations = Organizations()
        self._add_first_users()

    @property
    def domain(self) -> str:
        """The TLS port's authority, as in AUTH0_DOMAIN: "localhost:PORT".

        Raises:
            RuntimeError: If the tenant was never started; so do the next two.
        """
        return f"localhost:{self._started_ports()[0]}"

    @property
    def issuer(self) -> str:
        """The issuer identifier, with the final slash that Auth0's have."""
        return f"https://{self.domain}/"

    @property
    def origin(self) -> str:
        """Where browsers go: "http://localhost:PORT"."""
        return f"http://localhost:{self._started_ports()[1]}"

    def now(self) -> float:
        """Return the tenant's time in seconds since 1970."""
        return time.time() + self.clock_offset

    def add_user(self, username: str, **claims: Any) -> User:
        """Add a user, or replace the one of that name.

        Args:
            username: The name on the login form's button.
            claims: Claims besides, or instead of, the usual ``sub``, ``name``,
                ``email`` and ``email_verified``. One given as None is left out.

        Raises:
            ValueError: If the user would have no ``sub``.
        """
        usual = {
            "sub": f"auth0|{username}",
            "name": username.capitalize(),
            "email": f"{username}@example.com",
            "email_verified": True,
        }
        merged = usual | claims
        if not merged["sub"]:
            raise ValueError("Every user has a sub.")
        return self.directory.add(username, merged)

    def add_organization(
        self,
        name: str,
        *,
        org_id: str | None = None,
        display_name: str | None = None,
    ) -> Organization:
        """Add an organization, or replace the one of that name.

        Args:
            name: Its name, which apps may ask for as well as the identifier.
            org_id: Its identifier; by default "org_" and something random.
            display_name: What the login page calls it; by default the name.
        """
        return self.organizations.add(name, org_id, display_name)

    @property
    def reuse_detected(self) -> int:
        """How often a spent refresh token came again and ended its family."""
        return self.directory.refresh_tokens.reuse_detected

    def revoke_refresh_tokens(self, sub: str) -> None:
        """Have no refresh token of a user be good any more."""
        self.directory.refresh_tokens.revoke_user(sub)

    def fail(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Have the next requests of an endpoint go wrong; in order, each once.

        Args:
            endpoint: "discovery", "jwks", "token", "userinfo", "par", "revoke",
                "api" or "authorize".
            fault: What goes wrong.
            times: How many requests it goes wrong for.

        Raises:
            ValueError: If there is no such endpoint, or ``times`` is below 1.
        """
        self.faults.add(endpoint, fault, times)

    def clear_faults(self) -> None:
        """Forget all faults still in waiting."""
        self.faults.clear()

    def forge(
        self, kind: str | None = None, *, claims: Mapping[str, Any] | None = None
    ) -> None:
        """Make the next ID token wrong; several in a row, if called repeatedly.

        Args:
            kind: "signature", "issuer", "audience", "algorithm" (HS256 with the
                client secret), "curve" (ES256 with a key of nobody's), "none"
                (unsigned), "expired", "unknown_key", "no_iat", "no_kid" or
                "absent" (a response without an ID token).
            claims: Claims to set; None removes one.

        Raises:
            ValueError: If the kind is unknown, or there is nothing to forge.
        """
        self.forgeries.add(kind, claims)

    def rotate_keys(self) -> None:
        """Sign with a new key from now on, and publish only that one."""
        self.keys.rotate()

    def count(self, path: str) -> int:
        """Return how many requests a path has had, whatever their method."""
        return sum(seen.path == path for seen in list(self.requests))

    def _started_ports(self) -> tuple[int, int]:
        if self._ports is None:
            raise RuntimeError("The tenant has no address before it is started.")
        return self._ports

    def _add_first_users(self) -> None:
        self.add_user(
            "alice", given_name="Alice", family_name="Archer", nickname="alice"
        )
        self.add_user("bob")
        self.add_user("nobody", name=None, email=None, email_verified=None)
