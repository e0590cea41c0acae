"""Encryption: a JSON object into a compact JWE (RFC 7516), and back."""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic_core import from_json

logger = logging.getLogger(__name__)

Json = dict[str, Any]

#: Characters of an encrypted value at most; other JOSE libraries open no longer ones.
MAX_CHARACTERS = 60_000
#: Bytes that a value may decompress to at most.
_MAX_PLAINTEXT = 1_000_000
_NONCE_BYTES, _TAG_BYTES = 12, 16  # RFC 7518 section 5.3
_old_secret_logged_at = -60.0


class DecryptionError(Exception):
    """A value was not encrypted for this purpose under one of the secrets.

    Its text is a reason that may be logged: it holds nothing of the contents.
    """


def derive_key(secret: str, purpose: str) -> bytes:
    """Derive a 32-byte key for one purpose by HKDF-SHA256 (RFC 5869)."""
    info = f"auth0-flask {purpose}".encode()
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(secret.encode())


def encrypt(identifier: str, data: Mapping[str, Any], secrets: Sequence[str]) -> str:
    """Encrypt a JSON object under the newest secret, which comes first.

    It decrypts for the same identifier only, so that a session cannot be passed off
    as a transaction. A lone surrogate becomes ``?``.
    """
    # a compact JWE: ``dir``, A256GCM, DEFLATE (RFC 7518 sections 4.5 and 5.3)
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = deflate.compress(text.encode("utf-8", "replace")) + deflate.flush()
    header, nonce = _header(secrets[0]), os.urandom(_NONCE_BYTES)
    both = _cipher(secrets[0], identifier).encrypt(nonce, plain, header.encode())
    parts = nonce, both[:-_TAG_BYTES], both[-_TAG_BYTES:]
    return f"{header}..{_base64url(*parts)}"


def decrypt(identifier: str, value: object, secrets: Sequence[str]) -> Json:
    """Decrypt request input that `encrypt` returned, whichever secret it used.

    Raises `DecryptionError` where it is not ours, not for this identifier, or changed.
    """
    # header..nonce.ciphertext.tag; with ``dir`` there is no encrypted key
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 5 or parts[1] or len(str(value)) > MAX_CHARACTERS:
        raise DecryptionError("it is not an encrypted value")
    header, _, *encoded = parts
    text = ".".join(encoded)
    # the header is compared and never parsed: the attacker chooses no algorithm
    secret = next((s for s in secrets if header == _header(s)), None)
    if secret is None:
        raise DecryptionError("it was encrypted with another secret")
    try:
        plain_base64 = text.replace("-", "+").replace("_", "/")
        decoded = [a2b_base64(f"{part}==") for part in plain_base64.split(".")]
        nonce, ciphertext, tag = decoded
        is_of_size = (len(nonce), len(tag)) == (_NONCE_BYTES, _TAG_BYTES)
        # of all that decode to a value, only one spelling is taken
        if not is_of_size or _base64url(*decoded) != text:
            raise ValueError
        cipher = _cipher(secret, identifier)
        plain = cipher.decrypt(nonce, ciphertext + tag, header.encode())
        inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        data = read_json(inflate.decompress(plain, _MAX_PLAINTEXT))
    except (InvalidTag, ValueError, zlib.error) as error:
        raise DecryptionError(
            "it was changed, or encrypted for another purpose"
        ) from error
    if secret != secrets[0]:
        _log_old_secret()
    if not isinstance(data, dict):
        raise DecryptionError("it is not a JSON object")
    return data


def read_json(text: bytes) -> Any:
    """Read JSON, three times as fast as `json`, which reads what is nested deeper."""
    try:
        return from_json(text, cache_strings="keys")  # a cache of values has tokens
    except ValueError:
        return json.loads(text)


@lru_cache(maxsize=256)
def _cipher(secret: str, identifier: str) -> AESGCM:
    # "seal" is part of the format: values made by version 1.0 are read on
    return AESGCM(derive_key(secret, f"seal {identifier}"))


@lru_cache(maxsize=16)
def _header(secret: str) -> str:
    kid = _base64url(derive_key(secret, "kid")[:6])
    header = {"alg": "dir", "enc": "A256GCM", "zip": "DEF", "kid": kid}
    return _base64url(json.dumps(header, separators=(",", ":")).encode())


def _base64url(*parts: bytes) -> str:
    """Encode parts of a JWE (RFC 7516 section 7.1), faster than by `base64`."""
    encoded = [b2a_base64(part, newline=False).decode().rstrip("=") for part in parts]
    return ".".join(encoded).replace("+", "-").replace("/", "_")


def _log_old_secret() -> None:
    """Say at most once a minute that an old secret is still in use."""
    global _old_secret_logged_at
    if time.monotonic() - _old_secret_logged_at >= 60:
        _old_secret_logged_at = time.monotonic()
        logger.warning(
            "Values encrypted with an old secret are still in use. When this line no "
            "longer appears, remove the old secrets from AUTH0_SECRET."
        )
