"""Refresh tokens, each good once where they rotate (RFC 9700, section 4.14.2)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from auth0_flask.tenant.grant import Grant
from auth0_flask.tenant.store import Store

_LIFETIME = 30 * 86400.0


class _Family:
    """The refresh tokens that came of one login; only the last is good."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.last = ""
        self.revoked = False


class RefreshTokens:
    """Refresh tokens and the families they are of; thread-safe.

    Attributes:
        reuse_detected: How often a spent token has ended its family.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with none; the clock gives seconds since 1970."""
        # Spent tokens stay known, for to recognize them is what detects reuse.
        self._families: Store[_Family] = Store(clock, _LIFETIME)
        self._lock = threading.Lock()
        self.reuse_detected = 0

    def begin(self, grant: Grant) -> str:
        """Return the first token of a new family."""
        with self._lock:
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

    def revoke(self, token: str) -> None:
        """End a token's family, if it is known."""
        with self._lock:
            family = self._families.get(token)
            if family is not None:
                family.revoked = True

    def revoke_user(self, sub: str) -> None:
        """End all families of a user."""
        with self._lock:
            for family in self._families.values():
                if family.grant.session.user.sub == sub:
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
