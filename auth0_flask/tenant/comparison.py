"""Comparing secrets in a time that tells nothing about them."""

from __future__ import annotations

import hmac


def same(one: str, other: str) -> bool:
    """Whether two texts are equal."""
    return hmac.compare_digest(one.encode(), other.encode())
