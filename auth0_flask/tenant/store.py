"""A small store whose entries have random keys and expire."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Store(Generic[T]):
    """Values under unguessable keys, forgotten after a while; thread-safe."""

    def __init__(self, clock: Callable[[], float], lifetime: float) -> None:
        """Make an empty store.

        Args:
            clock: Gives the present time in seconds since 1970.
            lifetime: Seconds an entry lives unless ``put`` says otherwise.
        """
        self._clock = clock
        self.lifetime = lifetime
        self._entries: dict[str, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def put(
        self, value: T, *, key: str | None = None, lifetime: float | None = None
    ) -> str:
        """Keep a value and return its key, random unless given.

        Args:
            value: What to keep.
            key: The key, where the caller has made an unguessable one.
            lifetime: Seconds until it expires; the store's own by default.
        """
        key = key or secrets.token_urlsafe(32)
        now = self._clock()
        expires = now + (self.lifetime if lifetime is None else lifetime)
        with self._lock:
            self._forget_expired(now)
            self._entries[key] = (expires, value)
        return key

    def add(self, key: str, value: T, *, lifetime: float) -> bool:
        """Keep a value unless its key is taken; tell whether it was kept."""
        now = self._clock()
        with self._lock:
            self._forget_expired(now)
            kept = self._entries.setdefault(key, entry := (now + lifetime, value))
        return kept is entry

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
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _forget_expired(self, now: float) -> None:
        for key in [k for k, (expires, _) in self._entries.items() if expires <= now]:
            del self._entries[key]
