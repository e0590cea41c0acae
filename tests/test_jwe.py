"""Sealing: what opens, and above all what does not."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.jwe import BadSeal, derive, seal, unseal

NEW, OLD, OTHER = "n" * 32, "o" * 32, "x" * 32
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_what_is_sealed_opens_again(data: dict[str, object]) -> None:
    assert unseal("session", seal("session", data, [NEW]), [NEW]) == data


def test_the_newest_secret_seals_and_every_secret_opens() -> None:
    sealed = seal("session", {"a": 1}, [OLD])

    assert unseal("session", sealed, [NEW, OLD]) == {"a": 1}
    assert unseal("session", seal("session", {}, [NEW, OLD]), [NEW]) == {}


@pytest.mark.parametrize(
    ("identifier", "secrets"),
    [("transaction", [NEW]), ("session", [OTHER]), ("session", [OTHER, OLD])],
    ids=["another use", "another secret", "a secret that was dropped"],
)
def test_it_opens_for_nothing_else(identifier: str, secrets: list[str]) -> None:
    sealed = seal("session", {"a": 1}, [NEW])

    with pytest.raises(BadSeal):
        unseal(identifier, sealed, secrets)


def test_no_byte_can_be_changed() -> None:
    parts = seal("session", {"sub": "alice"}, [NEW]).split(".")
    for place, part in enumerate(parts):
        raw = base64.urlsafe_b64decode(part + "==")
        for index in range(len(raw)):
            changed = bytearray(raw)
            changed[index] ^= 1
            text = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
            with pytest.raises(BadSeal):
                unseal(
                    "session",
                    ".".join([*parts[:place], text, *parts[place + 1 :]]),
                    [NEW],
                )


@given(st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text()))
def test_whatever_is_sent_is_refused(sent: object) -> None:
    with pytest.raises(BadSeal):
        unseal("session", sent, [NEW, OLD])


@given(st.text(), st.lists(st.text(), max_size=5))
def test_nothing_behind_our_own_header_opens(rest: str, more: list[str]) -> None:
    header = seal("session", {}, [NEW]).partition(".")[0]

    with pytest.raises(BadSeal):
        unseal("session", ".".join([header, rest, *more]), [NEW])


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    sealed = seal("session", {"name": "A\ud800"}, [NEW])

    assert unseal("session", sealed, [NEW]) == {"name": "A?"}


def test_every_purpose_has_a_key_of_its_own() -> None:
    assert derive(NEW, "one") != derive(NEW, "two")
    assert derive(NEW, "one") != derive(OLD, "one")
    assert len(derive(NEW, "one")) == 32
