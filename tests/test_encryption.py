"""Encryption: what decrypts, and above all what does not."""

import base64
import json
import os
import string
import time

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey

from auth0_flask.stores.encryption import (
    MAX_CHARACTERS,
    DecryptionError,
    decrypt,
    derive_key,
    encrypt,
)

NEW, OLD, OTHER = "n" * 32, "o" * 32, "x" * 32
#: What version 1.0 encrypted for "session" under OLD.
OF_VERSION_1 = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwiemlwIjoiREVGIiwia2lkIjoicFlhNWpwTjIifQ"
    "..qvDbcAA9Wtnd7lQs"
    ".ANU1rJgVA2QLUNZSflCVuUV7IAFcXwcSHqep7jQ_l4hp4oEQ6QTSDUelMTrc"
    ".nUNoK80WTJY5uC-97QnTCw"
)
KEY = OctKey.import_key(derive_key(NEW, "seal session"))
ALGORITHMS = ["dir", "A256GCM", "DEF"]


def assert_refused(value: object) -> None:
    with pytest.raises(DecryptionError):
        decrypt("session", value, [NEW, OLD])


def test_the_newest_secret_encrypts_and_every_secret_decrypts() -> None:
    of_version_1 = decrypt("session", OF_VERSION_1, [NEW, OLD])
    data = {"name": "A\ud800", "deep": json.loads("[" * 400 + "]" * 400)}
    encrypted = [encrypt("session", data, [NEW, OLD]) for _ in range(99)]

    assert of_version_1 == {"user": {"sub": "auth0|alice", "name": "Zoë"}}
    assert decrypt("session", encrypted[0], [NEW]) == {**data, "name": "A?"}
    # a nonce that is used twice gives away both texts, and what authenticates
    assert len({value.split(".")[2] for value in encrypted}) == 99


def test_an_old_secret_in_use_is_warned_of_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.monotonic()
    for minutes in (1, 2):
        monkeypatch.setattr(time, "monotonic", lambda at=now + minutes * 61: at)
        for _ in range(5):
            decrypt("session", OF_VERSION_1, [NEW, OLD])

        assert caplog.text.count("encrypted with an old secret") == minutes
    assert "AUTH0_SECRET" in caplog.text


def test_it_decrypts_for_nothing_else() -> None:
    encrypted = encrypt("session", {"a": 1}, [NEW])

    with pytest.raises(DecryptionError, match="encrypted for another purpose"):
        decrypt("transaction", encrypted, [NEW])
    with pytest.raises(DecryptionError, match="encrypted with another secret"):
        decrypt("session", encrypted, [OTHER, OLD])
    header = encrypted.partition(".")[0]
    for sent in ("", b"x", None, header, f"{header}....", f"{header}..字.é.x"):
        assert_refused(sent)


def test_no_byte_can_be_changed() -> None:
    parts = encrypt("session", {"sub": "alice"}, [NEW]).split(".")
    for place, part in enumerate(parts):
        raw = base64.urlsafe_b64decode(part + "==")
        for index in range(len(raw)):
            changed = bytearray(raw)
            changed[index] ^= 1
            text = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
            assert_refused(".".join([*parts[:place], text, *parts[place + 1 :]]))


def test_a_value_has_the_one_spelling_of_rfc_7515() -> None:
    """The last character of base64url may have bits that no byte is made of."""
    for length in range(48):
        encrypted = encrypt("session", {"a": "x" * length}, [NEW])
        head, ciphertext, tag = encrypted.rsplit(".", 2)

        for last in {*f"{string.ascii_letters}{string.digits}-_"} - {encrypted[-1]}:
            assert_refused(encrypted[:-1] + last)
        for more in ("A", ".A", "\n"):
            assert_refused(encrypted + more)
        for urlsafe, plain in ("-+", "_/"):
            if urlsafe in encrypted:
                assert_refused(encrypted.replace(urlsafe, plain))
        assert_refused(encrypted.replace("..", ".A."))
        assert_refused(f"{head}.    {ciphertext}.{tag}")
        assert_refused(f"{head}.{ciphertext[:-4]}.{ciphertext[-4:]}{tag}")


def with_joserfc(plain: bytes) -> str:
    header = encrypt("session", {}, [NEW]).partition(".")[0]
    known = json.loads(base64.urlsafe_b64decode(f"{header}=="))
    assert [known["alg"], known["enc"], known["zip"]] == ALGORITHMS
    return jwe.encrypt_compact(known, plain, KEY, algorithms=ALGORITHMS)


def test_what_is_encrypted_is_decrypted_by_joserfc_and_the_other_way() -> None:
    data = {"user": {"name": "Zoë \N{GRINNING FACE}", "": [0, -1.5, None, True]}}
    encrypted = encrypt("session", data, [NEW])
    plain = jwe.decrypt_compact(encrypted, KEY, algorithms=ALGORITHMS).plaintext or b""

    assert json.loads(plain) == data
    assert decrypt("session", with_joserfc(plain), [NEW]) == data
    for other in (b"[]", b"null", b"{", b"\xff"):
        assert_refused(with_joserfc(other))


def test_what_would_take_too_much_memory_is_refused() -> None:
    for text, is_long in ((os.urandom(50_000).hex(), True), (" " * 2_000_000, False)):
        encrypted = encrypt("session", {"a": text}, [NEW])

        assert (len(encrypted) > MAX_CHARACTERS) == is_long
        assert_refused(encrypted)
