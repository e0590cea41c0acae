"""Sealing: a JSON object into a compact JWE (RFC 7516), and back."""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

logger = logging.getLogger(__name__)

#: Characters of a seal at most; joserfc makes longer ones, but does not open them.
MOST_LETTERS = 60_000
#: How many opened seals a process remembers at most, and letters of one at most.
MOST_REMEMBERED = 1_024
_LONGEST_REMEMBERED = 8_000
_ALGORITHMS = ["dir", "A256GCM", "DEF"]


class BadSeal(Exception):
    """What was given is not a seal that one of the secrets made.

    Its text is a reason that may be logged: it holds nothing of the contents.
    """


def derive(secret: str, purpose: str) -> bytes:
    """Derive a 32-byte key from a secret by HKDF-SHA256 (RFC 5869).

    Args:
        secret: At least 32 bytes, random.
        purpose: What the key is for; every purpose has a key of its own.
    """
    label = f"auth0-flask {purpose}".encode()
    return HKDF(SHA256(), length=32, salt=None, info=label).derive(secret.encode())


def seal(identifier: str, data: Mapping[str, Any], secrets: Sequence[str]) -> str:
    """Seal a JSON object under the newest secret.

    Args:
        identifier: What the seal is for; it opens for the same identifier only,
            so that a session cannot be passed off as a transaction.
        data: What JSON can hold; a lone surrogate becomes ``?``.
        secrets: Newest first.

    Returns:
        A compact JWE: ``dir``, A256GCM, DEFLATE (RFC 7518 sections 4.5 and 5.3).
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    plain = text.encode("utf-8", "replace")
    key, header = _key(secrets[0], identifier), _header(secrets[0])
    return jwe.encrypt_compact(dict(header), plain, key, algorithms=_ALGORITHMS)


def unseal(
    identifier: str,
    sealed: object,
    secrets: Sequence[str],
    *,
    remember: bool = False,
) -> dict[str, Any]:
    """Open what `seal` made, whichever of the secrets it was made under.

    Args:
        identifier: The one it was sealed for.
        sealed: Whatever a visitor sent.
        secrets: Newest first.
        remember: Keep what it says in memory, since the same seal will come again.

    Returns:
        The JSON object.

    Raises:
        BadSeal: It was not made by `seal` for this identifier, or under a secret
            that is not among these.
    """
    secret, sealed = _made_under(sealed, secrets), str(sealed)
    remember = remember and len(sealed) <= _LONGEST_REMEMBERED
    try:
        open_ = _opened_lately if remember else _open
        data = json.loads(open_(identifier, sealed, secret))
    except (JoseError, ValueError, zlib.error) as error:
        raise BadSeal("tampered with, cut short or made for another use") from error
    if secret != secrets[0]:
        _old_reads.note()
    if not isinstance(data, dict):
        raise BadSeal("not a JSON object")
    return data


def _open(identifier: str, sealed: str, secret: str) -> str:
    key = _key(secret, identifier)
    opened = jwe.decrypt_compact(sealed, key, algorithms=_ALGORITHMS)
    return (opened.plaintext or b"").decode()


# What a seal says never changes; whether a session is over is asked every time.
# Text, since requests share it; what does not open is not remembered.
_opened_lately = lru_cache(maxsize=MOST_REMEMBERED)(_open)


class _OldReads:
    """Counts what an old secret still opened, and says so once a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads = 0
        self._said_at = 0.0

    def note(self) -> None:
        now = time.time()
        with self._lock:
            self._reads += 1
            if now - self._said_at < 60:
                return
            reads, self._reads, self._said_at = self._reads, 0, now
        logger.warning(
            "Reads that still needed an old secret since this was last said: %d. "
            "When this line stays away, the old ones can go from AUTH0_SECRET.",
            reads,
        )


_old_reads = _OldReads()


def _made_under(sealed: object, secrets: Sequence[str]) -> str:
    """Find the secret by the header, which is compared and never parsed."""
    header = sealed.partition(".")[0] if isinstance(sealed, str) else None
    for secret in secrets:
        if header == _encoded_header(secret):
            return secret
    raise BadSeal("not made by this app, or under a secret it no longer has")


@lru_cache(maxsize=256)
def _key(secret: str, identifier: str) -> OctKey:
    return OctKey.import_key(derive(secret, f"seal {identifier}"))


@lru_cache(maxsize=16)
def _header(secret: str) -> dict[str, str]:
    kid = urlsafe_b64encode(derive(secret, "kid")[:6]).decode()
    return {"alg": "dir", "enc": "A256GCM", "zip": "DEF", "kid": kid}


@lru_cache(maxsize=16)
def _encoded_header(secret: str) -> str:
    return seal("", {}, [secret]).partition(".")[0]
